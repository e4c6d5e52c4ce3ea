"""Logs dead letters: one line for each kind and subject in a minute, so that a flood of bad messages does not flood the log."""

from __future__ import annotations

from collections import Counter

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.daemon.log_window import LogWindow
from meter.interfaces import Publication

MAX_LINES = 50
"""Maximum number of lines in a window, over all kinds and subjects."""


class DeadLetterLog:
    """Logs the first dead letter of each kind and subject in a :class:`LogWindow`, and counts the others.

    The subject is the meter or the event type and the listener. The first dead letter after a window also logs how many
    were not logged in it.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._window = LogWindow()
        self._logged: set[tuple[object, ...]] = set()
        self._not_logged: Counter[str] = Counter()

    def add(self, letter: Publication) -> None:
        """Log or count ``letter``, a dead letter that the bus has confirmed."""
        if self._window.begins(self._clock.seconds()):
            self._end_window()
        kind = str(letter.headers.get("meter-kind"))
        key = (kind, *(letter.headers.get(f"meter-{name}") for name in ("queue", "meter", "event-type", "listener")))
        if key in self._logged or len(self._logged) >= MAX_LINES:
            self._not_logged[kind] += 1
            return
        self._logged.add(key)
        self._log.warn(
            "dead-lettered a message of exchange {exchange}, routing key {routing_key} ({kind}): {text}",
            exchange=letter.headers.get("meter-exchange", "unknown"),
            routing_key=letter.headers.get("meter-routing-key", "unknown"),
            kind=kind,
            text=letter.headers.get("meter-reason", ""),
        )

    def _end_window(self) -> None:
        if self._not_logged:
            self._log.warn(
                "dead-lettered {count} more messages like those logged: {kinds}",
                count=self._not_logged.total(),
                kinds=", ".join(f"{kind} {count}" for kind, count in sorted(self._not_logged.items())),
            )
        self._logged.clear()
        self._not_logged.clear()
