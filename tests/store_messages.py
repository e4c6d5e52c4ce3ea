"""Metering messages for tests of the store, signed and read as on their way through the bus."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

from meter.message import MeteringMessage
from meter.message import read
from meter.message import sign
from meter.sample import Sample
from meter.sample import SampleType
from meter.signature import keyring

KEYS = keyring(["a secret of the tests"])
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
"""A Wednesday."""


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def message(
    name: str = "cpu",
    volume: float = 1,
    *,
    at: float | datetime = 0,
    type: SampleType = "gauge",
    unit: str = "ns",
    resource_id: str = "r1",
    user_id: str | None = "u1",
    project_id: str | None = "p1",
    source: str | None = "test",
    metadata: Mapping[str, Any] | None = None,
    message_id: str | None = None,
) -> MeteringMessage:
    """Return a signed message, ``at`` a time or seconds after noon."""
    sample = Sample(
        name=name,
        type=type,
        unit=unit,
        volume=volume,
        resource_id=resource_id,
        user_id=user_id,
        project_id=project_id,
        timestamp=at if isinstance(at, datetime) else after(at),
        resource_metadata=metadata or {},
        source=source,
        message_id=message_id or str(uuid.uuid4()),
    )
    return read(sign(sample, KEYS, "test"), KEYS)
