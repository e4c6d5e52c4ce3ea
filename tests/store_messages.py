"""Metering messages for tests of the store, signed and read as on their way through the bus."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from meter.batch_signature import sign_batch
from meter.ceilometer_reading import MEMBERS
from meter.ceilometer_reading import OPTIONAL
from meter.ceilometer_reading import has_second_reading
from meter.ceilometer_signature import signature
from meter.message import MeteringMessage
from meter.message import parse
from meter.message import read
from meter.sample import Sample
from meter.sample import SampleType
from meter.sample import utc_text
from meter.sample import volume_is_valid
from meter.signing_keys import Keyring
from meter.signing_keys import keyring
from tests.signed import received
from tests.signed import resigned

SECRET = b"a secret of the tests"
KEYS = keyring([SECRET.decode()], ceilometer_signature=False)
UNSIGNED = Keyring(KEYS.keys, accept_unsigned=True)
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
"""A Wednesday."""


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def sample(
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
) -> Sample:
    """Return a sample, ``at`` a time or seconds after noon."""
    return Sample(
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


def message(name: str = "cpu", volume: float = 1, **fields: Any) -> MeteringMessage:
    """Return the message of :func:`sample`, alone in its signed batch."""
    return received(sample(name, volume, **fields), KEYS, "test")


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
    """Draw a message as others may send it, under each scheme: fields in any order, some missing, others added.

    A message that has only Ceilometer's signature has all required members and no others, because it is read strictly.
    """
    name = TEXT.filter(bool)
    scheme = draw(st.sampled_from(["meter", "ceilometer", None]))
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
    if scheme == "ceilometer":
        optional = {label: values for label, values in optional.items() if label in MEMBERS}
        optional["resource_metadata"] = st.dictionaries(name, JSON, max_size=4)
        optional["project_name"] = st.one_of(st.none(), TEXT)
        optional["monotonic_time"] = st.one_of(st.none(), NUMBERS)
    for label, values in optional.items():
        if (scheme == "ceilometer" and label not in OPTIONAL) or draw(st.booleans()):
            fields[label] = draw(values)
    if scheme is None:
        fields |= draw(st.sampled_from([{}, {"message_signature": ""}]))
        return read(_shuffled(draw, fields), UNSIGNED)
    fields["message_signature"] = signature(fields, SECRET)
    sent = _shuffled(draw, fields)
    if scheme == "ceilometer":
        assume(not has_second_reading(sent))
        return read(sent, KEYS)
    time = utc_text(parse(sent).timestamp)
    batch = resigned(sign_batch([sent], "key-1", SECRET), SECRET, first=time, last=time)
    return read(sent, KEYS, batch=KEYS.verify_batch(batch))


def _shuffled(draw: st.DrawFn, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {label: fields[label] for label in draw(st.permutations(list(fields)))}
