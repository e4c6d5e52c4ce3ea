"""JSON schemas of the v2 API."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from meter.api.rendering.flattening import MetadataFlattener
from meter.api.rendering.v2 import OLD_SAMPLE
from meter.api.rendering.v2 import SAMPLE
from meter.query import StoredSample
from meter.sample import utc_text


@given(st.datetimes(timezones=st.just(UTC)))
def test_timestamp_is_encoded_like_in_messages(moment: datetime) -> None:
    row = StoredSample(
        message_id="s",
        name="cpu",
        type="cumulative",
        unit="ns",
        volume=1,
        resource_id="vm",
        user_id=None,
        project_id=None,
        source=None,
        timestamp=moment,
        recorded_at=moment,
        metadata={},
        signature="",
        key_id=None,
        scheme=None,
    )
    for schema in (SAMPLE, OLD_SAMPLE):
        encoded = msgspec.json.decode(msgspec.json.encode(schema.render(row, MetadataFlattener())))
        assert (encoded["timestamp"], encoded["recorded_at"]) == (utc_text(moment),) * 2
