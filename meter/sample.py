"""The sample: one measurement of one meter of one resource, as a frozen, validated record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from types import NoneType
from typing import Any
from typing import Literal
from typing import get_args

import msgspec

SampleType = Literal["gauge", "delta", "cumulative"]
"""*gauge* is a current value, *delta* a change, *cumulative* a counter that only grows until it is reset."""

SAMPLE_TYPES: tuple[SampleType, ...] = get_args(SampleType)

RESERVED_METADATA = "_meter"
"""Meter's own member of ``resource_metadata``: a mapping with ``interval``, the polling interval in seconds, ``run`` and
``may_differ``. Samples of one meter, unit and resource with the same ``run`` belong to one counter that was not reset between
them, or to a resource that existed all the time between them. ``may_differ`` is a list of fields, see
:func:`meter.sample_identity.may_differ`."""

EXISTED_THROUGHOUT = "exists"
"""The ``run`` of a resource whose id is never reused: it existed between any two of its samples."""

DELETED = "deleted"
"""The ``run`` of the last sample, 0, of a gauge whose resource was deleted and whose id is never reused: later samples of that
gauge do not count in ``integral``."""

MAX_VOLUME = 1e30
"""Largest magnitude of a volume. It is a hundred billion times the nanoseconds of a century, the bytes of a century at 10**20
a second, and exceeds every 64-bit counter. The squares of volumes, and sums of them or of volume times hours over any number
of samples, remain below the limit of double precision, 10**308."""

MIN_VOLUME = 1e-100
"""Smallest magnitude of a volume other than 0. The quotient of it and any number of samples, and the product with the hours of
a microsecond, are not 0 in double precision, which PostgreSQL would reject as an underflow."""

MAX_RUN = 255
"""Maximum length of a ``run``, in characters."""


def run_text(*parts: str) -> str:
    """Return a ``run`` made of ``parts``, outermost first, joined with slashes; a long one is cut and ends in a digest."""
    text = "/".join(parts)
    if len(text) <= MAX_RUN:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]
    return f"{text[: MAX_RUN - 1 - len(digest)]}~{digest}"


def with_reserved(metadata: Mapping[str, Any], **members: Any) -> dict[str, Any]:
    """Return ``metadata`` with ``members`` added to its reserved member."""
    reserved = metadata.get(RESERVED_METADATA)
    return {**metadata, RESERVED_METADATA: {**(reserved if isinstance(reserved, Mapping) else {}), **members}}


def volume_is_valid(volume: int | float) -> bool:
    """Return whether ``volume`` is 0 or has a magnitude from :data:`MIN_VOLUME` to :data:`MAX_VOLUME`; NaN has not."""
    return MIN_VOLUME <= abs(volume) <= MAX_VOLUME or volume == 0


VALID_VOLUMES = f"a finite number: 0, or from {MIN_VOLUME:g} to {MAX_VOLUME:g} in magnitude"
"""What a volume must be, for errors."""


class BadSample(ValueError):
    """An invalid sample; the text names the field, its value and what is allowed."""


@dataclass(frozen=True, slots=True)
class MeterDefinition:
    """A meter that a plugin makes samples of: ``MeterDefinition("cpu", "cumulative", "ns")``.

    ``name`` may end in ``*`` if the rest is known only with the sample (``instance:*``).
    """

    name: str
    type: SampleType
    unit: str

    def sample(self, volume: int | float, resource_id: str, timestamp: datetime, **more: Any) -> Sample:
        """Return a sample of this meter; ``more`` are further fields of :class:`Sample`."""
        return Sample(
            name=self.name,
            type=self.type,
            unit=self.unit,
            volume=volume,
            resource_id=resource_id,
            timestamp=timestamp,
            **more,
        )


class Sample(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One measurement. A struct, because creating a frozen dataclass takes ten times as long; ``msgspec.structs.replace`` copies it.
    The garbage collector does not look at it, as no cycle of references contains one.

    ``volume`` is an ``int`` or a ``float`` in ``unit``, :func:`volume_is_valid`; it is signed and stored as written, so ``1``
    and ``1.0`` differ. ``timestamp`` is the time of the measurement, with a time zone. ``resource_metadata`` is JSON: mappings with text
    keys, lists, text, numbers, booleans and null. Plugins leave ``source`` as ``None``: the daemon fills in its configured
    one, and ``message_id`` too: the store recognizes duplicates by it, and the daemon assigns it once, when it makes the
    message of the sample.
    """

    name: str
    type: SampleType
    unit: str
    volume: int | float
    resource_id: str
    timestamp: datetime
    user_id: str | None = None
    project_id: str | None = None
    resource_metadata: Mapping[str, Any] = msgspec.field(default_factory=dict)
    source: str | None = None
    message_id: str | None = None

    def __post_init__(self) -> None:
        """Raise :class:`BadSample` for values that could not be signed, stored or queried."""
        volume, timestamp = self.volume, self.timestamp
        # What nearly every sample is, in a fifth of the time of the checks that can name what is wrong.
        if not (
            type(volume) in _NUMBER_TYPES
            and (MIN_VOLUME <= volume <= MAX_VOLUME or volume == 0)
            and _TEXT_TYPES.issuperset((type(self.name), type(self.type), type(self.unit), type(self.resource_id)))
            and _OPTIONAL_TEXT_TYPES.issuperset(
                (type(self.user_id), type(self.project_id), type(self.source), type(self.message_id))
            )
            and self.name
            and self.resource_id
            and self.message_id != ""
            and self.type in _TYPES
            and type(timestamp) is datetime
            and timestamp.tzinfo is not None
            and type(self.resource_metadata) is dict
        ):
            _check(self)


_TYPES = frozenset(SAMPLE_TYPES)
_NUMBER_TYPES = frozenset({int, float})
_TEXT_TYPES = frozenset({str})
_OPTIONAL_TEXT_TYPES = frozenset({str, NoneType})


def _check(sample: Sample) -> None:
    """Raise :class:`BadSample`, which names the field, its value and what is allowed, unless ``sample`` is valid.

    Texts of a subclass of ``str``, such as an enumeration, become plain ones: they could be written in two ways.
    """
    for label in ("name", "resource_id"):
        value = getattr(sample, label)
        if not isinstance(value, str) or not value:
            raise BadSample(f"{label} must be a non-empty text, not {value!r}")
    if sample.message_id is not None and (not isinstance(sample.message_id, str) or not sample.message_id):
        raise BadSample(f"message_id must be a non-empty text or None, not {sample.message_id!r}")
    if not isinstance(sample.unit, str):  # empty for a dimensionless number, as some of Ceilometer's clients send it
        raise BadSample(f"unit must be a text, not {sample.unit!r}")
    for label in ("user_id", "project_id", "source"):
        value = getattr(sample, label)
        if value is not None and not isinstance(value, str):
            raise BadSample(f"{label} of {sample.name} must be text or None, not {value!r}")
    if sample.type not in SAMPLE_TYPES:
        raise BadSample(f"type of {sample.name} must be one of {', '.join(SAMPLE_TYPES)}, not {sample.type!r}")
    if isinstance(sample.volume, bool) or not isinstance(sample.volume, int | float):
        raise BadSample(f"volume of {sample.name} must be a number, not {sample.volume!r}")
    if not volume_is_valid(sample.volume):
        raise BadSample(f"volume of {sample.name} must be {VALID_VOLUMES}, not {shown_volume(sample.volume)}")
    if not isinstance(sample.timestamp, datetime) or sample.timestamp.tzinfo is None:
        raise BadSample(f"timestamp of {sample.name} must have a time zone, not {sample.timestamp!r}")
    if not isinstance(sample.resource_metadata, Mapping):
        raise BadSample(f"resource_metadata of {sample.name} must be a mapping, not {sample.resource_metadata!r}")
    for label in ("name", "type", "unit", "resource_id", "user_id", "project_id", "source", "message_id"):
        value = getattr(sample, label)
        if value is not None and type(value) is not str:
            msgspec.structs.force_setattr(sample, label, str.__str__(value))


def shown_volume(volume: int | float) -> str:
    """Return ``volume`` as a short text for an error; Python refuses to write integers of more than 4 300 digits."""
    if isinstance(volume, int) and volume.bit_length() > 256:
        return f"an integer of {volume.bit_length()} bits"
    return repr(volume)


def utc_text(timestamp: datetime) -> str:
    """Return an aware time as ISO 8601 in UTC without offset, as Ceilometer writes it: ``2026-11-22T17:00:59.701479``.

    A fraction of zero is omitted.
    """
    if timestamp.tzinfo is not UTC:
        timestamp = timestamp.astimezone(UTC)
    return timestamp.isoformat()[: -len("+00:00")]
