"""Large bodies: opened in a thread and in steps, so that no body blocks the reactor, and limited in their values.

A body of at most :data:`LARGE_BYTES` with at most :data:`LARGE_VALUES` values is opened at once, as it takes a few
milliseconds; all of Meter's own and nearly all others are. Anybody who may publish on the bus can send larger ones.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime

from meter.bus.incremental_json import IncrementalDecoder
from meter.bus.incremental_json import NotJson
from meter.bus.incremental_json import separators
from meter.message import BadMessage
from meter.message import MeteringMessage
from meter.message import NotFinite
from meter.message import finite
from meter.message import message_of
from meter.message import open_envelope

LARGE_BYTES = 256 * 1024
"""Bytes of a body with samples from which on it is opened in a thread. A batch of Meter has some 60 to 150 KB."""

LARGE_VALUES = 20_000
"""The same in values; a batch of Meter has some 4 000."""

MAX_VALUES = 1_000_000
"""Maximum number of values in a body, as counted by :func:`meter.bus.incremental_json.separators`."""

MAX_SAMPLES = 50_000
"""Maximum number of samples in a body."""

MAX_SAMPLE_VALUES = 20_000
"""Maximum number of names and values in one sample."""

MAX_SAMPLE_CHARACTERS = 256 * 1024
"""Maximum number of characters of all texts in one sample."""

MAX_PART_WEIGHT = 1024 * 1024
"""Maximum weight of the samples of a large body that are written in one transaction, unless it is one sample."""

TURN_SECONDS = 0.005
"""After this time, at the latest, the reactor runs other work."""

Runner = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Calls a function off the reactor's thread, and returns its result or raises its exception."""

_DECODER = IncrementalDecoder(parse_float=finite, parse_constant=NotFinite)


class TooComplex(BadMessage):
    """A body, or a sample in it, with more values or characters than Meter processes; the text names the limit."""


class _Envelope(msgspec.Struct):
    """An envelope of version 2; other members are skipped."""

    version: str | int | float = msgspec.field(name="oslo.version")
    message: str = msgspec.field(name="oslo.message")


def is_large(body: bytes, max_bytes: int = LARGE_BYTES, max_values: int = LARGE_VALUES) -> bool:
    """Return whether ``body`` is to be opened in a thread."""
    return len(body) > max_bytes or separators(body) > max_values


async def opened(body: bytes, off_reactor: Runner) -> dict[str, Any]:
    """Return the message in ``body``, as :func:`meter.message.open_envelope` does, however large it is.

    Raises :class:`BadMessage`, which is :class:`TooComplex` for more than :data:`MAX_VALUES` values.
    """
    if not is_large(body):
        return open_envelope(body)
    content: dict[str, Any] = await off_reactor(lambda: open_in_steps(body))
    return content


def open_in_steps(body: bytes, max_values: int = MAX_VALUES) -> dict[str, Any]:
    """Return the message in ``body``, decoded in steps; for a thread. Raises :class:`BadMessage`."""
    if (count := separators(body)) > max_values:
        raise TooComplex(f"the body has about {count} values; the limit is {max_values}")
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass  # no envelope, or a bad one
    else:
        return message_of({"oslo.version": envelope.version, "oslo.message": envelope.message}, _decoded)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadMessage(f"body is not JSON: {error}") from error
    return message_of(_decoded(text, "body"), _decoded)


def _decoded(text: str, label: str) -> dict[str, Any]:
    try:
        content = _DECODER.decode(text)
    except NotJson as error:
        raise BadMessage(f"{label} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadMessage(f"{label} must be a JSON object, not a {type(content).__name__}")
    return content


def check_sample(entry: Any) -> int:
    """Return the weight of an entry: its characters, and 16 for each name and value.

    Raises :class:`TooComplex` for more than :data:`MAX_SAMPLE_VALUES` or :data:`MAX_SAMPLE_CHARACTERS`.
    """
    values, characters = 1, 0
    waiting = [entry]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            characters += len(value)
            continue
        if not isinstance(value, dict | list):
            continue
        values += 2 * len(value) if isinstance(value, dict) else len(value)
        if values > MAX_SAMPLE_VALUES:
            raise TooComplex(f"the sample has more than {MAX_SAMPLE_VALUES} names and values")
        if isinstance(value, dict):
            characters += sum(map(len, value))
            waiting += value.values()
        else:
            waiting += value
    if characters > MAX_SAMPLE_CHARACTERS:
        raise TooComplex(f"the texts of the sample have {characters} characters; the limit is {MAX_SAMPLE_CHARACTERS}")
    return characters + 16 * values


def check_number(entries: Sequence[Any]) -> None:
    """Raise :class:`TooComplex` for more than :data:`MAX_SAMPLES`."""
    if len(entries) > MAX_SAMPLES:
        raise TooComplex(f"the body has {len(entries)} samples; the limit is {MAX_SAMPLES}")


def parts(messages: list[MeteringMessage], max_samples: int, large: bool) -> Iterator[list[MeteringMessage]]:
    """Yield ``messages`` in parts to be written together: at most ``max_samples``, of a ``large`` body also limited in weight."""
    first = weight = 0
    for number, message in enumerate(messages):
        of_message = check_sample(message.fields) if large else 0
        if number - first == max_samples or (number > first and weight + of_message > MAX_PART_WEIGHT):
            yield messages[first:number]
            first, weight = number, 0
        weight += of_message
    if first < len(messages):
        yield messages[first:]


class Turn:
    """Says when a loop has to let the reactor run: after ``max_steps``, or :data:`TURN_SECONDS`."""

    def __init__(self, clock: IReactorTime, max_steps: int) -> None:
        self._clock = clock
        self._max_steps = max_steps
        self.begin()

    def begin(self) -> None:
        """Begin a turn."""
        self._began = self._clock.seconds()
        self._steps = 0

    def over(self) -> bool:
        """Count a step; return whether the turn is over."""
        self._steps += 1
        return self._steps >= self._max_steps or self._clock.seconds() - self._began >= TURN_SECONDS
