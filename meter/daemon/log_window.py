"""Windows of a minute, in each of which only so many lines are logged and the others are counted."""

from __future__ import annotations

WINDOW_SECONDS = 60.0


class LogWindow:
    """Tells when the next window begins; the first one begins at the first time. A clock that is set back begins one, too."""

    def __init__(self, seconds: float = WINDOW_SECONDS) -> None:
        self._seconds = seconds
        self._ends = float("-inf")

    def begins(self, now: float) -> bool:
        """Return whether ``now`` is outside the present window, and begins another one then."""
        if self._ends - self._seconds <= now < self._ends:
            return False
        self._ends = now + self._seconds
        return True
