"""The months that docs/statements-amounts.rst works out by hand, from what happened to closed statements, in memory and in PostgreSQL."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from meter.rating.book.book_text import directory_from_text
from meter.rating.statements.closing import Closing
from meter.rating.statements.closing import ClosingAct
from meter.rating.statements.reproduction import Reproduction
from meter.rating.statements.statement import signed_document
from meter.rating.statements.verification import verify_document
from meter.store import PostgresStore
from meter.testing import MemoryStore
from tests.closing_accounts import ScriptedLedger
from tests.statements import KEY
from tests.statements import KEYS
from tests.waiting import until
from tests.worked_events import cloud_messages
from tests.worked_events import libvirt_messages
from tests.worked_months import CLOUD_MONTH
from tests.worked_months import LIBVIRT_MONTH
from tests.worked_months import as_rows
from tests.worked_months import unordered

AFTER_GRACE = {CLOUD_MONTH: datetime(2026, 12, 8, tzinfo=UTC), LIBVIRT_MONTH: datetime(2026, 11, 8, tzinfo=UTC)}


@pytest.fixture(params=["memory", "postgresql"])
def store(request):
    if request.param == "memory":
        yield MemoryStore(reactor)
        return
    dsn = request.getfixturevalue("postgresql").dsn()
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1, rating_connections=2)
    store.startService()
    pytest_twisted.blockon(Deferred.fromCoroutine(until(lambda: store.readiness().ready)))
    yield store
    pytest_twisted.blockon(store.stopService())


def quantities(atoms):
    """What is billed, without time that is not."""
    return {
        (each.sku, each.day, each.project_id, each.resource_id, each.values.get("flavor")): each.quantity
        for each in atoms
        if each.quantity
    }


@pytest.mark.parametrize("month", [CLOUD_MONTH, LIBVIRT_MONTH], ids=lambda each: each.name)
@pytest_twisted.ensureDeferred
async def test_what_happened_becomes_the_statements_that_were_worked_out_by_hand(store, month):
    messages = cloud_messages() if month is CLOUD_MONTH else await libvirt_messages()
    result = await store.write(messages)
    assert (result.stored, result.refused) == (len(messages), ())

    directory = month.directory()
    now = AFTER_GRACE[month]
    for book in directory.books.values():
        period, usage = month.period_of(book), store.rating.usage
        await usage.refresh(book, period, now)
        wanted = quantities(month.usage(book.name))
        projects = sorted({project_id for _, _, project_id, _, _ in wanted})
        assert quantities([atom async for atom in usage.atoms(book, period, projects)]) == wanted

    closing = Closing(store.rating, ScriptedLedger(), store, directory, directory_from_text, correct_periods=2)
    act = ClosingAct(key=KEY, closed_by="ann@billing")
    found = await closing.close(month.period, month.accounts(), act, now)
    assert {each.account_id: each.result for each in found} == dict.fromkeys(month.accounts(), "closed")
    reproduction = Reproduction(store.rating, store, directory_from_text)
    for each in found:
        statement = each.signed.statement
        assert unordered(as_rows(statement)) == unordered(month.lines(each.account_id))
        assert statement.unpriced == ()
        pages = store.rating.statements.annex_pages(statement.statement_id)
        annex = [line async for page in pages for line in page.text().splitlines(keepends=True)]
        assert {check.outcome for check in verify_document(signed_document(each.signed), KEYS, annex)} == {"passed"}
        assert await reproduction.differences(statement) == []
