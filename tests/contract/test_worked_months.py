"""The months that docs/statements-amounts.rst works out by hand, from what happened to closed statements, in memory and in PostgreSQL."""

from __future__ import annotations

import os
import random
from collections import Counter
from datetime import UTC
from datetime import datetime
from decimal import Decimal

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.rating.book.book_text import directory_from_text
from meter.rating.money.corrections import AMENDED_KINDS
from meter.rating.statements.closing import Closing
from meter.rating.statements.closing_act import ClosingAct
from meter.rating.statements.reproduction import Reproduction
from meter.rating.statements.statement import read_statement
from meter.rating.statements.statement import signed_document
from meter.rating.statements.verification import verify_document
from meter.store import PostgresStore
from meter.testing import MemoryStore
from tests.archived import before_reads
from tests.closing_accounts import ScriptedLedger
from tests.spread import spread
from tests.statements import KEY
from tests.statements import KEYS
from tests.waiting import until
from tests.worked_events import cloud_messages
from tests.worked_events import libvirt_messages
from tests.worked_months import CLOUD_MONTH
from tests.worked_months import MONTHS
from tests.worked_months import as_rows
from tests.worked_months import unordered

ACCOUNTS = [(month, account) for month in MONTHS for account in month.accounts()]
REWRITE = "METER_REWRITE_GOLDEN_FILES"
"""Set it to write the kept statements again, if their document or the text of books changes on purpose."""

AFTER_GRACE = datetime(2026, 11, 8, tzinfo=UTC)
"""Of both months. They are in the past: the day on which the test runs is still being measured."""


@pytest.fixture(params=["memory", "postgresql", "packed", "spread"])
def store(request):
    if request.param == "memory":
        clock = Clock()
        clock.advance(AFTER_GRACE.timestamp())
        yield MemoryStore(clock)
        return
    if request.param == "spread":
        dsn = request.getfixturevalue("citus").dsn_with_schema(spread)
    else:
        dsn = request.getfixturevalue("postgresql").dsn_with_schema()
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1, rating_connections=2)
    store.startService()
    pytest_twisted.blockon(Deferred.fromCoroutine(until(lambda: store.readiness().ready)))
    with before_reads(request, dsn):
        yield store
    pytest_twisted.blockon(store.stopService())


def quantities(atoms):
    """What is billed, without time that is not."""
    return {
        (each.sku, each.day, each.project_id, each.resource_id, each.values.get("flavor")): each.quantity
        for each in atoms
        if each.quantity
    }


async def arrive(store, messages):
    """Write ``messages`` out of order, and some of them twice."""
    shuffled = list(messages)
    random.Random(17).shuffle(shuffled)
    half = len(shuffled) // 2
    first, second = await store.write(shuffled[:half]), await store.write(shuffled[half // 2 :])
    assert (first.stored + second.stored, second.duplicates) == (len(messages), half - half // 2)


async def closed(store, month, now, period=None, accounts=None):
    ledger = ScriptedLedger(*month.projects())
    closing = Closing(store.rating, ledger, store, month.directory(), directory_from_text, correct_periods=2)
    wanted = accounts or month.accounts()
    found = await closing.close(
        period or month.period,
        wanted,
        ClosingAct(key=KEY, closed_by="ann@billing", accept_gaps="billed from this month on"),
        now,
    )
    assert {each.account_id: (each.result, each.problems) for each in found} == dict.fromkeys(wanted, ("closed", ()))
    return found


@pytest.mark.parametrize("month", MONTHS, ids=lambda each: each.name)
@pytest_twisted.ensureDeferred
async def test_what_happened_becomes_the_statements_that_were_worked_out_by_hand(store, month):
    messages = cloud_messages() if month is CLOUD_MONTH else await libvirt_messages()
    await arrive(store, messages)
    directory = month.directory()
    for book in directory.books.values():
        period, usage = month.period_of(book), store.rating.usage
        await usage.refresh(book, period, AFTER_GRACE)
        wanted = quantities(month.usage(book.name))
        projects = sorted({project_id for _, _, project_id, _, _ in wanted})
        assert quantities([atom async for atom in usage.atoms(book, period, projects)]) == wanted

    found = await closed(store, month, AFTER_GRACE)
    reproduction = Reproduction(store.rating, store, directory_from_text)
    assert await reproduction.differences(found[0].signed.statement) == []
    for each in found:
        statement = each.signed.statement
        assert unordered(as_rows(statement)) == unordered(month.lines(each.account_id))
        assert (statement.unpriced, statement.unmetered) == ((), ())
        pages = store.rating.statements.annex_pages(statement.statement_id)
        annex = b"".join([page.text() async for page in pages])
        assert outcomes(signed_document(each.signed), annex) == {"passed"}
        if REWRITE in os.environ and isinstance(store, MemoryStore):
            month.statement_file(each.account_id).write_bytes(signed_document(each.signed))
            month.annex_file(each.account_id).write_bytes(annex)
        assert annex == month.annex_file(each.account_id).read_bytes()
        kept = read_statement(month.statement_file(each.account_id).read_bytes()).statement
        # By hand, only what is billed was worked out; PostgreSQL has a clock of its own.
        others = {"as_of": kept.as_of, "book": kept.book}
        assert msgspec.structs.replace(statement, **others) == kept


@pytest_twisted.ensureDeferred
async def test_what_arrives_after_the_close_is_corrected_to_what_was_worked_out(store):
    """Late are the last traffic of web-1, that db-1 was stopped for two days, and that temp-1 was restored."""
    messages = cloud_messages()
    late = [
        each
        for each in messages
        if (each.name == "network.outgoing.bytes" and each.volume == 1650500000000)
        or each.metadata.get("event_type", "").endswith((".power_off.end", ".power_on.end", ".restore.end"))
    ]
    await arrive(store, [each for each in messages if each not in late])
    [november] = await closed(store, CLOUD_MONTH, AFTER_GRACE, accounts=["acme"])
    await arrive(store, late)
    [december] = await closed(store, CLOUD_MONTH, AFTER_GRACE, "2025-12", ["acme"])

    billed: Counter[str] = Counter()
    for line in november.signed.statement.lines:
        if line.kind in AMENDED_KINDS:
            billed[line.key] += line.amount
    assert sorted(billed.values()) != worked_out()
    for line in december.signed.statement.lines:
        if line.kind == "correction":
            assert line.amends.statement_id == "2025-11.acme"
            billed[line.key.removeprefix("correction/2025-11.acme/")] += line.amount
    assert sorted(billed.values()) == worked_out()


def worked_out():
    """The amounts of usage, fixed charges and discounts of Acme."""
    return sorted(Decimal(line["amount"]) for line in CLOUD_MONTH.lines("acme") if line["kind"] in AMENDED_KINDS)


@pytest.mark.parametrize(("month", "account"), ACCOUNTS, ids=lambda each: getattr(each, "name", each))
def test_the_kept_statement_verifies_with_its_annex_for_ever(month, account):
    body, annex = month.statement_file(account).read_bytes(), month.annex_file(account).read_bytes()
    assert outcomes(body, annex) == {"passed"}


def outcomes(body, annex):
    return {check.outcome for check in verify_document(body, KEYS, annex.splitlines(keepends=True))}
