"""isinstance, type and hasattr under names that do not narrow.

What comes in is Any and stays Any, instead of becoming a dict of unknowns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# isinstance and type under names that do not narrow: what comes in is Any and stays Any, instead
# of becoming a dict of unknowns.
is_a: Callable[[Any, Any], bool] = isinstance


class_of: Callable[[Any], Any] = type


has: Callable[[Any, str], bool] = hasattr
