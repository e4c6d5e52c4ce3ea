"""What daemons write about themselves: lines of text for people or of JSON for machines, from a level on.

Both formats are made for ``twistd --logger=meter.daemon.logs.text_lines`` and ``--logger=meter.daemon.logs.json_lines``, which calls
them without an argument. How much is written stands in the environment variable ``METER_LOG_LEVELS``: a level, and
levels of single parts after it, as in ``info meter.bus.amqp=debug``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from typing import Any
from typing import TextIO

from twisted.logger import FilteringLogObserver
from twisted.logger import ILogObserver
from twisted.logger import InvalidLogLevelError
from twisted.logger import LogEvent
from twisted.logger import LogLevel
from twisted.logger import LogLevelFilterPredicate
from twisted.logger import eventAsText
from twisted.logger import formatEvent
from zope.interface import provider

ENVIRONMENT_VARIABLE = "METER_LOG_LEVELS"

CHATTER = {"twisted.conch": LogLevel.warn, "twisted.web": LogLevel.warn}
"""Parts of Twisted that write a line per connection or request, and what to hear of them unless told otherwise."""


def text_lines() -> ILogObserver:
    """Return an observer that writes a line per event, and tracebacks, to the standard output."""
    return observer(sys.stdout, as_text, os.environ.get(ENVIRONMENT_VARIABLE, "info"))


def json_lines() -> ILogObserver:
    """Return an observer that writes one JSON object per event and line to the standard output."""
    return observer(sys.stdout, as_json, os.environ.get(ENVIRONMENT_VARIABLE, "info"))


def observer(stream: TextIO, write: Callable[[LogEvent], str], levels: str) -> ILogObserver:
    """Return an observer that puts ``write(event)`` on ``stream`` for events of ``levels``, see :func:`level_filter`."""

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        # Half a character in somebody's text must not cost the line.
        stream.write(write(event).encode("utf-8", "backslashreplace").decode() + "\n")
        stream.flush()

    return FilteringLogObserver(observe, [level_filter(levels)])


def level_filter(levels: str) -> LogLevelFilterPredicate:
    """Return the filter that ``levels`` describes: ``info meter.bus.amqp=debug``; ``ValueError`` says what is wrong with it."""
    default, *parts = levels.replace(",", " ").split() or ["info"]
    predicate = LogLevelFilterPredicate(defaultLogLevel=_level(default, levels))
    for namespace, level in CHATTER.items():
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
            f"{levels!r} should be a level and then parts with theirs, like 'info meter.bus.amqp=debug'; "
            f"{name!r} is none of the levels {known}"
        ) from None


def as_text(event: LogEvent) -> str:
    """Return ``event`` as ``2026-11-22T17:00:59.701Z info meter.agent.polling: polled 12 samples``, with its traceback."""
    text = eventAsText(event, includeTimestamp=False, includeSystem=False)
    return f"{_time(event)} {_level_name(event)} {_namespace(event)}: {text}"


def as_json(event: LogEvent) -> str:
    """Return ``event`` as an object with ``time``, ``level``, ``namespace``, ``text``, ``traceback`` and its plain fields."""
    fields: dict[str, object] = {
        "time": _time(event),
        "level": _level_name(event),
        "namespace": _namespace(event),
        "text": formatEvent(event),
    }
    if "log_failure" in event:
        fields["traceback"] = event["log_failure"].getTraceback()
    return json.dumps({**_plain_fields(event), **fields})


def _plain_fields(event: Mapping[str, object]) -> dict[str, object]:
    """A number in a field stays a number; objects are in the text already."""
    internal = {"isError", "format", "message", "system", "time", "failure", "why"}
    return {
        name: value
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
