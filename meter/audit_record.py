"""The audit log as those see it who act: a function that records what is about to be done."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

Record = Callable[[str, Mapping[str, Any]], Awaitable[None]]
"""Records an action with its details in the audit log; ``Unavailable`` if that fails, and then the action must not be done."""
