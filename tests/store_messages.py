"""Metering messages for tests of the store, signed and read as on their way through the bus."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from meter.ceilometer_signature import signature
from meter.message import MeteringMessage
from meter.sample import Sample
from meter.sample import SampleType
from meter.sample import volume_is_valid
from meter.signing_keys import keyring
from tests.signed import received

KEYS = keyring(["a secret of the tests"], ceilometer_signature=False)
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
    return received(sample, KEYS, "test")


def as_written(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return the values as text, to compare messages exactly: ``==`` takes 1 for 1.0. The order of the fields is free."""
    return {name: repr(value) for name, value in fields.items()}


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.integers(-5, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, 1e22, 5e-324, 1.7976931348623157e308, 1e30, 1e-100, 2**53 + 1, 10**300]),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)
TIMESTAMPS = st.datetimes(timezones=st.just(UTC)).flatmap(
    lambda at: st.sampled_from(
        [
            at.replace(tzinfo=None).isoformat(),
            at.replace(tzinfo=None).isoformat(" ", "seconds"),
            at.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z",
            at.isoformat(),
            at.strftime("%Y%m%dT%H%M%S").zfill(15),
        ]
    )
)
OFFSETS = st.datetimes(timezones=st.just(UTC)).flatmap(
    lambda at: st.sampled_from(["+02:00", "-09:30", "-00:00"]).map(
        lambda zone: f"{min(max(at, FIRST), LAST).replace(tzinfo=None).isoformat()}{zone}"
    )
)
FIRST, LAST = datetime(1, 1, 3, tzinfo=UTC), datetime(9999, 12, 28, tzinfo=UTC)
"""Days whose times are in years 1 to 9999 in every zone."""


@st.composite
def messages(draw: st.DrawFn) -> MeteringMessage:
    """Draw a message as others may send it: fields in any order, some missing, others added."""
    name = TEXT.filter(bool)
    fields: dict[str, Any] = {
        "counter_name": draw(name),
        "counter_type": draw(st.sampled_from(["gauge", "delta", "cumulative"])),
        "counter_unit": draw(TEXT),
        "counter_volume": draw(NUMBERS.filter(volume_is_valid)),
        "resource_id": draw(name),
        "timestamp": draw(st.one_of(TIMESTAMPS, OFFSETS)),
        "message_id": draw(st.one_of(st.uuids().map(str), name.map(lambda text: f"{text}{uuid.uuid4()}"))),
    }
    optional = {
        "source": st.one_of(st.none(), TEXT),
        "user_id": st.one_of(st.none(), TEXT),
        "project_id": st.one_of(st.none(), TEXT),
        "resource_metadata": st.one_of(st.none(), st.dictionaries(TEXT, JSON, max_size=4)),
        "user_name": st.one_of(st.none(), TEXT),
        "project_name": JSON,
        "publisher_id": TEXT,
        "monotonic_time": st.one_of(st.none(), NUMBERS, TEXT),
        draw(TEXT.map(lambda text: f"x{text}")): JSON,
    }
    for label, values in optional.items():
        if draw(st.booleans()):
            fields[label] = draw(values)
    order = draw(st.permutations([*fields, "message_signature"]))
    signed = signature(fields, b"a secret of the tests")
    return read({label: fields.get(label, signed) for label in order}, KEYS)
