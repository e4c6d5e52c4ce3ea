"""The contract of IStatementStore: the same tests for the in-memory store and for PostgreSQL."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import DeferredList
from twisted.internet.defer import gatherResults
from zope.interface.verify import verifyObject

from meter.interfaces import Unavailable
from meter.query import AuditFilter
from meter.rating.statements.annex import AnnexPage
from meter.rating.statements.annex import annex_line
from meter.rating.statements.statement import StatementAccount
from meter.rating.statements.statement import StatementCompleteness
from meter.rating.statements.statement import statement_sha256
from meter.rating.statements.statement_store import IStatementStore
from meter.rating.statements.statement_store import NotFollowing
from meter.rating.statements.statement_store import OtherStatements
from meter.signing_keys import SigningKey
from meter.store import PostgresStore
from meter.testing import MemoryStore
from tests.statements import BOOK_TEXT
from tests.statements import ROWS
from tests.statements import closing
from tests.statements import pages
from tests.statements import signed
from tests.statements import statement
from tests.waiting import until

AUDIT_KEY = SigningKey(id="key", secret=b"s" * 32)


@pytest.fixture(params=["memory", "postgresql"])
def statements(request):
    if request.param == "memory":
        store = MemoryStore(reactor)
        store.rating.statements.entries = lambda: store.audit_entries(AuditFilter(), 10)
        yield store.rating.statements
        return
    # Each test has a database of its own: what is closed cannot be removed from one.
    dsn = request.getfixturevalue("postgresql").dsn_with_schema()
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1, rating_connections=2)
    store.startService()
    pytest_twisted.blockon(Deferred.fromCoroutine(until(lambda: store.readiness().ready and store.rating.ready)))
    store.rating.statements.entries = lambda: store.audit_entries(AuditFilter(), 10)
    yield store.rating.statements
    pytest_twisted.blockon(store.stopService())


def after(document, **members):
    """Return the account's statement of the next month."""
    period = (document.period.first + timedelta(days=32)).strftime("%Y-%m")
    return statement(document.account.id, period, previous=statement_sha256(document), **members)


async def collected(items):
    return [each async for each in items]


def test_store_provides_istatementstore(statements):
    verifyObject(IStatementStore, statements)


@pytest_twisted.ensureDeferred
async def test_closed_statement_is_returned_as_it_was_signed(statements):
    document = statement(account="ac/me ünï", completeness=StatementCompleteness(expected=0, received=0, percent=None))

    assert await statements.add(closing(document), pages()) is True

    assert await statements.statement(document.statement_id) == signed(document)
    assert await statements.latest("ac/me ünï") == signed(document)
    assert await statements.book(document.book.sha256) == BOOK_TEXT
    assert [row async for row in statements.annex(document.statement_id)] == list(ROWS)
    assert b"".join([page.text() async for page in statements.annex_pages(document.statement_id)]) == b"".join(
        annex_line(row) for row in ROWS
    )
    [summary] = await statements.summaries()
    assert (summary.statement_id, summary.account_id, summary.period, summary.currency, summary.total) == (
        "2026-11.ac%2Fme%20%C3%BCn%C3%AF",
        "ac/me ünï",
        "2026-11",
        "EUR",
        "0.44",
    )
    assert (summary.account_name, summary.closed_by, summary.projects, summary.closed_at) == (
        "ACME",
        "ann@billing",
        ("p1", "p2"),
        datetime(2026, 12, 6, 1, 0, 1, tzinfo=UTC),
    )


@pytest_twisted.ensureDeferred
async def test_second_close_of_a_period_stores_nothing(statements):
    document = statement()
    await statements.add(closing(document), pages())
    other = statement(total=Decimal("9.99"), rows=ROWS[:1])

    assert await statements.add(closing(other, closed_by="bob", book_text=BOOK_TEXT), pages(ROWS[:1])) is False

    assert await statements.statement("2026-11.acme") == signed(document)
    assert len(await collected(statements.annex("2026-11.acme"))) == 2


@pytest_twisted.ensureDeferred
async def test_of_two_closers_at_once_one_wins(statements):
    first, second = statement(), statement(total=Decimal("9.99"))
    results = await gatherResults(
        [
            Deferred.fromCoroutine(statements.add(closing(first), pages())),
            Deferred.fromCoroutine(statements.add(closing(second), pages())),
        ]
    )
    assert sorted(results) == [False, True]
    assert await statements.latest("acme") == signed((second, first)[results[0]])


@pytest_twisted.ensureDeferred
async def test_statements_of_an_account_follow_each_other(statements):
    first = statement()
    second = after(first)
    await statements.add(closing(first), pages())
    with pytest.raises(NotFollowing):
        await statements.add(closing(statement(period="2026-12")), pages())
    assert await statements.statement("2026-12.acme") is None
    assert await collected(statements.annex("2026-12.acme")) == []

    assert await statements.add(closing(second), pages()) is True

    with pytest.raises(NotFollowing):  # a fork
        await statements.add(closing(statement(period="2027-01", previous=statement_sha256(first))), pages())
    assert await statements.latest("acme") == signed(second)
    assert await statements.first_period("acme") == "2026-11"
    assert await statements.of_account("acme", "2026-11", "2026-11") == [signed(first)]
    assert await statements.of_account("acme", "2026-01", "2027-12") == [signed(first), signed(second)]


@pytest_twisted.ensureDeferred
async def test_what_is_not_closed_is_not_found(statements):
    assert await statements.statement("2026-11.acme") is None
    assert await statements.latest("acme") is None
    assert await statements.first_period("acme") is None
    assert await statements.of_account("acme", "2026-01", "2026-12") == []
    assert await statements.credits_used("acme") == {}
    assert await statements.book("0" * 64) is None
    assert await statements.summaries() == []
    assert await collected(statements.annex("2026-11.acme")) == []


@pytest_twisted.ensureDeferred
async def test_summaries_are_selected_and_in_order(statements):
    october = statement(period="2026-10")
    for document, projects in (
        (october, ("p1", "p2")),
        (after(october), ("p1",)),
        (statement("zeta"), ("p3",)),
        (statement("beta"), ()),
    ):
        await statements.add(closing(document, projects=projects), pages())

    async def found(**conditions):
        return [each.statement_id for each in await statements.summaries(**conditions)]

    assert await found() == ["2026-11.acme", "2026-11.beta", "2026-11.zeta", "2026-10.acme"]
    assert await found(limit=2) == ["2026-11.acme", "2026-11.beta"]
    assert await found(account_id="acme") == ["2026-11.acme", "2026-10.acme"]
    assert await found(period="2026-11") == ["2026-11.acme", "2026-11.beta", "2026-11.zeta"]
    assert await found(project_ids=["p2", "p3"]) == ["2026-11.zeta", "2026-10.acme"]
    assert await found(project_ids=[]) == []
    assert await found(account_id="acme", period="2026-10", project_ids=["p1"]) == ["2026-10.acme"]


@pytest_twisted.ensureDeferred
async def test_statement_has_its_projects(statements):
    await statements.add(closing(statement(), projects=("p1",)), pages())
    for id, project, expected in (
        ("2026-11.acme", "p1", True),
        ("2026-11.acme", "p2", False),
        ("2026-11.other", "p1", False),
    ):
        assert await statements.has_project(id, project) is expected


@pytest_twisted.ensureDeferred
async def test_used_credits_are_summed_exactly(statements):
    october = statement(period="2026-10")
    november = after(october)
    await statements.add(closing(october, credits={"welcome": Decimal("0.10"), "old": Decimal(3)}), pages())
    await statements.add(closing(november, credits={"welcome": Decimal("0.20")}), pages())
    await statements.add(closing(statement("other"), credits={"welcome": Decimal(7)}), pages())

    assert await statements.credits_used("acme") == {"old": Decimal(3), "welcome": Decimal("0.30")}
    assert await statements.credits_used("acme", "2026-11") == {"old": Decimal(3), "welcome": Decimal("0.10")}
    assert await statements.credits_used("acme", "2026-10") == {}


@pytest_twisted.ensureDeferred
async def test_credit_of_a_project_is_that_of_all_its_accounts(statements):
    for account in ("acme", "other"):
        await statements.add(closing(statement(account), credits={"p": Decimal(7), "own": Decimal(2)}), pages())
    closed_at = statement().closed_at

    assert await statements.credits_used("acme", of_projects={"p": "p1"}) == {"own": Decimal(2), "p": Decimal(14)}
    assert await statements.credits_used("acme", of_projects={"p": "p9"}) == {"own": Decimal(2), "p": Decimal(7)}
    assert await statements.credits_used("acme", "2026-11", {"p": "p1"}, closed_at) == {}
    later = closed_at + timedelta(seconds=1)
    assert await statements.credits_used("acme", "2026-11", {"p": "p1"}, later) == {"p": Decimal(7)}


@pytest_twisted.ensureDeferred
async def test_last_close_is_the_last_in_time_whatever_the_period(statements):
    assert await statements.last_close() is None
    november, october = statement(), statement("other", "2026-10")
    await statements.add(closing(november), pages())
    late = november.closed_at + timedelta(days=3)
    await statements.add(closing(msgspec.structs.replace(october, closed_at=late)), pages())
    assert await statements.last_close() == late


@pytest_twisted.ensureDeferred
async def test_annex_of_one_project_is_part_of_the_whole(statements):
    rows = [
        msgspec.structs.replace(ROWS[0], project_id=f"p{project}", resource_id=f"r{number:02}")
        for project in range(3)
        for number in range(20)
    ]
    await statements.add(closing(statement(rows=rows)), pages(rows))

    assert await collected(statements.annex("2026-11.acme")) == rows
    assert await collected(statements.annex("2026-11.acme", "p1")) == rows[20:40]
    assert await collected(statements.annex("2026-11.acme", "p9")) == []


@pytest_twisted.ensureDeferred
async def test_statement_without_usage_has_an_empty_annex(statements):
    document = statement(rows=())
    assert document.annex_sha256 == hashlib.sha256(b"").hexdigest()
    await statements.add(closing(document, projects=()), pages(()))
    assert await collected(statements.annex("2026-11.acme")) == []


@pytest_twisted.ensureDeferred
async def test_annex_that_fails_in_the_middle_stores_nothing(statements):
    async def broken():
        yield AnnexPage.of("p1", [annex_line(ROWS[0])])
        raise Unavailable("killed")

    with pytest.raises(Unavailable, match="killed"):
        await statements.add(closing(statement()), broken())
    assert await statements.summaries() == []
    assert await collected(statements.annex("2026-11.acme")) == []

    assert await statements.add(closing(statement()), pages()) is True
    assert await collected(statements.annex("2026-11.acme")) == list(ROWS)


@pytest_twisted.ensureDeferred
async def test_close_is_recorded_in_the_audit_log(statements):
    gaps = StatementCompleteness(expected=2, received=1, percent="50", accepted="host 7 burnt down")
    act = closing(statement(completeness=gaps), audit_keys=(AUDIT_KEY,), audit_details={"login": "ann@billing"})
    await statements.add(act, pages())
    await statements.add(act, pages())

    [entry] = await statements.entries()
    assert (entry.who, entry.action, entry.reason) == ("ann@billing", "statement.close", "host 7 burnt down")
    assert '"statement":"2026-11.acme"' in entry.details


@pytest_twisted.ensureDeferred
async def test_account_may_have_any_name(statements):
    account = StatementAccount(id="'; DROP TABLE statement; --", name="אבג\u202e 💾" * 100)
    document = statement(account.id)
    document = msgspec.structs.replace(document, account=account)
    await statements.add(closing(document), pages())
    assert (await statements.latest(account.id)).statement.account == account


@pytest_twisted.ensureDeferred
async def test_settled_time_is_now(statements):
    before = datetime.now(UTC)
    assert before - timedelta(seconds=5) <= await statements.settled_time()


@pytest_twisted.ensureDeferred
async def test_statement_is_not_stored_where_others_have_been_closed_of_its_projects(statements):
    others = [OtherStatements(period="2026-11", projects=("p1", "p2"), statement_ids=frozenset())]
    first, second = (closing(statement(account), others=others) for account in ("acme", "lab"))
    results = await DeferredList(
        [Deferred.fromCoroutine(statements.add(each, pages())) for each in (first, second)], consumeErrors=True
    )
    [refused] = [result.value for succeeded, result in results if not succeeded]
    assert isinstance(refused, NotFollowing)
    assert str(refused).startswith("a statement of 2026-11 with a project of the account ")
    [stored] = await statements.summaries()
    absent = second if stored.account_id == "acme" else first
    assert await collected(statements.annex(absent.signed.statement.statement_id)) == []

    known = [replace(others[0], statement_ids=frozenset({stored.statement_id}))]
    assert await statements.add(replace(absent, others=known), pages()) is True

    # What is closed of other periods and other projects changes nothing.
    unrelated = [replace(others[0], period="2026-10"), replace(others[0], projects=("p3",))]
    assert await statements.add(closing(statement("third"), others=unrelated), pages()) is True
