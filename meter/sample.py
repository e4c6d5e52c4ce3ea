"""The sample: one measurement of one meter on one resource, as a frozen, validated record.

Pollsters and listeners make samples; everything else in Meter moves, signs, stores or answers them.
"""

from __future__ import annotations

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
"""The member of ``resource_metadata`` that is Meter's own: the polling interval and the run, see :mod:`meter.runs`."""


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
        for label in ("name", "unit", "resource_id", "message_id"):
            value = getattr(self, label)
            if not isinstance(value, str) or not value:
                raise BadSample(f"{label} must be a non-empty text, not {value!r}")
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
