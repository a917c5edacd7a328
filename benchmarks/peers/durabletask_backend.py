"""The process of the backend: ``python -m benchmarks.peers.durabletask_backend PORT``."""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from typing import Any


def main(port: str) -> None:
    """Serve until the process is told to end."""
    testing: Any = import_module("durabletask.testing")
    backend = testing.create_test_backend(port=int(port))
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    backend.stop()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main(sys.argv[1])
