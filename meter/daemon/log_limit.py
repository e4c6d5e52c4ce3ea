"""A limit of repeated lines in the log: whoever can cause a line can otherwise fill the disk with it."""

from __future__ import annotations

from collections import Counter

from twisted.logger import ILogObserver
from twisted.logger import LogEvent
from twisted.logger import LogLevel
from zope.interface import implementer

from meter.daemon.log_window import WINDOW_SECONDS
from meter.daemon.log_window import LogWindow

LIMITED = (LogLevel.warn, LogLevel.error, LogLevel.critical)
"""Other levels are not limited: an access log has a line for each request."""

MAX_EVENTS = 100


@implementer(ILogObserver)
class LogLimit:
    """Passes at most :data:`MAX_EVENTS` warnings and errors of one namespace with one constant text on, in a :class:`LogWindow`.

    The first event after such a window is preceded by one that counts those that were not passed on.
    """

    def __init__(self, observer: ILogObserver, max_events: int = MAX_EVENTS) -> None:
        self._observer = observer
        self._max_events = max_events
        self._window = LogWindow()
        self._seen: Counter[tuple[str, str]] = Counter()

    def __call__(self, event: LogEvent) -> None:
        """Pass ``event`` on or count it."""
        now = event.get("log_time", 0.0)
        if self._window.begins(now):
            self._end_window(now)
        if event.get("log_level") in LIMITED:
            kind = str(event.get("log_namespace", "-")), str(event.get("log_format") or event.get("format") or "")
            self._seen[kind] += 1
            if self._seen[kind] > self._max_events:
                return
        self._observer(event)

    def _end_window(self, now: float) -> None:
        for (namespace, text), count in self._seen.items():
            if count > self._max_events:
                self._observer(
                    {
                        "log_time": now,
                        "log_level": LogLevel.warn,
                        "log_namespace": namespace,
                        "log_format": "{count} more events like this were not logged within {seconds:.0f} s: {like}",
                        "count": count - self._max_events,
                        "seconds": WINDOW_SECONDS,
                        "like": text,
                    }
                )
        self._seen.clear()
