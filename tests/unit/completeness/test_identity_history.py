"""Histories of names: the same whatever the order of reports, and what they say about several origins."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from meter.completeness.identities.identity_history import Change
from meter.completeness.identities.identity_history import Sighting
from meter.completeness.identities.identity_history import add_sighting
from meter.completeness.identities.identity_history import period_at
from meter.completeness.identities.identity_history import periods_of
from meter.identity_names import IdentityFilter
from meter.identity_names import NamePeriod
from meter.identity_report import IdentityChange
from meter.identity_report import IdentityName
from meter.identity_report import IdentityReport
from meter.identity_report import check_identity_report
from meter.identity_report import identity_report
from meter.identity_report import storable_name
from meter.message import BadMessage
from meter.sample import utc_text
from meter.testing.memory_identities import MemoryIdentities

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
LATER = NOON + timedelta(days=30)


def at(hours):
    return NOON + timedelta(hours=hours)


def listed_at(hours, names, origin="keystone"):
    time = utc_text(at(hours))
    entries = tuple(IdentityName("project", id, name, time) for id, name in names.items())
    return IdentityReport(origin, f"list {hours}", time, entries, ("project",))


def change_at(hours, id, change):
    time = utc_text(at(hours))
    return IdentityReport("notification", "m", time, changes=(IdentityChange("project", id, time, change),))


def histories(reports):
    identities = MemoryIdentities()
    for report in reports:
        identities.record(report, LATER)
    found, _ = identities.identities(IdentityFilter(), 100, None)
    return [each for each in found if each.names]


CHANGES = st.builds(
    change_at,
    st.integers(0, 8).map(lambda n: n + 0.5),
    st.sampled_from("ab"),
    st.sampled_from(["updated", "deleted", "created"]),
)
LISTS = st.dictionaries(st.integers(0, 8), st.dictionaries(st.sampled_from("ab"), st.sampled_from(["red", "blue"])))


@settings(max_examples=300, deadline=None)
@given(LISTS, st.lists(CHANGES, max_size=5), st.randoms())
def test_history_does_not_depend_on_the_order_of_reports(lists, changes, random):
    reports = [*(listed_at(hours, names) for hours, names in lists.items()), *changes]
    shuffled = [*reports, *reports]
    random.shuffle(shuffled)

    assert histories(shuffled) == histories(reports) == histories(reversed(reports))


@settings(max_examples=200, deadline=None)
@given(LISTS, st.lists(CHANGES, max_size=5))
def test_periods_follow_each_other_and_agree_with_the_lists(lists, changes):
    for each in histories([*(listed_at(hours, names) for hours, names in lists.items()), *changes]):
        for earlier, later in zip(each.names, each.names[1:], strict=False):
            assert earlier.since < earlier.until <= later.since
        for hours, names in lists.items():
            valid = [p for p in each.names if p.since <= at(hours) and (p.until is None or at(hours) < p.until)]
            assert [p.name for p in valid] == ([names[each.id]] if each.id in names else [])


def test_update_after_the_creation_makes_the_time_of_the_first_name_uncertain():
    sightings = [Sighting(at(1), "red")]
    changes = [Change(at(0.2), "created"), Change(at(0.4), "updated")]

    assert periods_of({"keystone": sightings}, changes) == (NamePeriod("red", None, at(0.2), None, False, False),)


def test_notifications_say_nothing_about_names_of_a_file():
    [period] = periods_of({"file": [Sighting(at(1), "red")]}, [Change(at(0.5), "created")])

    assert (period.since, period.exact_since) == (at(1), False)


def test_exact_sighting_outweighs_another_one_of_the_same_time():
    exact, found = Sighting(at(1), "red", exact=True), Sighting(at(1), "zebra")

    assert add_sighting([exact], found) == add_sighting([found], exact) == [exact]


@pytest.mark.parametrize(("hours", "name"), [(-1, "a"), (0, "a"), (1, "a"), (1.5, "a"), (2, "b"), (9, "b")])
def test_name_at_a_time_is_the_valid_one_or_the_nearest(hours, name):
    periods = (NamePeriod("a", None, at(0), at(1), True, True), NamePeriod("b", None, at(2), at(3), True, True))

    assert period_at(periods, at(hours)).name == name


def test_nothing_is_known_of_an_identity_without_names():
    assert period_at((), at(0)) is None


def test_file_splits_the_name_of_keystone():
    keystone = [Sighting(at(0), "red"), Sighting(at(10), None)]
    file = [Sighting(at(2), "lab", exact=True), Sighting(at(4), None)]

    assert [(p.name, p.since, p.until) for p in periods_of({"keystone": keystone, "file": file}, [])] == [
        ("red", at(0), at(2)),
        ("lab", at(2), at(4)),
        ("red", at(4), at(10)),
    ]


def test_stored_name_is_cut_and_can_be_encoded():
    assert storable_name("a\0b\udc80" + "x" * 300) == ("a\ufffdb?" + "x" * 300)[:255]
    check_identity_report(listed_at(0, {"a": storable_name("a\0\udc80" * 200)}))


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        {"origin": "keystone", "message_id": "m", "at": "soon"},
        {"origin": "keystone", "message_id": "m", "at": "2026-11-20T12:00:00", "complete": ["role"]},
        {"origin": "key\0stone", "message_id": "m", "at": "2026-11-20T12:00:00"},
        {
            "origin": "keystone",
            "message_id": "m",
            "at": "2026-11-20T12:00:00",
            "names": [{"kind": "user", "id": "", "name": "x", "since": "2026-11-20T12:00:00"}],
        },
    ],
)
def test_invalid_report_is_bad(content):
    with pytest.raises(BadMessage):
        identity_report(content)
