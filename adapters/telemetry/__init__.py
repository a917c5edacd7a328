"""Traces, metrics and structured logs of a hub: what OpenTelemetry, Prometheus and log stores take.

``JsonFormatter`` needs nothing else; the rest is in the extra ``otel``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .ids import IdGenerator
    from .logs import JsonFormatter
    from .metrics import METRICS_CONTENT_TYPE, HubCollector, instrument, metrics_text
    from .tracing import Tracing

__all__ = [
    "METRICS_CONTENT_TYPE",
    "HubCollector",
    "IdGenerator",
    "JsonFormatter",
    "Tracing",
    "instrument",
    "metrics_text",
]

_HOMES = {
    "HubCollector": ".metrics",
    "IdGenerator": ".ids",
    "JsonFormatter": ".logs",
    "METRICS_CONTENT_TYPE": ".metrics",
    "Tracing": ".tracing",
    "instrument": ".metrics",
    "metrics_text": ".metrics",
}

# Type checkers go by the imports above, and would believe in any name if they saw this.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        try:
            home = import_module(_HOMES[name], __name__)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("opentelemetry", "prometheus_client"):
                raise
            raise ImportError(
                f"{name} needs {error.name}: pip install 'perdure[otel]'", name=name
            ) from error
        globals()[name] = value = getattr(home, name)  # so that it is asked for once
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
