"""Log observers: lines of text or of JSON, filtered by level.

For ``twistd --logger=meter.daemon.logs.text_lines`` and ``twistd --logger=meter.daemon.logs.json_lines``, which call
the function without an argument. ``[meter] log_levels``, or else the environment variable ``METER_LOG_LEVELS``, sets the level,
and levels of single namespaces after it: ``info meter.bus.amqp=debug``.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from typing import Any
from typing import TextIO

from twisted.logger import FilteringLogObserver
from twisted.logger import ILogFilterPredicate
from twisted.logger import ILogObserver
from twisted.logger import InvalidLogLevelError
from twisted.logger import LogEvent
from twisted.logger import LogLevel
from twisted.logger import LogLevelFilterPredicate
from twisted.logger import eventAsText
from twisted.logger import formatEvent
from zope.interface import implementer
from zope.interface import provider

from meter.daemon.log_limit import LogLimit
from meter.settings.masked import masked_urls

ENVIRONMENT_VARIABLE = "METER_LOG_LEVELS"

DEFAULT_LEVELS = {"twisted.conch": LogLevel.warn, "twisted.web": LogLevel.warn}
"""Default levels of the parts of Twisted that log a line per connection or request."""


def text_lines() -> ILogObserver:
    """Return an observer that writes a line per event, and tracebacks, to the standard output."""
    return _observer_of_stdout(as_text)


def json_lines() -> ILogObserver:
    """Return an observer that writes one JSON object per event and line to the standard output."""
    return _observer_of_stdout(as_json)


def _observer_of_stdout(write: Callable[[LogEvent], str]) -> ILogObserver:
    """Return an observer with the levels of the configuration or of the environment; exit with status 1 if these are invalid."""
    try:
        set_levels(_configured)
    except ValueError as error:
        raise SystemExit(f"{ENVIRONMENT_VARIABLE}: {error}") from error
    return _filtered(sys.stdout, write, _levels)


def set_levels(configured: str) -> None:
    """Filter what the observers of this process write by ``configured``; an empty text stands for the environment variable.

    Raises ``ValueError`` for an invalid text. It may be called before there is an observer.
    """
    global _configured
    _levels.predicate = level_filter(configured or os.environ.get(ENVIRONMENT_VARIABLE, "info"))
    _configured = configured


def observer(stream: TextIO, write: Callable[[LogEvent], str], levels: str) -> ILogObserver:
    """Return an observer that writes ``write(event)`` to ``stream`` for events that pass :func:`level_filter`."""
    return _filtered(stream, write, level_filter(levels))


def _filtered(stream: TextIO, write: Callable[[LogEvent], str], predicate: ILogFilterPredicate) -> ILogObserver:
    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        # A line with an unpaired surrogate must not be lost.
        stream.write(masked_urls(write(event)).encode("utf-8", "backslashreplace").decode() + "\n")
        stream.flush()

    return FilteringLogObserver(LogLimit(observe), [predicate])


@implementer(ILogFilterPredicate)
class ChangeableLevels:
    """Filters by ``predicate``, which can be replaced."""

    def __init__(self, predicate: LogLevelFilterPredicate) -> None:
        self.predicate = predicate

    def __call__(self, event: LogEvent) -> Any:
        """Return whether the event is written."""
        return self.predicate(event)


def level_filter(levels: str) -> LogLevelFilterPredicate:
    """Return the filter for ``levels``, as ``info meter.bus.amqp=debug``; ``ValueError`` for any other text."""
    default, *parts = levels.replace(",", " ").split() or ["info"]
    predicate = LogLevelFilterPredicate(defaultLogLevel=_level(default, levels))
    for namespace, level in DEFAULT_LEVELS.items():
        predicate.setLogLevelForNamespace(namespace, level)
    for part in parts:
        namespace, _, level_name = part.partition("=")
        predicate.setLogLevelForNamespace(namespace, _level(level_name, levels))
    return predicate


def _level(name: str, levels: str) -> Any:
    try:
        return LogLevel.levelWithName(name)
    except InvalidLogLevelError:
        known = ", ".join(level.name for level in LogLevel.iterconstants())
        raise ValueError(
            f"{levels!r} must be a level, followed by levels of namespaces, as 'info meter.bus.amqp=debug'; "
            f"{name!r} is not one of the levels {known}"
        ) from None


def as_text(event: LogEvent) -> str:
    """Return ``event`` as ``2026-11-22T17:00:59.701Z info meter.agent.polling: polled 12 samples``, with its traceback."""
    text = eventAsText(event, includeTimestamp=False, includeSystem=False)
    return f"{_time(event)} {_level_name(event)} {_namespace(event)}: {text}"


def as_json(event: LogEvent) -> str:
    """Return ``event`` as an object: ``time``, ``level``, ``namespace``, ``text``, ``format``, ``fields``, and ``traceback`` if it has one.

    ``format`` is the constant text with the names of the fields, the same for all events of a kind; ``fields`` are its values.
    """
    members: dict[str, object] = {
        "time": _time(event),
        "level": _level_name(event),
        "namespace": _namespace(event),
        "text": formatEvent(event),
        "format": str(event.get("log_format") or ""),
        "fields": _plain_fields(event),
    }
    if "log_failure" in event:
        members["traceback"] = event["log_failure"].getTraceback()
    return json.dumps(members)


def _plain_fields(event: Mapping[str, object]) -> dict[str, object]:
    """Return the fields with JSON values; objects are in the text already, and a number that JSON has not is a text."""
    internal = {"isError", "format", "message", "system", "time", "failure", "why"}
    return {
        name: value if not isinstance(value, float) or math.isfinite(value) else str(value)
        for name, value in event.items()
        if isinstance(value, str | int | float | None) and not name.startswith("log_") and name not in internal
    }


def _time(event: LogEvent) -> str:
    return (
        datetime.fromtimestamp(event.get("log_time", 0), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def _level_name(event: LogEvent) -> str:
    return event["log_level"].name if "log_level" in event else "info"


def _namespace(event: LogEvent) -> str:
    return str(event.get("log_namespace", "-"))


_levels = ChangeableLevels(level_filter("info"))

_configured = ""
