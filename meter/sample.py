"""The sample: one measurement of one meter on one resource, as a frozen, validated record.

Pollsters and listeners make samples; everything else in Meter moves, signs, stores or answers them.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from typing import Any
from typing import Literal
from typing import get_args

SampleType = Literal["gauge", "delta", "cumulative"]
"""How volumes of a meter relate: *gauge* is a reading, *delta* a change, *cumulative* a counter that only grows until reset."""

SAMPLE_TYPES: tuple[SampleType, ...] = get_args(SampleType)

RESERVED_METADATA = "_meter"
"""The member of ``resource_metadata`` that is Meter's own: a mapping with ``interval``, the seconds between two polls of
the pollster that made the sample, and ``run``. Two samples of a meter, unit and resource that have the same ``run`` belong
to one uninterrupted run of a counter, or to one uninterrupted life of what a gauge measures. ``may_differ`` is a list of
fields, see :func:`meter.identity.may_differ`."""

EXISTED_THROUGHOUT = "exists"
"""The ``run`` of a resource whose id is never given to another one: between any two of its samples it existed."""

LONGEST_RUN = 255
"""Characters of a ``run``."""


def run_text(*parts: str) -> str:
    """Join what names a run, outermost first, with slashes; what is too long ends in a digest of all of it."""
    text = "/".join(parts)
    if len(text) <= LONGEST_RUN:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]
    return f"{text[: LONGEST_RUN - 1 - len(digest)]}~{digest}"


def with_reserved(metadata: Mapping[str, Any], **members: Any) -> dict[str, Any]:
    """Return ``metadata`` with ``members`` added to the reserved one."""
    reserved = metadata.get(RESERVED_METADATA)
    return {**metadata, RESERVED_METADATA: {**(reserved if isinstance(reserved, Mapping) else {}), **members}}


class BadSample(ValueError):
    """A sample that cannot be metered; the text says which field, what it holds and what would be right."""


@dataclass(frozen=True, slots=True)
class MeterDefinition:
    """What a plugin promises about one of its meters: ``MeterDefinition("cpu", "cumulative", "ns")``.

    ``name`` may end in ``*`` where the rest is only known when measuring (``instance:*``).
    """

    name: str
    type: SampleType
    unit: str


def new_message_id() -> str:
    """Return an id that no other sample has: a UUID of version 7 (RFC 9562), milliseconds since 1970 and 74 random bits.

    Ids made about the same time stand together in the index of the store, which is smaller for it and written in one
    place. Nothing else depends on the time in it, so the system's clock will do. Python has ``uuid.uuid7`` from 3.14 on.
    """
    made, drawn = f"{time.time_ns() // 1_000_000:012x}", os.urandom(10).hex()
    return f"{made[:8]}-{made[8:]}-7{drawn[:3]}-{'89ab'[int(drawn[3], 16) % 4]}{drawn[4:7]}-{drawn[7:19]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement.

    ``volume`` is an ``int`` or a finite ``float`` in ``unit``; it is kept and signed digit by digit, so ``1`` and
    ``1.0`` are different samples. ``timestamp`` is when the volume was true, always with a time zone.
    ``resource_metadata`` is JSON: mappings with text keys, lists, text, numbers, booleans and null.
    ``source`` is left ``None`` by plugins: the daemon fills in its configured source. ``message_id`` is given once,
    when the sample is made, and never again: it is what makes a repeated delivery harmless.
    """

    name: str
    type: SampleType
    unit: str
    volume: int | float
    resource_id: str
    timestamp: datetime
    user_id: str | None = None
    project_id: str | None = None
    resource_metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    message_id: str = field(default_factory=new_message_id)

    def __post_init__(self) -> None:
        """Refuse what could not be signed, stored or asked for later."""
        for label in ("name", "resource_id", "message_id"):
            value = getattr(self, label)
            if not isinstance(value, str) or not value:
                raise BadSample(f"{label} must be a non-empty text, not {value!r}")
        if not isinstance(self.unit, str):  # empty for a mere number, as some of Ceilometer's clients send it
            raise BadSample(f"unit must be a text, not {self.unit!r}")
        for label in ("user_id", "project_id", "source"):
            value = getattr(self, label)
            if value is not None and not isinstance(value, str):
                raise BadSample(f"{label} of {self.name} must be text or None, not {value!r}")
        if self.type not in SAMPLE_TYPES:
            raise BadSample(f"type of {self.name} must be one of {', '.join(SAMPLE_TYPES)}, not {self.type!r}")
        if isinstance(self.volume, bool) or not isinstance(self.volume, int | float):
            raise BadSample(f"volume of {self.name} must be a number, not {self.volume!r}")
        if isinstance(self.volume, float) and not math.isfinite(self.volume):
            raise BadSample(f"volume of {self.name} must be finite, not {self.volume!r}")
        if not isinstance(self.timestamp, datetime) or self.timestamp.tzinfo is None:
            raise BadSample(f"timestamp of {self.name} must have a time zone, not {self.timestamp!r}")
        if not isinstance(self.resource_metadata, Mapping):
            raise BadSample(f"resource_metadata of {self.name} must be a mapping, not {self.resource_metadata!r}")


def utc_text(moment: datetime) -> str:
    """Return ``moment`` as Meter writes it on the wire and in answers: naive ISO 8601 in UTC, ``2026-11-22T17:00:59.701479``.

    The fraction is left out when it is zero; there is neither ``Z`` nor an offset, as in Ceilometer.
    """
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.replace(tzinfo=None).isoformat()
