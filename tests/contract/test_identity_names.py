"""The contract of IIdentityNames: the same tests for the in-memory store and for PostgreSQL."""

from __future__ import annotations

import itertools
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from zope.interface.verify import verifyObject

from meter.identity_names import IdentityFilter
from meter.identity_names import IdentityKey
from meter.identity_names import IIdentityNames
from meter.identity_report import IdentityChange
from meter.identity_report import IdentityName
from meter.identity_report import IdentityReport
from meter.message import BadMessage
from meter.sample import utc_text
from meter.store import PostgresStore
from meter.testing import MemoryStore
from tests.waiting import until

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
TABLES = "identity_name, identity_change, identity_list"


@pytest.fixture(scope="module")
def database(request):
    return request.getfixturevalue("postgresql").dsn_with_schema()


@pytest.fixture(params=["memory", "postgresql"])
def store(request):
    if request.param == "memory":
        yield MemoryStore(reactor)
        return
    server, dsn = request.getfixturevalue("postgresql"), request.getfixturevalue("database")
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=2, writers=2)
    store.startService()
    pytest_twisted.blockon(Deferred.fromCoroutine(until(lambda: store.readiness().ready)))
    yield store
    pytest_twisted.blockon(store.stopService())
    server.execute(f"TRUNCATE {TABLES}", dsn)


@pytest.fixture
def emptied(store, request):
    """Return a function that forgets everything."""

    def empty():
        if isinstance(store, MemoryStore):
            store.__init__(reactor)
        else:
            request.getfixturevalue("postgresql").execute(f"TRUNCATE {TABLES}", request.getfixturevalue("database"))

    return empty


def at(hours):
    return NOON + timedelta(hours=hours)


def listing(hours, *, kind="project", origin="keystone", after="", until=None, **names):
    """Return the report of a complete list of projects, or of the ``kind``; ``names`` are names by id."""
    time = utc_text(at(hours))
    return IdentityReport(
        origin=origin,
        message_id=f"list at {hours}",
        at=time,
        names=tuple(IdentityName(kind=kind, id=id, name=name, since=time, domain="d") for id, name in names.items()),
        complete=(kind,),
        after=after,
        until=until,
    )


def change(hours, what, id="p", kind="project"):
    time = utc_text(at(hours))
    changes = (IdentityChange(kind, id, time, what),)
    return IdentityReport(origin="notification", message_id=f"{what} {hours}", at=time, changes=changes)


def stated(hours, *names):
    """Return the report of a file; each of ``names`` is id, name and the hour since when, or ``None``."""
    time = utc_text(at(hours))
    entries = tuple(
        IdentityName(
            kind="project",
            id=id,
            name=name,
            since=time if since is None else utc_text(at(since)),
            domain="d",
            exact=since is not None,
        )
        for id, name, since in names
    )
    return IdentityReport(
        origin="file", message_id=f"file at {hours}", at=time, names=entries, complete=("project", "domain", "user")
    )


async def recorded(store, *reports):
    for report in reports:
        await store.record_identities(report)


async def history(store, id="p", kind="project"):
    """Return names with the hours from and until, each with a tilde where the time is not that of the change."""
    found, _ = await store.identities(IdentityFilter(kind=kind, id=id), 10)
    return [
        (each.name, _hours(each.since, each.exact_since), _hours(each.until, each.exact_until))
        for each in _names(found)
    ]


def _names(found):
    return found[0].names if found else ()


def _hours(time, exact):
    return None if time is None else ("" if exact else "~") + f"{(time - NOON).total_seconds() / 3600:g}"


def test_store_provides_iidentitynames(store):
    verifyObject(IIdentityNames, store)


@pytest_twisted.ensureDeferred
async def test_name_is_valid_until_another_one_is_found(store):
    await recorded(
        store, listing(0, p="red", q="blue"), listing(1, p="red", q="blue"), listing(2, p="crimson", q="blue")
    )

    assert await history(store) == [("red", "~0", "~2"), ("crimson", "~2", None)]
    assert await history(store, "q") == [("blue", "~0", None)]


@pytest_twisted.ensureDeferred
async def test_notification_tells_when_a_name_that_was_found_later_became_valid(store):
    await recorded(store, listing(0), change(0.5, "created"), listing(1, p="red"), change(1.2, "updated"))
    await recorded(store, listing(2, p="crimson"), change(2.7, "deleted"), listing(3))

    assert await history(store) == [("red", "0.5", "1.2"), ("crimson", "1.2", "2.7")]


@pytest_twisted.ensureDeferred
async def test_time_is_not_exact_if_several_notifications_may_have_brought_the_name(store):
    await recorded(store, listing(0, p="red"), change(0.2, "updated"), change(0.7, "updated"), listing(1, p="crimson"))

    assert await history(store) == [("red", "~0", "~1"), ("crimson", "~1", None)]


@pytest_twisted.ensureDeferred
async def test_update_before_the_last_list_does_not_count(store):
    await recorded(store, listing(0, p="red"), change(0.5, "updated"), listing(1, p="red"), listing(2, p="crimson"))

    assert await history(store) == [("red", "~0", "~2"), ("crimson", "~2", None)]


@pytest_twisted.ensureDeferred
async def test_identity_can_be_deleted_and_created_again_under_the_same_id(store):
    await recorded(store, listing(0, p="red"), change(0.5, "deleted"), listing(1), listing(2), listing(3, p="red"))

    assert await history(store) == [("red", "~0", "0.5"), ("red", "~3", None)]


@pytest_twisted.ensureDeferred
async def test_deletion_that_a_later_list_contradicts_ends_with_that_list(store):
    await recorded(store, listing(0, p="red"), listing(1, p="red"), listing(2, p="red"), change(0.5, "deleted"))

    assert await history(store) == [("red", "~0", "0.5"), ("red", "~1", None)]


@pytest_twisted.ensureDeferred
async def test_name_of_a_late_report_is_valid_until_the_next_list(store):
    await recorded(store, listing(0, p="red"), listing(2, p="red"), listing(4, p="red"), listing(1, p="crimson"))

    assert await history(store) == [("red", "~0", "~1"), ("crimson", "~1", "~2"), ("red", "~2", None)]


REPORTS = {
    "renamed twice": (
        listing(0, p="red"),
        change(0.5, "updated"),
        listing(1, p="crimson"),
        listing(2, p="crimson"),
        listing(3, p="red"),
    ),
    "deleted and created": (
        listing(0),
        change(0.3, "created"),
        listing(1, p="red"),
        change(1.5, "deleted"),
        change(1.7, "created"),
        listing(2, p="blue"),
    ),
    "with parts": (
        listing(0, p="red", until="p"),
        listing(0, after="p", q="blue"),
        listing(1, after="o", p="crimson"),
        listing(1, until="o"),
        change(1.5, "deleted"),
    ),
    "deleted without a name": (listing(0), change(0.2, "created"), change(0.4, "deleted"), listing(1), listing(2)),
}


@pytest.mark.parametrize("name", REPORTS)
@pytest_twisted.ensureDeferred
async def test_order_and_repetition_of_reports_make_no_difference(store, emptied, name):
    reports = REPORTS[name]
    await recorded(store, *reports)
    expected = await history(store), await history(store, "q")

    orders = list(itertools.permutations(reports))
    for order in orders[:: max(1, len(orders) // 40)]:
        emptied()
        await recorded(store, *order, *order[::2])
        assert (await history(store), await history(store, "q")) == expected, [each.message_id for each in order]


@pytest_twisted.ensureDeferred
async def test_two_collectors_at_once_record_the_same(store, emptied):
    reports = [*REPORTS["renamed twice"], change(3.5, "deleted"), listing(4, q="blue"), listing(5, p="green")]
    await recorded(store, *reports)
    expected = await history(store)

    emptied()
    await gatherResults(
        [Deferred.fromCoroutine(store.record_identities(each)) for each in [*reports, *reversed(reports)]]
    )
    assert await history(store) == expected


@pytest_twisted.ensureDeferred
async def test_part_of_a_list_says_nothing_about_ids_out_of_its_range(store):
    await recorded(store, listing(0, a="one", p="red", z="two"))
    await recorded(store, listing(1, after="a", until="p"))

    assert await history(store, "a") == [("one", "~0", None)]
    assert await history(store, "p") == [("red", "~0", "~1")]
    assert await history(store, "z") == [("two", "~0", None)]


@pytest_twisted.ensureDeferred
async def test_list_that_is_not_complete_deletes_nothing(store):
    partial = IdentityReport("keystone", "m", utc_text(at(1)), listing(1, q="blue").names)
    await recorded(store, listing(0, p="red"), partial)

    assert await history(store) == [("red", "~0", None)]
    assert await history(store, "q") == [("blue", "~1", None)]


@pytest_twisted.ensureDeferred
async def test_kinds_are_apart(store):
    await recorded(store, listing(0, p="red"), listing(0, kind="user", p="ann"), listing(1, kind="user"))

    assert await history(store) == [("red", "~0", None)]
    assert await history(store, kind="user") == [("ann", "~0", "~1")]


@pytest_twisted.ensureDeferred
async def test_file_states_names_since_before_it_was_read(store):
    await recorded(
        store, stated(1), stated(2, ("p", "lab", -100)), stated(3, ("p", "lab", -100), ("p", "workshop", 2.5))
    )

    assert await history(store) == [("lab", "-100", "2.5"), ("workshop", "2.5", None)]


@pytest_twisted.ensureDeferred
async def test_file_comes_before_keystone_while_it_has_the_name(store):
    await recorded(store, listing(0, p="red"), stated(1, ("p", "lab", None)), listing(2, p="red"), stated(3))

    assert await history(store) == [("red", "~0", "~1"), ("lab", "~1", "~3"), ("red", "~3", None)]


@pytest_twisted.ensureDeferred
async def test_keystone_of_another_leader_group_goes_on_with_a_name(store):
    await recorded(store, listing(0, p="red"), listing(5, origin="keystone west", p="red"), listing(6))

    assert await history(store) == [("red", "~0", None)]


@pytest.mark.parametrize("name", ["Проект", "مشروع", "東京", "\u202egnp.exe", " ", "", "a'b\"c%s\\", "x" * 255, "👩‍🚀"])
@pytest_twisted.ensureDeferred
async def test_names_are_stored_as_they_are(store, name):
    await recorded(store, listing(0, p=name))

    assert await history(store) == [(name, "~0", None)]
    found, _ = await store.identities(IdentityFilter(name=name), 10)
    assert [each.id for each in found] == ["p"]


@pytest.mark.parametrize("name", ["x" * 256, "a\0b", "\udc80"])
@pytest_twisted.ensureDeferred
async def test_name_that_cannot_be_stored_makes_the_report_bad(store, name):
    with pytest.raises(BadMessage):
        await store.record_identities(listing(0, p=name))
    assert await history(store) == []


@pytest_twisted.ensureDeferred
async def test_report_from_the_future_changes_nothing(store):
    hours = (datetime.now(UTC) - NOON).total_seconds() / 3600 + 2
    for report in (listing(hours, p="red"), change(hours, "deleted")):
        with pytest.raises(BadMessage, match="from the future"):
            await store.record_identities(report)
    assert await history(store) == []


@pytest_twisted.ensureDeferred
async def test_names_at_a_time_are_those_of_then(store):
    await recorded(store, listing(0, p="red", q="blue"), listing(2, p="crimson"), listing(3))

    async def names(hours):
        found = await store.names_at("project", ["p", "q", "unknown", "a\0b"], at(hours))
        return {id: period.name for id, period in found.items()}

    assert await names(1) == {"p": "red", "q": "blue"}
    assert await names(2) == {"p": "crimson", "q": "blue"}  # q does not exist any more, and stays readable
    assert await names(10) == {"p": "crimson", "q": "blue"}
    assert await names(-5) == {"p": "red", "q": "blue"}  # older than Meter knows
    assert await store.names_at("user", ["p"], at(1)) == {}
    assert await store.names_at("project", [], at(1)) == {}


@pytest_twisted.ensureDeferred
async def test_histories_have_all_names_of_the_known_ones(store):
    await recorded(store, listing(0, p="red"), listing(0, kind="user", u="ann"), listing(2, p="crimson"))
    keys = [IdentityKey("project", "p"), IdentityKey("user", "u"), IdentityKey("user", "p"), IdentityKey("user", "a\0")]

    found = await store.histories(keys)
    assert {key: [period.name for period in names] for key, names in found.items()} == {
        ("project", "p"): ["red", "crimson"],
        ("user", "u"): ["ann"],
    }
    assert await store.histories([]) == {}


@pytest_twisted.ensureDeferred
async def test_identities_are_found_by_present_and_former_names_and_times(store):
    await recorded(store, listing(0, p="red", q="blue"), listing(2, p="crimson", q="blue", r="red"))

    async def ids(**filter):
        found, _ = await store.identities(IdentityFilter(**filter), 10)
        return [(each.id, *(period.name for period in each.names)) for each in found]

    assert await ids(name="red") == [("p", "red", "crimson"), ("r", "red")]
    assert await ids(name="red", at=at(1)) == [("p", "red")]
    assert await ids(name="red", at=at(3)) == [("r", "red")]
    assert await ids(at=at(1)) == [("p", "red"), ("q", "blue")]
    assert await ids(id="q") == [("q", "blue")]
    assert await ids(kind="user") == []
    among = frozenset({IdentityKey("project", "q"), IdentityKey("user", "p")})
    assert await ids(among=among) == [("q", "blue")]
    assert await ids(among=frozenset()) == []


@pytest_twisted.ensureDeferred
async def test_identities_come_in_pages(store):
    await recorded(
        store, listing(0, a="1", b="2", c="3"), listing(0, kind="domain", d="4"), listing(0, kind="user", a="5")
    )

    seen, after = [], None
    while True:
        page, after = await store.identities(IdentityFilter(), 2, after)
        seen += [(each.kind, each.id) for each in page]
        if after is None:
            break
        assert len(page) == 2
    assert seen == [("domain", "d"), ("project", "a"), ("project", "b"), ("project", "c"), ("user", "a")]


@pytest_twisted.ensureDeferred
async def test_long_list_is_recorded_in_parts(store):
    ids = [f"{n:05}" for n in range(2000)]
    for hours in (0, 1):
        await recorded(
            store,
            listing(hours, until=ids[999], **{id: f"name {id}" for id in ids[:1000]}),
            listing(hours, after=ids[999], **{id: f"name {id}" for id in ids[1000:]}),
        )

    found = await store.names_at("project", ids, at(0.5))
    assert {id: each.name for id, each in found.items()} == {id: f"name {id}" for id in ids}
