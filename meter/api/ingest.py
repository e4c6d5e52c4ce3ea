"""Samples that clients send: read by Ceilometer's rules, signed like all others, and published or written at once."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from typing import Any

import msgspec

from meter.api.auth.visibility import Requester
from meter.api.errors import Fault
from meter.api.errors import invalid_input
from meter.bus.batches import batch_publications
from meter.interfaces import IPublisher
from meter.interfaces import IStore
from meter.interfaces import Unavailable
from meter.message import BadMessage
from meter.message import MeteringMessage
from meter.message import parse_timestamp
from meter.message import read
from meter.message import sign
from meter.sample import RESERVED_METADATA
from meter.sample import SAMPLE_TYPES
from meter.sample import BadSample
from meter.sample import Sample
from meter.signature import BadSignature
from meter.signature import Keyring


class PostedSample(msgspec.Struct, kw_only=True):
    """A sample as clients send it. ``counter_volume`` may be a number in a text."""

    counter_name: str
    counter_type: str
    counter_unit: str
    counter_volume: int | float | str
    resource_id: str
    project_id: str | None = None
    user_id: str | None = None
    source: str | None = None
    timestamp: str | None = None
    recorded_at: str | None = None
    resource_metadata: dict[str, str | None] | None = None
    message_id: str | None = None


MANDATORY = ("counter_name", "counter_type", "counter_unit", "counter_volume", "resource_id")
ATTRIBUTES = frozenset(PostedSample.__struct_fields__)

DEEPEST_METADATA = 100
"""Levels that the dots of one key may lead down."""


class SampleIngest:
    """What becomes of samples that clients send.

    They are signed with ``keys``; ``source`` is the source of those that name none. ``publisher`` is the way all samples
    take, ``store`` the short one.
    """

    def __init__(self, keys: Keyring, source: str, publisher: IPublisher, store: IStore) -> None:
        self._keys = keys
        self._source = source
        self._publisher = publisher
        self._store = store

    async def publish(self, samples: Sequence[Sample]) -> Sequence[MeteringMessage]:
        """Return the messages of ``samples`` once the bus has made them safe; ``Unavailable`` while it cannot."""
        messages = self._signed(samples)
        by_key: dict[str | None, list[Mapping[str, Any]]] = {}
        for message in messages:
            by_key.setdefault(message.key_id, []).append(message.fields)
        for key_id, fields in by_key.items():
            for publication in batch_publications(fields, key_id):
                try:
                    await self._publisher.publish(publication)
                except ValueError as error:
                    raise Fault(400, f"The bus does not take the samples: {error}") from error
                except Unavailable as error:
                    raise Unavailable(f"samples cannot be sent over the bus: {error}") from error
        return messages

    async def write(self, samples: Sequence[Sample]) -> Sequence[MeteringMessage]:
        """Return the messages of ``samples`` once they are in the store."""
        messages = self._signed(samples)
        result = await self._store.write(messages)
        if result.refused:
            raise Fault(400, f"Sample {result.refused[0].index}: {result.refused[0].reason}")
        return messages

    def samples(self, body: Any, meter: str, requester: Requester, now: float) -> list[Sample]:
        """Return the samples that the decoded ``body`` holds; :class:`Fault` 400 where any of it is none of ``meter``."""
        if not body:
            raise Fault(400, "Samples should be included in request body")
        if not isinstance(body, list):
            raise Fault(400, "The body must be a list of samples.")
        return [self._sample(_posted(one), meter, requester, now) for one in body]

    def _sample(self, posted: PostedSample, meter: str, requester: Requester, now: float) -> Sample:
        if posted.counter_name != meter:
            raise invalid_input("counter_name", posted.counter_name, f"should be {meter}")
        if posted.message_id:
            raise invalid_input("message_id", posted.message_id, "The message_id must not be set")
        if posted.counter_type not in SAMPLE_TYPES:
            types = ", ".join(SAMPLE_TYPES)
            raise invalid_input("counter_type", posted.counter_type, f"The counter type must be: {types}")
        if not requester.is_admin and posted.project_id and posted.project_id != requester.project_id:
            raise invalid_input("project_id", posted.project_id, "can not post samples to other projects")
        project_id = posted.project_id or requester.project_id
        source = posted.source or self._source
        if posted.recorded_at is not None:  # not kept, as the store says when it recorded, but no less checked
            _time("recorded_at", posted.recorded_at)
        try:
            return Sample(
                name=posted.counter_name,
                type=next(kind for kind in SAMPLE_TYPES if kind == posted.counter_type),
                unit=posted.counter_unit,
                volume=_volume(posted.counter_volume),
                resource_id=posted.resource_id,
                project_id=project_id,
                user_id=posted.user_id or requester.user_id,
                source=f"{project_id}:{source}" if project_id else source,
                timestamp=datetime.fromtimestamp(now, UTC)
                if posted.timestamp is None
                else _time("timestamp", posted.timestamp),
                resource_metadata=nested(posted.resource_metadata or {}),
            )
        except BadSample as error:
            raise Fault(400, f"Invalid sample: {error}") from error

    def _signed(self, samples: Sequence[Sample]) -> list[MeteringMessage]:
        try:
            return [read(sign(sample, self._keys, self._source), self._keys) for sample in samples]
        except (BadMessage, BadSignature) as error:
            raise Fault(400, f"Invalid sample: {error}") from error


def _posted(one: Any) -> PostedSample:
    if not isinstance(one, dict):
        raise Fault(400, "The body must be a list of samples, each an object.")
    unknown = sorted(one.keys() - ATTRIBUTES)
    if unknown:
        raise Fault(400, f"Unknown attribute: {', '.join(unknown)[:200]}")
    for name in MANDATORY:
        if one.get(name) is None:
            raise invalid_input(name, None, "Mandatory field missing.")
    try:
        posted = msgspec.convert(one, PostedSample)
    except msgspec.ValidationError as error:
        raise Fault(400, f"Invalid sample: {error}") from error
    metadata = posted.resource_metadata or {}
    texts = (*msgspec.structs.astuple(posted), *metadata, *metadata.values())
    if any("\0" in text for text in texts if isinstance(text, str)):
        raise Fault(400, "Invalid sample: a text must not hold NUL characters.")
    return posted


def _volume(given: int | float | str) -> int | float:
    if not isinstance(given, str):
        return given
    for kind in (int, float):
        try:
            return kind(given)
        except ValueError:
            continue
    raise invalid_input("counter_volume", given[:80], "unable to convert to float")


def _time(name: str, given: str) -> datetime:
    try:
        return parse_timestamp(given, name)
    except BadMessage as error:
        raise invalid_input(name, given[:80], "invalid timestamp format") from error


def nested(flat: Mapping[str, str | None]) -> dict[str, Any]:
    """Return ``flat`` metadata as it is stored: a dot in a key leads one level down.

    Below a key that has a value of its own there is no level: ``{"a": "b", "a.b": "c"}`` stays as it is, and nothing is
    lost.
    """
    tree: dict[str, Any] = {}
    for key in sorted(flat):
        *path, name = key.split(".")
        if (path or [name])[0] == RESERVED_METADATA:
            # It says which run of a counter a sample belongs to: whoever could set it could bend another's increase.
            raise invalid_input(
                "resource_metadata", key[:80], f"{RESERVED_METADATA} is reserved for Meter's own agents"
            )
        if len(path) >= DEEPEST_METADATA:
            raise invalid_input("resource_metadata", key[:80], f"it may be at most {DEEPEST_METADATA} deep")
        place: Any = tree
        for level, step in enumerate(path):
            inner = place.setdefault(step, {})
            if not isinstance(inner, dict):
                name = ".".join((*path[level:], name))
                break
            place = inner
        place[name] = flat[key]
    return tree
