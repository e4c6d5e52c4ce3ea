"""The samples that a definition makes of a notification, and the errors for values that it cannot use."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from msgspec.structs import replace

from meter.declarative.notifications import DefinedListener
from meter.declarative.notifications import read_definitions
from meter.notification import Notification
from meter.sample import Sample

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)

BASE = """
[[meter]]
name = "site.visitors"
event_types = ["site.*"]
unit = "visitor"
volume = "$.payload.visitors"
resource = "$.payload.site"
"""

Listen = Callable[[str], DefinedListener]


@pytest.fixture
def listen(tmp_path: Path) -> Listen:
    def make(text: str, name: str = "sites.toml") -> DefinedListener:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        file = read_definitions(path, name)
        assert file.problems == ()
        return DefinedListener("definitions.sites", file.definitions, ["openstack"])

    return make


def notification(payload: Any, event_type: str = "site.counted", **context: Any) -> Notification:
    return Notification("id", event_type, "gate.north", "INFO", NOON, payload, context)


def only(samples: Any) -> Sample:
    (sample,) = samples
    return sample


GONE = """
[[meter]]
name = "site.visitors"
event_types = ["site.*"]
unit = "visitor"
volume = "$.payload.visitors"
requires = ["$.payload.visitors"]
resource = "$.payload.site"
deletion = { event_types = ["site.closed"] }
"""


@pytest.mark.parametrize("payload", [{"site": "hall"}, {"site": "hall", "visitors": 3}])
def test_deletion_is_the_last_sample_of_a_resource_whose_id_is_not_reused(listen: Listen, payload: Any) -> None:
    gone = only(listen(GONE).samples(notification(payload, "site.closed")))
    assert (gone.volume, gone.resource_metadata["_meter"]) == (0, {"run": "deleted"})
    assert [*listen(GONE).samples(notification({"site": "hall"}))] == []


def test_deletion_of_a_resource_with_a_reusable_id_ends_no_later_one(listen: Listen) -> None:
    reused = GONE.replace('"] }', '"], ids_reused = true }')
    gone = only(listen(reused).samples(notification({"site": "hall"}, "site.closed")))
    assert (gone.volume, "_meter" in gone.resource_metadata) == (0, False)


def test_sample_of_the_state_when_sent_has_the_time_of_the_sending(listen: Listen) -> None:
    later = NOON + timedelta(minutes=3)
    told = replace(notification({"visitors": 3, "site": "hall"}), sent=later)
    assert only(listen(BASE).samples(told)).timestamp == NOON
    assert only(listen(BASE + "state_when_sent = true\n").samples(told)).timestamp == later
    untold = notification({"visitors": 3, "site": "hall"})
    assert only(listen(BASE + "state_when_sent = true\n").samples(untold)).timestamp == NOON


def test_sample_has_defined_fields_and_defaults(listen: Listen) -> None:
    sample = only(listen(BASE).samples(notification({"visitors": 3, "site": "hall"})))
    assert (sample.name, sample.type, sample.unit, sample.volume) == ("site.visitors", "gauge", "visitor", 3)
    assert (sample.resource_id, sample.user_id, sample.project_id) == ("hall", None, None)
    assert sample.timestamp == NOON
    assert sample.resource_metadata == {"event_type": "site.counted", "host": "north"}


def test_metadata_may_be_nested_literal_or_absent(listen: Listen) -> None:
    text = BASE + 'metadata = { city = "$.payload.city", gone = "$.payload.x", by = { kind = "gate" } }\n'
    sample = only(listen(text).samples(notification({"visitors": 3, "site": "hall", "city": None})))
    assert sample.resource_metadata == {
        "event_type": "site.counted",
        "host": "north",
        "city": None,
        "by": {"kind": "gate"},
    }


def test_first_path_that_finds_a_value_is_used(listen: Listen) -> None:
    text = BASE + 'project = ["$.payload.project", "$.ctxt.project_id"]\n'
    samples = listen(text).samples
    assert only(samples(notification({"visitors": 1, "site": "s", "project": "p"}, project_id="q"))).project_id == "p"
    assert only(samples(notification({"visitors": 1, "site": "s", "project": None}, project_id="q"))).project_id == "q"


def test_what_is_required_and_missing_means_nothing_is_notification(listen: Listen) -> None:
    listener = listen(BASE + 'requires = "$.payload.visitors"\n')
    assert list(listener.samples(notification({"site": "hall"}))) == []
    assert list(listener.samples(notification({"site": "hall", "visitors": None}))) == []


def test_optional_owner_may_be_missing_null_or_empty(listen: Listen) -> None:
    listener = listen(BASE + 'user = "$.payload.user"\noptional = ["user"]\n')
    for payload in ({}, {"user": None}, {"user": ""}):
        assert only(listener.samples(notification({"visitors": 1, "site": "s", **payload}))).user_id is None


def test_excepted_event_types_give_no_sample(listen: Listen) -> None:
    listener = listen(BASE + 'except = ["site.closed", "*.error"]\n')
    assert list(listener.samples(notification({}, "site.closed"))) == []
    assert list(listener.samples(notification({}, "site.count.error"))) == []
    assert only(listener.samples(notification({"visitors": 1, "site": "s"}, "site.open")))


def test_every_element_makes_a_sample(listen: Listen) -> None:
    text = """
    [[meter]]
    name = "gate.$.each.kind"
    event_types = ["site.counted"]
    each = "$.payload.gates[*]"
    type = "delta"
    unit = "$.each.unit"
    volume = "$.each.count"
    resource = "$.payload.site"
    """
    gates = [{"kind": "north", "unit": "car", "count": 1}, {"kind": "south", "unit": "foot", "count": 2}]
    samples = listen(text).samples(notification({"site": "s", "gates": gates}))
    assert [(each.name, each.unit, each.volume) for each in samples] == [
        ("gate.north", "car", 1),
        ("gate.south", "foot", 2),
    ]


def test_lookup_finds_one_value_per_sample_in_every_path(listen: Listen) -> None:
    text = """
    [[meter]]
    name = "$.payload.gates[*].kind"
    event_types = ["site.counted"]
    lookup = ["name", "volume"]
    unit = "car"
    volume = "$.payload.gates[*].count"
    resource = "$.payload.site"
    """
    listener = listen(text)
    gates = [{"kind": "north", "count": 1}, {"kind": "south", "count": 2}]
    samples = listener.samples(notification({"site": "s", "gates": gates}))
    assert [(each.name, each.volume, each.resource_id) for each in samples] == [("north", 1, "s"), ("south", 2, "s")]
    with pytest.raises(
        ValueError, match=r"payload.gates\[\*\].count finds 1 values for 2 samples: there must be one for each"
    ):
        list(listener.samples(notification({"site": "s", "gates": [gates[0], {"kind": "east"}]})))


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22 15:57:12.5",
        "2026-11-22T15:57:12.500000Z",
        "2026-11-22 15:57:12.5+00:00",
        "2026-11-22T15:57:12.5",
        "2026-11-22T15:57:12.500+0000",
        "2026-11-22T16:57:12.5+01:00",
    ],
)
def test_timestamp_is_accepted_in_every_format_of_the_services(listen: Listen, text: str) -> None:
    listener = listen(BASE + 'timestamp = "$.payload.at"\n')
    sample = only(listener.samples(notification({"visitors": 1, "site": "s", "at": text})))
    assert sample.timestamp == datetime(2026, 11, 22, 15, 57, 12, 500000, tzinfo=UTC)


def test_volume_may_be_the_seconds_between_two_times(listen: Listen) -> None:
    listener = listen(BASE.replace('"$.payload.visitors"', '{ from = "$.payload.a", to = "$.payload.b" }'))
    assert (
        only(
            listener.samples(notification({"site": "s", "a": "2026-11-22 10:00:00", "b": "2026-11-22T10:00:01.5Z"}))
        ).volume
        == 1.5
    )
    with pytest.raises(ValueError, match=r"payload.b must be a time like 2026-11-22T17:00:59.5, not missing"):
        list(listener.samples(notification({"site": "s", "a": "2026-11-22 10:00:00"})))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"site": "s"}, "payload.visitors must be a number from 0 to 2**63 - 1, not missing"),
        ({"site": "s", "visitors": "many"}, "payload.visitors must be a number from 0 to 2**63 - 1, not 'many'"),
        ({"site": "s", "visitors": True}, "payload.visitors must be a number from 0 to 2**63 - 1, not True"),
        (
            {"site": "s", "visitors": 10**400},
            "payload.visitors must be a number from 0 to 2**63 - 1, not an integer of",
        ),
        ({"visitors": 1}, "payload.site must be a non-empty text, not missing"),
        ({"visitors": 1, "site": 7}, "payload.site must be a non-empty text, not 7"),
        ({"visitors": 1, "site": "x" * 513}, "payload.site must have at most 512 characters, not 513"),
        ([{"visitors": 1, "site": "s"}], "payload must be a mapping, not a list"),
        (None, "payload must be a mapping, not a NoneType"),
    ],
)
def test_bad_value_is_named(listen: Listen, payload: Any, reason: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the text is looked at
        list(listen(BASE).samples(notification(payload)))
    assert str(caught.value).startswith(reason)


def test_failing_definition_does_not_affect_others(listen: Listen) -> None:
    listener = listen(BASE + BASE.replace("visitors", "guests"))
    samples: list[Sample] = []
    with pytest.raises(ValueError, match=r"payload\.visitors must be a number"):
        samples.extend(listener.samples(notification({"site": "s", "guests": 4})))
    assert [(each.name, each.volume) for each in samples] == [("site.guests", 4)]


def test_name_that_is_not_listed_is_refused(listen: Listen) -> None:
    text = BASE.replace('name = "site.visitors"', 'name = "site.$.payload.kind"\nnames = ["site.cars"]')
    listener = listen(text)
    assert only(listener.samples(notification({"visitors": 1, "site": "s", "kind": "cars"}))).name == "site.cars"
    with pytest.raises(ValueError, match=r"payload.kind gives 'site.x', which is not one of site.cars"):
        list(listener.samples(notification({"visitors": 1, "site": "s", "kind": "x"})))


def test_backtracking_pattern_is_matched_fast(listen: Callable[..., DefinedListener]) -> None:
    # A backtracking engine would try all ways to divide 200 letters, practically without end.
    text = """
metric:
  - name: hostile
    event_type: '(a*)*(a|a)*b$'
    type: gauge
    unit: B
    volume: 1
    resource_id: $.payload.name.`sub(/(a*)*b/, x)`
"""
    listener = listen(text, "own.yaml")
    assert list(listener.samples(notification({"name": "a" * 200}, "a" * 255))) == []
    with pytest.raises(ValueError, match=r"payload\.name"):
        list(listener.samples(notification({"name": "a" * 200}, "a" * 254 + "b")))


def test_negative_lookahead_is_matched_as_in_ceilometer(listen: Callable[..., DefinedListener]) -> None:
    text = """
metric:
  - name: m
    event_type: compute.instance.(?!create.start|update).*
    type: gauge
    unit: B
    volume: 1
    resource_id: $.payload.id
"""
    listener = listen(text, "own.yaml")
    wanted = {
        "compute.instance.create.end": 1,
        "compute.instance.exists": 1,
        "compute.instance.create.start": 0,
        "compute.instance.update": 0,
        "compute.instance.updated_too": 0,
        "compute.instance": 0,
        "volume.exists": 0,
    }
    heard = {each: len(list(listener.samples(notification({"id": "i"}, each)))) for each in wanted}
    assert heard == wanted


def test_deepest_decodable_payload_is_accepted(listen: Listen) -> None:
    deep: Any = {}
    for _ in range(5000):
        deep = {"a": deep}
    listener = listen(BASE.replace('"$.payload.visitors"', '"$.payload..visitors"'))
    with pytest.raises(ValueError, match=r"payload\.\.visitors "):
        list(listener.samples(notification({"site": "s", "deep": deep})))


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


@settings(max_examples=150, deadline=None)
@given(VALUES | st.fixed_dictionaries({"site": VALUES, "visitors": VALUES, "gates": VALUES}))
def test_any_payload_gives_samples_or_a_reason(payload: Any) -> None:
    for result in ANY.results(notification(payload)):
        assert result.samples or result.reason or not payload or isinstance(payload, dict)


def _any() -> DefinedListener:
    from meter.declarative.notifications.models import make_definition

    tables = [
        {
            "name": "a",
            "event_types": "site.*",
            "unit": "x",
            "volume": "$.payload.visitors * 2",
            "resource": "$.payload.site",
        },
        {
            "name": "$.payload.gates[*].name",
            "lookup": ["name", "volume"],
            "event_types": "site.*",
            "unit": "x",
            "volume": "$.payload.gates[?(@.name='x')].value",
            "resource": "$.payload.site",
        },
        {
            "name": "b.$.each.name",
            "each": "$.payload.gates..*",
            "event_types": "site.*",
            "unit": "$.each.unit",
            "resource": "$.payload.site + '_' + $.each.id",
            "metadata": {"*": "$.payload"},
            "user_metadata": "$.payload.gates",
        },
    ]
    return DefinedListener("any", [make_definition(table, {}, "any:1") for table in tables], ["openstack"])


ANY = _any()
