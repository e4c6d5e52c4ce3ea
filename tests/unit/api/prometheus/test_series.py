"""Series, labels and metadata for clients that look for them; and the newest samples."""

from __future__ import annotations

import pytest
import pytest_twisted

from meter.api.auth.requester import Requester
from meter.api.prometheus.federation import newest_samples
from meter.api.prometheus.limits import PromqlLimits
from meter.api.prometheus.results import PromqlError
from meter.api.prometheus.series import label_names
from meter.api.prometheus.series import label_values
from meter.api.prometheus.series import matching_series
from meter.api.prometheus.series import metric_metadata
from meter.testing import MemoryStore
from tests.promql import seconds
from tests.promql import short
from tests.promql import source_of
from tests.store_messages import message

NAME = {"resource_name": "display_name"}


async def filled():
    store = MemoryStore()
    await store.write(
        [
            message("cpu", 5, at=1, type="cumulative", metadata={"display_name": "web"}),
            message("cpu", 9, at=301, type="cumulative", metadata={"display_name": "web"}),
            message("cpu", 1, at=1, type="cumulative", resource_id="r2", project_id="p2", user_id=None),
            message("memory", 512, at=2, unit="MB"),
            message("memory", 1, at=2, unit="GB", resource_id="r3"),
        ]
    )
    return store


@pytest_twisted.ensureDeferred
async def test_series_are_those_with_samples_in_the_range():
    source = source_of(await filled(), metadata_labels=NAME)

    found = await matching_series(["ceilometer_cpu", '{__name__=~"ceilometer_.*",resource="r1"}'], None, None, source)
    assert [(dict(each)["__name__"], short(each)) for each in found] == [
        ("ceilometer_cpu", "project=p1 resource=r1 resource_name=web"),
        ("ceilometer_cpu", "project=p2 resource=r2"),
        ("ceilometer_memory", "project=p1 resource=r1"),
    ]
    assert len(await matching_series(["ceilometer_cpu"], seconds(300), seconds(400), source)) == 1
    assert await matching_series(["ceilometer_cpu"], seconds(400), None, source) == []
    assert len(await matching_series(["ceilometer_cpu"], None, None, source, 1)) == 1


@pytest_twisted.ensureDeferred
async def test_labels_and_their_values_are_listed():
    source = source_of(await filled(), metadata_labels=NAME)

    assert await label_names([], None, None, source) == [
        "__name__",
        "project",
        "resource",
        "resource_name",
        "unit",
        "user",
    ]
    assert await label_names(['ceilometer_cpu{resource="r2"}'], None, None, source) == [
        *("__name__", "project", "resource", "unit")
    ]
    for selectors in ([], ['{__name__=~"ceilometer_.+"}']):
        for name, values in {
            "__name__": ["ceilometer_cpu", "ceilometer_memory"],
            "unit": ["GB", "MB", "ns"],
            "resource": ["r1", "r2", "r3"],
            "user": ["u1"],
            "resource_name": ["web"],
            "meter": [],
            "nothing": [],
        }.items():
            assert await label_values(name, selectors, None, None, source) == values


@pytest_twisted.ensureDeferred
async def test_tenant_learns_of_their_own_series_only():
    source = source_of(await filled(), Requester(is_admin=False, project_id="p2"), metadata_labels=NAME)

    assert [short(each) for each in await matching_series(['{unit!=""}'], None, None, source)] == [
        "project=p2 resource=r2"
    ]
    assert await label_values("__name__", [], None, None, source) == ["ceilometer_cpu"]
    assert await label_values("project", [], None, None, source) == ["p2"]
    assert await label_values("resource_name", [], None, None, source) == []
    assert [each.metric for each in await metric_metadata(source)] == ["ceilometer_cpu"]


@pytest_twisted.ensureDeferred
async def test_metadata_has_type_and_unit_of_each_metric():
    source = source_of(await filled())

    assert [(each.metric, each.type, each.unit) for each in await metric_metadata(source)] == [
        ("ceilometer_cpu", "counter", "ns"),
        ("ceilometer_memory", "gauge", "GB"),
        ("ceilometer_memory", "gauge", "MB"),
    ]
    assert await metric_metadata(source, "ceilometer_nothing") == []


@pytest_twisted.ensureDeferred
async def test_newest_samples_have_their_own_times():
    found, warnings = await newest_samples(
        ["ceilometer_cpu", "ceilometer_cpu"], seconds(600), source_of(await filled())
    )

    assert [(short(each.labels), each.point) for each in found] == [
        ("project=p1 resource=r1", (seconds(301), 9)),
        ("project=p2 resource=r2", (seconds(1), 1)),
    ]
    assert warnings == ()


@pytest_twisted.ensureDeferred
async def test_values_of_a_label_beyond_the_limit_are_refused():
    source = source_of(await filled(), limits=PromqlLimits(max_rows=2))

    with pytest.raises(PromqlError, match="more than 2 values"):
        await label_values("resource", [], None, None, source)
