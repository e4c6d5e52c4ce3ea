"""Ingest of samples that clients POST: validated by Ceilometer's rules, signed, and published or written directly."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC
from datetime import datetime
from typing import Any

import msgspec

from meter.api.auth.requester import Requester
from meter.api.auth.visibility import VisibleStore
from meter.api.errors import ApiError
from meter.api.errors import invalid_input
from meter.api.posted_samples import PostedSampleRules
from meter.api.request.times import invalid_time
from meter.bus.batches import iter_publications
from meter.ceilometer_signature import BadSignature
from meter.daemon.shared_slices import OwnedSlices
from meter.interfaces import IPublisher
from meter.interfaces import IStore
from meter.interfaces import Publication
from meter.interfaces import RequestError
from meter.interfaces import Unavailable
from meter.message import BadMessage
from meter.message import MeteringMessage
from meter.message import parse_timestamp
from meter.message import read_cast
from meter.outgoing import OutgoingMessage
from meter.outgoing import Signer
from meter.resource_owner import submitted_source
from meter.sample import RESERVED_METADATA
from meter.sample import SAMPLE_TYPES
from meter.sample import VALID_VOLUMES
from meter.sample import BadSample
from meter.sample import Sample
from meter.sample import shown_volume
from meter.sample import volume_is_valid
from meter.signing_keys import Keyring


class PostedSample(msgspec.Struct, kw_only=True):
    """A sample in the body of a POST. ``counter_volume`` can be a number in a string."""

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

PUBLISHED_SAMPLES = 25
"""Samples per publication: encoding is done in one step, and each of them can have 32 KiB."""

WRITTEN_SAMPLES = 100
"""Samples per transaction of a direct write: making rows of them is done in one step."""

MAX_METADATA_DEPTH = 100
"""Levels of nesting that the dots in one key can create."""


class SampleIngest:
    """Signs samples with ``keys``, and publishes them on the bus or writes them to the store.

    ``source`` is the source of samples that have none. ``rules`` say what clients may submit.
    """

    def __init__(
        self,
        keys: Keyring,
        source: str,
        publisher: IPublisher,
        store: IStore,
        rules: PostedSampleRules = PostedSampleRules(),  # noqa: B008 (frozen)
    ) -> None:
        self._keys = keys
        self._source = source
        self._publisher = publisher
        self._store = store
        self._rules = rules

    async def check(
        self, samples: Sequence[Sample], requester: Requester, now: float, store: VisibleStore, slices: OwnedSlices
    ) -> None:
        """Raise :class:`ApiError` if ``requester``, whose view is ``store``, may not submit one of ``samples``."""
        await self._rules.check(samples, requester, now, store, slices)

    async def publish(self, samples: Sequence[Sample], slices: OwnedSlices) -> Sequence[MeteringMessage]:
        """Publish ``samples``; return their messages once the bus has confirmed them. ``Unavailable`` if it cannot."""
        publications, messages = await self._sign(samples, slices)
        for publication in publications:
            try:
                await self._publisher.publish(publication)
            except ValueError as error:
                raise ApiError(400, f"The message bus rejected the samples: {error}") from error
            except Unavailable as error:
                raise Unavailable(f"samples cannot be published on the message bus: {error}") from error
        return messages

    async def write(
        self, samples: Sequence[Sample], slices: OwnedSlices, place: Callable[[], AbstractAsyncContextManager[None]]
    ) -> Sequence[MeteringMessage]:
        """Write ``samples`` to the store; return their messages once they are committed. Each transaction takes a ``place``.

        If the store refuses some of them, the others are written, and the first reason is that of the :class:`RequestError`.
        """
        _, messages = await self._sign(samples, slices)
        refusals: list[RequestError] = []
        for start in range(0, len(messages), WRITTEN_SAMPLES):
            async with place():
                result = await self._store.write(messages[start : start + WRITTEN_SAMPLES])
            refusals += [
                RequestError(f"Sample {start + refused.index}: {refused.reason}", refused.cause)
                for refused in result.refused
            ]
        if refusals:
            raise refusals[0]
        return messages

    async def parse(self, body: Any, meter: str, requester: Requester, now: float, slices: OwnedSlices) -> list[Sample]:
        """Return the samples in the decoded ``body``; :class:`ApiError` 400 if one is invalid or of another meter."""
        if not body:
            raise ApiError(400, "Samples should be included in request body")
        if not isinstance(body, list):
            raise ApiError(400, "The body must be a list of samples.")
        samples: list[Sample] = []
        async for batch in slices.batches(body, 1):
            samples += [self._sample(_validate(each), meter, requester, now) for each in batch]
        return samples

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
        if posted.recorded_at is not None:  # validated only: the store records its own time
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
                source=submitted_source(project_id, source),
                timestamp=datetime.fromtimestamp(now, UTC)
                if posted.timestamp is None
                else _time("timestamp", posted.timestamp),
                resource_metadata=unflatten(posted.resource_metadata or {}),
            )
        except BadSample as error:
            raise ApiError(400, f"Invalid sample: {error}") from error

    async def _sign(
        self, samples: Sequence[Sample], slices: OwnedSlices
    ) -> tuple[Sequence[Publication], Sequence[MeteringMessage]]:
        """Return the signed publications of ``samples``, and their messages as a collector reads them, in the given order."""
        signer = Signer(self._keys, self._source, untrusted=True)
        outgoing: list[OutgoingMessage] = []
        publications: list[Publication] = []
        read: list[MeteringMessage] = []
        try:
            async for batch in slices.batches(samples, 1):
                outgoing += [signer.message(sample) for sample in batch]
            for publication in iter_publications(outgoing, batch_samples=PUBLISHED_SAMPLES):
                publications.append(publication)
                if slices.over:
                    await slices.pause()
                read += read_cast(publication.body, self._keys)
                if slices.over:
                    await slices.pause()
        except (BadMessage, BadSignature, RecursionError) as error:
            raise ApiError(400, f"Invalid sample: {error}") from error
        by_id = {message.message_id: message for message in read}
        return publications, [by_id[message.fields["message_id"]] for message in outgoing]


def _validate(content: Any) -> PostedSample:
    """Return one sample of a body; :class:`ApiError` 400 for unknown, missing or invalid members."""
    if not isinstance(content, dict):
        raise ApiError(400, "The body must be a list of samples, each an object.")
    unknown = sorted(content.keys() - ATTRIBUTES)
    if unknown:
        raise ApiError(400, f"Unknown attribute: {', '.join(unknown)[:200]}")
    for name in MANDATORY:
        if content.get(name) is None:
            raise invalid_input(name, None, "Mandatory field missing.")
    try:
        posted = msgspec.convert(content, PostedSample)
    except msgspec.ValidationError as error:
        raise ApiError(400, f"Invalid sample: {error}") from error
    metadata = posted.resource_metadata or {}
    texts = (*msgspec.structs.astuple(posted), *metadata, *metadata.values())
    if any("\0" in text for text in texts if isinstance(text, str)):
        raise ApiError(400, "Invalid sample: strings must not contain NUL characters.")
    return posted


def _volume(given: int | float | str) -> int | float:
    number = _number(given) if isinstance(given, str) else given
    if not volume_is_valid(number):
        raise invalid_input("counter_volume", shown_volume(number), f"must be {VALID_VOLUMES}.")
    return number


def _number(text: str) -> int | float:
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    raise invalid_input("counter_volume", text[:80], "unable to convert to float")


def _time(name: str, text: str) -> datetime:
    try:
        return parse_timestamp(text, name)
    except BadMessage as error:
        raise invalid_time(name, text[:80]) from error


def unflatten(flat: Mapping[str, str | None]) -> dict[str, Any]:
    """Return ``flat`` metadata nested, as it is stored: a dot in a key separates levels.

    A key that has a value itself gets no level below it: ``{"a": "b", "a.b": "c"}`` is returned unchanged, without loss.
    """
    tree: dict[str, Any] = {}
    for key in sorted(flat):
        *path, name = key.split(".")
        if (path or [name])[0] == RESERVED_METADATA:
            # It assigns a sample to a run of a counter: a client that could set it could distort the increase of others.
            raise invalid_input(
                "resource_metadata", key[:80], f"{RESERVED_METADATA} is reserved for Meter's own agents"
            )
        if len(path) >= MAX_METADATA_DEPTH:
            raise invalid_input("resource_metadata", key[:80], f"keys can have at most {MAX_METADATA_DEPTH} levels")
        node: Any = tree
        for level, step in enumerate(path):
            inner = node.setdefault(step, {})
            if not isinstance(inner, dict):
                name = ".".join((*path[level:], name))
                break
            node = inner
        node[name] = flat[key]
    return tree
