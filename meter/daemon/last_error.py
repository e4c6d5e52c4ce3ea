"""The last error that a daemon logged, for its heartbeats."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime

from twisted.logger import ILogObserver
from twisted.logger import LogEvent
from twisted.logger import LogLevel
from twisted.logger import formatEvent
from zope.interface import implementer

from meter.bus.masking import masked_text
from meter.sample import utc_text
from meter.settings.masked import masked

MAX_ERROR = 500
"""Maximum length of the text, in characters."""

ERRORS = (LogLevel.error, LogLevel.critical)


@implementer(ILogObserver)
class LastError:
    """Remembers the last event with the level error or above.

    ``text`` is one line of at most :data:`MAX_ERROR` characters, without secrets; ``at`` its time in UTC, as text. Both are
    empty while there was no error.
    """

    def __init__(self) -> None:
        self.text = ""
        self.at = ""

    def __call__(self, event: LogEvent) -> None:
        """Remember an event if it is an error."""
        if event.get("log_level") not in ERRORS:
            return
        text = formatEvent(event)
        if (failure := event.get("log_failure")) is not None:
            text = f"{text}: {failure.type.__name__}: {failure.getErrorMessage()}"
        # Cut before it is masked, which takes time in proportion to its length, and again afterwards.
        safe = masked(masked_text(" ".join(text[: 4 * MAX_ERROR].split())))
        self.text = safe if len(safe) <= MAX_ERROR else safe[: MAX_ERROR - 1] + "…"
        self.at = utc_text(datetime.fromtimestamp(event.get("log_time", 0), UTC))
