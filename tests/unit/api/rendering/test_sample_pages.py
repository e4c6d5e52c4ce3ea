"""Pages of samples are encoded in bulk, byte for byte as each record by itself."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.api.rendering.flattening import MetadataFlattener
from meter.api.rendering.sample_pages import BATCH_SAMPLES
from meter.api.rendering.sample_pages import SampleEncoder
from meter.api.rendering.sample_pages import SampleFormat
from meter.api.rendering.v2 import OLD_SAMPLE
from meter.api.rendering.v2 import SAMPLE
from meter.api.rendering.v2 import SampleSchema
from meter.daemon.shared_slices import SharedSlices
from meter.query import StoredSample
from meter.sample_page import SamplePage
from meter.testing.memory_sample_pages import page_of
from tests.sample_pages import in_bulk
from tests.sample_pages import one_by_one

SCHEMAS = (SAMPLE, OLD_SAMPLE)
NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8) | st.sampled_from(
    ["=1", "a,b", 'a"b', "a\r\nb", ";-1", "\u2028", "\\", "null", "é", "\U0001f600", "\t@x"]
)
times = st.datetimes(timezones=st.just(UTC)) | st.just(NOON)
volumes = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**53), 2**53)
    | st.sampled_from([-0.0, 1e16, 1e-5, 5e-324, 1.7976931348623157e308])
)
stored = st.builds(
    StoredSample,
    message_id=st.uuids().map(str) | texts,
    name=texts,
    type=st.sampled_from(["gauge", "delta", "cumulative"]),
    unit=texts,
    volume=volumes,
    resource_id=texts,
    user_id=texts | st.none(),
    project_id=texts | st.none(),
    source=texts | st.none(),
    timestamp=times,
    recorded_at=times,
    metadata=st.dictionaries(texts, texts | st.integers() | st.booleans() | st.lists(texts, max_size=2), max_size=3),
    signature=st.sampled_from(["", "ab" * 32]),
    key_id=st.none(),
    scheme=st.sampled_from(["meter", "ceilometer", None]),
)


def record(**values: Any) -> StoredSample:
    given: dict[str, Any] = {
        "message_id": "a",
        "name": "cpu",
        "type": "gauge",
        "unit": "%",
        "volume": 1,
        "resource_id": "vm",
        "user_id": None,
        "project_id": "acme",
        "source": None,
        "timestamp": NOON,
        "recorded_at": NOON,
        "metadata": {},
        "signature": "",
        "key_id": None,
        "scheme": None,
    }
    return StoredSample(**(given | values))


@given(st.sampled_from(SCHEMAS), st.sampled_from(SampleFormat), st.lists(stored, max_size=6))
def test_page_is_encoded_like_its_records(
    schema: SampleSchema, format: SampleFormat, samples: list[StoredSample]
) -> None:
    encoder = SampleEncoder(schema, format, MetadataFlattener())
    assert in_bulk([page_of(samples)], encoder) == one_by_one(samples, schema, format)


def test_members_of_a_schema_are_those_of_its_records() -> None:
    for schema in SCHEMAS:
        assert list(schema.attributes) == list(schema.record.__struct_fields__)


def test_whole_samples_keep_their_places_among_others() -> None:
    samples = [record(message_id=id) for id in ("a", "not plain", "b", "c", "!", "?")]
    page = page_of(samples)
    assert page.is_mixed
    assert [page.marker(index).message_id for index in range(6)] == [each.message_id for each in samples]
    body = in_bulk([page], SampleEncoder(SAMPLE, SampleFormat.LINES, MetadataFlattener()))
    assert [msgspec.json.decode(line)["id"] for line in body.splitlines()] == [each.message_id for each in samples]


def page(names: dict[int, str], token: object, *ids: int) -> SamplePage:
    """Return a page of samples of series with ``ids``, which describes the series ``names``."""
    [described] = page_of([record()]).series.values()
    values = "a,2026-11-28 12:00:00,2026-11-28 12:00:00,1,"
    return SamplePage(
        [(id, 1, 1, values) for id in ids],
        {id: described._replace(name=name) for id, name in names.items()},
        {1: {}},
        {1: None},
        token,
    )


def test_page_need_not_repeat_what_is_rendered() -> None:
    encoder, token = SampleEncoder(SAMPLE, SampleFormat.LINES, MetadataFlattener()), object()
    body = in_bulk([page({1: "cpu"}, token, 1), page({2: "disk"}, token, 1, 2)], encoder)
    assert [msgspec.json.decode(line)["meter"] for line in body.splitlines()] == ["cpu", "cpu", "disk"]
    assert encoder.rendered.known.series == {1, 2}


def test_ids_of_another_token_mean_something_else() -> None:
    encoder = SampleEncoder(SAMPLE, SampleFormat.LINES, MetadataFlattener())
    body = in_bulk([page({1: "cpu"}, object(), 1), page({1: "disk"}, object(), 1)], encoder)
    assert [msgspec.json.decode(line)["meter"] for line in body.splitlines()] == ["cpu", "disk"]


def test_texts_that_are_kept_are_bounded_and_a_page_in_progress_keeps_its_own() -> None:
    encoder, token = SampleEncoder(SAMPLE, SampleFormat.LINES, MetadataFlattener(), 500), object()
    before = encoder.rendered
    in_bulk([page({n: f"m{n}" for n in range(9)}, token, *range(9))], encoder)
    held = encoder._rendered
    assert held is not before
    assert len(held.series) == 9
    assert encoder.rendered is not held
    assert not encoder.rendered.known.series
    slices = SharedSlices(Clock()).of("somebody")
    chunks: list[bytes] = []

    async def encode() -> None:
        chunks.extend([chunk async for chunk in encoder.encoded(page({}, token, 3), held, slices)])

    Deferred.fromCoroutine(encode())
    assert msgspec.json.decode(chunks[0])["meter"] == "m3"


def test_long_page_is_encoded_in_batches_that_pause() -> None:
    ticks = Clock()
    slices = SharedSlices(ticks, seconds=0.5).of("somebody")
    encoder = SampleEncoder(SAMPLE, SampleFormat.LINES, MetadataFlattener())
    long = page_of([record(message_id=f"a{n}") for n in range(3 * BATCH_SAMPLES)])
    sizes: list[int] = []

    async def every() -> None:
        async for chunk in encoder.encoded(long, encoder.rendered, slices):
            sizes.append(chunk.count(b"\n"))
            ticks.rightNow += 1  # each batch takes a second

    done = Deferred.fromCoroutine(every())
    assert sizes == [BATCH_SAMPLES]
    while not done.called:
        ticks.advance(0)
    assert sizes == [BATCH_SAMPLES] * 3
    assert long.rows == []
