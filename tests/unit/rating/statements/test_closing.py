"""A period is closed when nothing speaks against it, once, and what arrives later is a correction on the next statement."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta
from decimal import Decimal

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meter.completeness_query import ClosingReason
from meter.identity_report import IdentityName
from meter.identity_report import IdentityReport
from meter.interfaces import Unavailable
from meter.rating.book.price_book import Credit
from meter.rating.book.price_book import FixedCharge
from meter.rating.book.price_book import Membership
from meter.rating.book.price_book import PriceScope
from meter.rating.book.price_book import Tax
from meter.rating.period import BillingPeriod
from meter.rating.statements.book_comparison import BookComparison
from meter.rating.statements.preview import PeriodNotBegun
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement import signed_document
from meter.rating.statements.statement import statement_sha256
from meter.rating.statements.statement_keys import key_id_of
from meter.rating.statements.verification import verify_document
from meter.sample import utc_text
from tests.closing_accounts import IN_DECEMBER
from tests.closing_accounts import Accounting
from tests.closing_accounts import with_text
from tests.price_books import PLACE
from tests.price_books import account
from tests.price_books import book
from tests.price_books import directory
from tests.price_books import price
from tests.price_books import used
from tests.price_books import valid
from tests.statements import KEY_ID
from tests.statements import KEYS
from tests.statements import closing
from tests.statements import pages
from tests.statements import signed
from tests.statements import statement

IN_JANUARY = datetime(2027, 1, 8, tzinfo=UTC)
MISSING = ClosingReason(code="samples missing", text="7 samples are missing (unknown): why", cause="unknown", samples=7)
NOT_FINAL = ClosingReason(code="hours not finalized", text="at the end of the period 1 hour is not final yet")


@pytest.fixture
def accounting():
    accounting = Accounting(directory(with_text(book(price())), account()), "shop", "web", "lab")
    accounting.usage.arrive(
        [used(1, 10), used(2, "0.5"), used(3, 4, "web", "r2"), used(30, 1, "lab", "r9")],
        IN_DECEMBER - timedelta(days=3),
    )
    return accounting


def results(found):
    return {each.account_id: each.result for each in found}


def codes(found):
    return {each.account_id: [problem.code for problem in each.problems] for each in found if each.problems}


async def statement_of(accounting, id):
    signed = await accounting.store.rating.statements.statement(id)
    return signed.statement


@pytest_twisted.ensureDeferred
async def test_closed_statement_verifies_with_its_annex(accounting):
    [acme, lab] = await accounting.close()

    assert (acme.account_id, acme.result, lab.account_id, lab.result) == ("acme", "closed", "lab", "closed")
    for each in (acme, lab):
        annex = await accounting.annex(each.signed.statement.statement_id)
        checks = verify_document(signed_document(each.signed), KEYS, annex)
        assert {check.outcome for check in checks} == {"passed"}
    statement = acme.signed.statement
    assert (statement.total, statement.net, statement.tax) == (Decimal("1.45"), Decimal("1.45"), 0)
    assert [(line.project_id, line.quantity, line.amount) for line in statement.lines] == [
        ("shop", Decimal("10.5"), Decimal("1.05")),
        ("web", Decimal(4), Decimal("0.40")),
    ]
    assert (statement.completeness.expected, statement.completeness.percent) == (200, "100")
    assert (statement.as_of, statement.closed_at) == (IN_DECEMBER, IN_DECEMBER)


@pytest_twisted.ensureDeferred
async def test_close_twice_changes_nothing(accounting):
    first = await accounting.close()
    accounting.usage.arrive([used(5, 100)], accounting.now)
    accounting.at(IN_DECEMBER + timedelta(days=1))
    second = await accounting.close()

    assert results(second) == {"acme": "already closed", "lab": "already closed"}
    assert [each.signed for each in second] == [each.signed for each in first]


@pytest_twisted.ensureDeferred
async def test_period_that_is_not_over_is_refused(accounting):
    accounting.at(datetime(2026, 11, 30, 22, 59, tzinfo=UTC))  # an hour later in Paris
    assert codes(await accounting.close())["acme"] == ["period not over"]


@pytest_twisted.ensureDeferred
async def test_days_of_grace_are_waited_for(accounting):
    accounting.at(datetime(2026, 12, 5, 22, 59, 59, tzinfo=UTC))
    found = await accounting.close()
    assert codes(found) == {"acme": ["grace not over"], "lab": ["grace not over"]}
    assert found[0].problems[0].text == "late samples are waited for: the 5 days of grace end at 2026-12-05T23:00:00"

    accounting.at(datetime(2026, 12, 5, 23, tzinfo=UTC))
    assert results(await accounting.close()) == {"acme": "closed", "lab": "closed"}


@pytest_twisted.ensureDeferred
async def test_all_reasons_are_given_at_once_and_nothing_is_closed(accounting):
    accounting.ledger.reasons = {"shop": [MISSING, NOT_FINAL], "web": [MISSING, NOT_FINAL]}
    accounting.at(datetime(2026, 12, 2, tzinfo=UTC))
    found = await accounting.close()

    assert codes(found)["acme"] == ["grace not over", "samples missing", "hours not finalized"]
    assert found[0].problems[1].text.startswith("14 samples are missing (unknown): ")
    accounting.at(IN_DECEMBER)
    assert results(await accounting.close()) == {"acme": "refused", "lab": "waits for others"}
    assert await accounting.store.rating.statements.summaries() == []


@pytest_twisted.ensureDeferred
async def test_accounts_are_closed_for_themselves_if_asked_for(accounting):
    accounting.ledger.reasons = {"shop": [MISSING]}
    assert results(await accounting.close(each_for_itself=True)) == {"acme": "refused", "lab": "closed"}


@pytest_twisted.ensureDeferred
async def test_accepted_gaps_are_on_the_statement_with_their_reason(accounting):
    accounting.ledger.reasons = {"shop": [MISSING]}
    await accounting.close(accept_gaps="host 7 burnt down")

    completeness = (await statement_of(accounting, "2026-11.acme")).completeness
    assert (completeness.accepted, completeness.received, completeness.percent) == ("host 7 burnt down", 193, "96.5")
    assert [(gap.code, gap.samples) for gap in completeness.gaps] == [("samples missing", 7)]
    assert (await statement_of(accounting, "2026-11.lab")).completeness.accepted == ""


@pytest_twisted.ensureDeferred
async def test_hours_that_are_not_final_cannot_be_accepted(accounting):
    accounting.ledger.reasons = {"shop": [MISSING, NOT_FINAL]}
    assert codes(await accounting.close(accept_gaps="whatever"))["acme"] == ["hours not finalized"]


@pytest_twisted.ensureDeferred
async def test_project_that_no_agent_has_reported_is_named(accounting):
    accounting.ledger.projects = ("shop",)
    found = await accounting.close()
    assert {each.account_id: each.problems[0].text for each in found} == {
        "acme": "no agent has reported that it measured anything of project web in the period",
        "lab": "no agent has reported that it measured anything of project lab in the period",
    }
    accounting.ledger.projects = ()
    [acme, _] = await accounting.close()
    assert [each.text for each in acme.problems] == [
        "no agent has reported that it measured anything of the projects shop, web in the period"
    ]


@pytest_twisted.ensureDeferred
async def test_silent_agent_stands_in_the_way_of_those_whom_it_measures_only(accounting):
    silent = ClosingReason(code="agent silent", text="meter-compute@h7 has been silent", agent="meter-compute@h7")
    accounting.ledger.reasons = {"lab": [silent], "web": [MISSING]}
    assert codes(await accounting.close()) == {"acme": ["samples missing"], "lab": ["agent silent"]}


@pytest_twisted.ensureDeferred
async def test_one_account_is_closed_alone(accounting):
    assert results(await accounting.close(accounts=["lab"])) == {"lab": "closed"}
    assert results(await accounting.close()) == {"acme": "closed", "lab": "already closed"}


@pytest_twisted.ensureDeferred
async def test_account_without_anything_to_bill_has_no_statement(accounting):
    accounting.use(directory(with_text(book(price())), account(), account("idle", ["nobody"])))
    assert results(await accounting.close())["idle"] == "nothing to bill"
    assert await accounting.store.rating.statements.statement("2026-11.idle") is None


@pytest_twisted.ensureDeferred
async def test_account_pays_charges_without_usage(accounting):
    setup = FixedCharge(
        id="setup",
        description="Set-up",
        service="",
        category="",
        amount=Decimal(99),
        list_amount=Decimal(99),
        recurring=False,
        prorated=False,
        place=PLACE,
        validity=valid(since=date(2026, 11, 10)),
        scope=PriceScope(project="new"),
    )
    accounting.use(directory(with_text(book(price(), fixed_charges=(setup,))), account()))
    assert results(await accounting.close())["new"] == "closed"
    assert (await statement_of(accounting, "2026-11.new")).total == 99


@pytest_twisted.ensureDeferred
async def test_project_that_changes_its_account_is_on_both_statements(accounting):
    middle = date(2026, 11, 2)
    accounts = (
        replace(account("old"), projects=(Membership(id="shop", validity=valid(until=middle)),)),
        replace(account("new"), projects=(Membership(id="shop", validity=valid(since=middle)),)),
    )
    accounting.use(directory(with_text(book(price())), *accounts))
    await accounting.close()
    quantities = {
        id: [line.quantity for line in (await statement_of(accounting, f"2026-11.{id}")).lines] for id in ("old", "new")
    }
    assert quantities == {"old": [Decimal(10)], "new": [Decimal("0.5")]}
    for id in ("old", "new"):
        signed = await accounting.store.rating.statements.statement(f"2026-11.{id}")
        checks = verify_document(signed_document(signed), KEYS, await accounting.annex(f"2026-11.{id}"))
        assert {check.outcome for check in checks} == {"passed"}


@pytest_twisted.ensureDeferred
async def test_names_are_those_of_the_end_of_the_period(accounting):
    for day, name in ((1, "first"), (20, "second")):
        await rename(accounting, datetime(2026, 11, day, tzinfo=UTC), name)
    await rename(accounting, datetime(2026, 12, 1, tzinfo=UTC), "third")
    await accounting.close()
    assert (await statement_of(accounting, "2026-11.lab")).lines[0].project_name == "second"
    assert (await statement_of(accounting, "2026-11.lab")).account.name == "second"


async def rename(accounting, at, name):
    accounting_now = accounting.now
    report = IdentityReport(
        origin="keystone",
        message_id=f"list at {at}",
        at=utc_text(at),
        names=(IdentityName(kind="project", id="lab", name=name, since=utc_text(at), domain="d"),),
        complete=(),
        after="",
        until=None,
    )
    await accounting.store.record_identities(report)
    assert accounting.now == accounting_now


@pytest_twisted.ensureDeferred
async def test_account_and_project_of_the_same_id_are_not_mixed_up(accounting):
    accounting.use(directory(with_text(book(price())), account("lab", ["shop", "web"])))
    found = await accounting.close()
    assert [(each.account_id, each.result) for each in found] == [("lab", "refused"), ("lab", "waits for others")]
    assert found[0].problems[0].code == "ambiguous account"
    with pytest.raises(ValueError, match="project lab belongs to no account, and an account has the same id"):
        await accounting.previews().previews(accounting.now, "2026-11")
    with pytest.raises(ValueError, match="name the project in one"):
        await accounting.previews().account_of("lab", accounting.now)


@pytest_twisted.ensureDeferred
async def test_project_is_not_taken_for_closed_because_an_account_with_its_id_is(accounting):
    accounting.use(directory(with_text(book(price())), account("lab", ["shop", "web"])))
    results = [sorted(each.result for each in await accounting.close(each_for_itself=True)) for _ in range(2)]
    assert results == [["closed", "refused"], ["already closed", "refused"]]


@pytest_twisted.ensureDeferred
async def test_samples_that_arrive_during_the_close_are_waited_for(accounting):
    arrivals = iter([[used(7, 1)], [used(8, 1)], []])
    accounting.usage.on_refresh = lambda: accounting.usage.arrive(next(arrivals, []), accounting.now)
    await accounting.close()
    assert (await statement_of(accounting, "2026-11.acme")).lines[0].quantity == Decimal("12.5")
    assert await accounting.differences("2026-11.acme") == []


@pytest_twisted.ensureDeferred
async def test_close_is_given_up_if_samples_keep_arriving(accounting):
    accounting.usage.on_refresh = lambda: accounting.usage.arrive([used(7, 1)], accounting.now)
    with pytest.raises(Unavailable, match="samples of 2026-11-07 keep arriving: nothing was closed"):
        await accounting.close()
    assert await accounting.store.rating.statements.summaries() == []


@pytest_twisted.ensureDeferred
async def test_close_that_is_killed_in_the_middle_goes_on_when_it_is_repeated(accounting):
    whole = Accounting(accounting.directory, "shop", "web", "lab")
    whole.usage.arrived = list(accounting.usage.arrived)
    await whole.close()
    add = accounting.store.rating.statements.add

    async def killed_at_the_second(closing, annex):
        if closing.signed.statement.account.id == "lab":
            raise Unavailable("killed")
        return await add(closing, annex)

    accounting.store.rating.statements.add = killed_at_the_second
    with pytest.raises(Unavailable, match="killed"):
        await accounting.close()
    accounting.store.rating.statements.add = add

    assert results(await accounting.close()) == {"acme": "already closed", "lab": "closed"}
    for id in ("2026-11.acme", "2026-11.lab"):
        assert await accounting.annex(id) == await whole.annex(id)
        assert await statement_of(accounting, id) == await statement_of(whole, id)


@pytest_twisted.ensureDeferred
async def test_statement_is_of_all_projects_that_it_says_anything_of(accounting):
    accounting.usage.arrived.clear()
    accounting.usage.arrive([used(9, 0, "web", unmetered=60)], accounting.now)
    assert results(await accounting.close()) == {"acme": "closed"}
    [summary] = await accounting.store.rating.statements.summaries()
    assert (summary.projects, summary.total) == (("web",), "0.00")


@pytest_twisted.ensureDeferred
async def test_usage_without_a_project_is_on_no_statement(accounting):
    accounting.usage.arrive([used(9, 1, "")], accounting.now)
    assert results(await accounting.close()) == {"acme": "closed", "lab": "closed"}


# --- the next periods ---


def december(day, quantity, project="shop", resource="r1"):
    return used(date(2026, 12, day), quantity, project, resource)


@pytest_twisted.ensureDeferred
async def test_late_usage_is_a_correction_of_the_line_it_amends(accounting):
    await accounting.close()
    accounting.usage.arrive([used(9, 100), used(9, 3, "web", "r7"), december(1, 20)], IN_JANUARY - timedelta(days=9))
    accounting.at(IN_JANUARY)
    await accounting.close("2026-12", ["acme"])

    november, later = await statement_of(accounting, "2026-11.acme"), await statement_of(accounting, "2026-12.acme")
    corrections = [line for line in later.lines if line.kind == "correction"]
    assert [(line.project_id, line.amount, line.amends.statement_id, line.amends.line) for line in corrections] == [
        ("shop", Decimal("10.00"), "2026-11.acme", 1),
        ("web", Decimal("0.30"), "2026-11.acme", 2),
    ]
    assert later.total == Decimal("12.30")
    assert later.previous_sha256 == statement_sha256(november)
    signed = await accounting.store.rating.statements.statement("2026-12.acme")
    before = await accounting.store.rating.statements.statement("2026-11.acme")
    checks = verify_document(
        signed_document(signed), KEYS, await accounting.annex("2026-12.acme"), signed_document(before)
    )
    assert {check.outcome for check in checks} == {"passed"}
    assert await accounting.differences("2026-12.acme") == []
    assert await accounting.differences("2026-11.acme") == []


@pytest_twisted.ensureDeferred
async def test_corrections_are_billed_once_and_late_totals_are_those_in_time(accounting):
    in_time = Accounting(accounting.directory, "shop", "web", "lab")
    await accounting.close()
    late = [used(9, "0.123456789"), used(29, "7.7", "web", "r7")]
    for at, period, atoms in (
        (IN_JANUARY, "2026-12", [*late[:1], december(1, 1)]),
        (IN_JANUARY + timedelta(days=31), "2027-01", [*late[1:], used(date(2027, 1, 1), 1)]),
        (IN_JANUARY + timedelta(days=59), "2027-02", [used(date(2027, 2, 1), 1)]),
    ):
        accounting.usage.arrive(atoms, at - timedelta(days=9))
        accounting.at(at)
        await accounting.close(period, ["acme"])
    in_time.usage.arrive([each.atom for each in accounting.usage.arrived], IN_DECEMBER - timedelta(days=1))
    in_time.at(IN_JANUARY + timedelta(days=59))
    for period in ("2026-11", "2026-12", "2027-01", "2027-02"):
        await in_time.close(period, ["acme"])

    async def total(books):
        of_account = await books.store.rating.statements.of_account("acme", "2026-01", "2027-12")
        return sum(each.statement.total for each in of_account)

    assert await total(accounting) == await total(in_time)
    corrections = [line.kind == "correction" for line in (await statement_of(accounting, "2027-02.acme")).lines]
    assert corrections == [False]


@pytest_twisted.ensureDeferred
async def test_correction_is_rated_by_the_book_of_its_statement(accounting):
    await accounting.close()
    accounting.use(directory(with_text(book(price(amount="5")), "second"), account()))
    accounting.usage.arrive([used(9, 10), december(1, 1)], IN_JANUARY - timedelta(days=9))
    accounting.at(IN_JANUARY)
    await accounting.close("2026-12", ["acme"])
    lines = (await statement_of(accounting, "2026-12.acme")).lines
    assert [(line.kind, line.amount) for line in lines] == [("usage", Decimal("5.00")), ("correction", Decimal("1.00"))]


@pytest_twisted.ensureDeferred
async def test_older_periods_than_configured_are_not_corrected(accounting):
    accounting.correct_periods = 1
    await accounting.close()
    accounting.at(IN_JANUARY)
    accounting.usage.arrive([december(1, 1)], accounting.now)
    await accounting.close("2026-12", ["acme"])
    accounting.usage.arrive([used(9, 10), used(date(2027, 1, 1), 1)], accounting.now)
    accounting.at(IN_JANUARY + timedelta(days=31))
    await accounting.close("2027-01", ["acme"])
    assert [line.kind for line in (await statement_of(accounting, "2027-01.acme")).lines] == ["usage"]


@pytest_twisted.ensureDeferred
async def test_late_usage_of_a_period_without_a_statement_is_corrected_too(accounting):
    accounting.usage.arrived.clear()
    accounting.usage.arrive([used(date(2026, 10, 5), 1)], IN_DECEMBER - timedelta(days=9))
    await accounting.close("2026-10", ["acme"])
    assert results(await accounting.close("2026-11", ["acme"])) == {"acme": "nothing to bill"}
    accounting.at(IN_JANUARY)
    accounting.usage.arrive([december(1, 1)], accounting.now)
    await accounting.close("2026-12", ["acme"])
    accounting.usage.arrive([used(9, 10), used(date(2027, 1, 1), 1)], accounting.now)
    accounting.at(IN_JANUARY + timedelta(days=31))
    await accounting.close("2027-01", ["acme"])

    [_, correction] = (await statement_of(accounting, "2027-01.acme")).lines
    assert (correction.amount, correction.amends.statement_id, correction.amends.line) == (
        Decimal("1.00"),
        "2026-11.acme",
        None,
    )
    assert await accounting.differences("2027-01.acme") == []


@pytest_twisted.ensureDeferred
async def test_periods_are_closed_in_order(accounting):
    accounting.usage.arrive([used(date(2026, 10, 5), 1), december(1, 1)], IN_DECEMBER - timedelta(days=9))
    accounting.at(IN_JANUARY)
    await accounting.close("2026-10", ["acme"])
    assert codes(await accounting.close("2026-12", ["acme"])) == {"acme": ["earlier period open"]}
    await accounting.close("2026-11", ["acme"])
    await accounting.close("2026-12", ["acme"])
    assert codes(await accounting.close("2026-09", ["acme"])) == {"acme": ["later period closed"]}


@pytest_twisted.ensureDeferred
async def test_credit_is_used_up_over_statements(accounting):
    welcome = Credit(
        id="welcome", description="", amount=Decimal("2.00"), place=PLACE, scope=PriceScope(account="acme")
    )
    accounting.use(directory(with_text(book(price(), credits=(welcome,))), account()))
    accounting.usage.arrive([december(1, 20)], accounting.now)
    await accounting.close("2026-11", ["acme"])
    accounting.at(IN_JANUARY)
    await accounting.close("2026-12", ["acme"])
    assert (await statement_of(accounting, "2026-11.acme")).total == 0
    assert (await statement_of(accounting, "2026-12.acme")).total == Decimal("1.45")
    assert await accounting.store.rating.statements.credits_used("acme") == {"welcome": Decimal("2.00")}
    assert await accounting.differences("2026-12.acme") == []


@pytest_twisted.ensureDeferred
async def test_account_that_changed_its_currency_is_not_corrected_in_the_other(accounting):
    await accounting.close()
    yen = with_text(book(price(amount="15"), currency="JPY"), "yen")
    accounting.use(directory(yen, account()))
    accounting.usage.arrive([used(9, 10), december(1, 2)], IN_JANUARY - timedelta(days=9))
    accounting.at(IN_JANUARY)
    await accounting.close("2026-12", ["acme"])
    statement = await statement_of(accounting, "2026-12.acme")
    assert (statement.currency, [line.kind for line in statement.lines], statement.total) == ("JPY", ["usage"], 30)


# --- previews and reproduction ---


@pytest_twisted.ensureDeferred
async def test_preview_is_the_open_statement_with_a_forecast(accounting):
    accounting.at(datetime(2026, 11, 16, tzinfo=UTC) - timedelta(hours=1))
    accounting.usage.arrived = accounting.usage.arrived[:3]
    await refresh(accounting)
    preview = await accounting.preview()

    statement = preview.statement
    assert (statement.state, statement.closed_at, statement.total, statement.annex_sha256) == (
        "open",
        None,
        Decimal("1.45"),
        "",
    )
    assert preview.forecast.total == Decimal("2.90")
    assert await accounting.store.rating.statements.summaries() == []


async def refresh(accounting, period="2026-11"):
    of_book = accounting.directory.books["list"]
    await accounting.usage.refresh(of_book, BillingPeriod.named(period, of_book.timezone), accounting.now)


@pytest_twisted.ensureDeferred
async def test_preview_has_the_corrections_that_would_be_billed(accounting):
    await accounting.close()
    accounting.usage.arrive([used(9, 10), december(1, 1)], accounting.now)
    await refresh(accounting)
    preview = await accounting.preview(period="2026-12")
    assert [(line.kind, line.amount) for line in preview.statement.lines] == [
        ("usage", Decimal("0.10")),
        ("correction", Decimal("1.00")),
    ]


@pytest_twisted.ensureDeferred
async def test_previews_of_all_accounts_leave_out_those_with_nothing(accounting):
    accounting.use(directory(with_text(book(price())), account(), account("idle", ["nobody"])))
    await refresh(accounting)
    found = await accounting.previews().previews(accounting.now, "2026-11")
    assert [each.statement.account.id for each in found] == ["acme", "lab"]


@pytest_twisted.ensureDeferred
async def test_account_of_a_project_is_the_one_that_names_it(accounting):
    previews = accounting.previews()
    assert (await previews.account_of("web", accounting.now)).id == "acme"
    assert (await previews.account_of("lab", accounting.now)).implied


@pytest_twisted.ensureDeferred
async def test_reproduction_lists_every_difference(accounting):
    await accounting.close()
    assert await accounting.differences("2026-11.acme") == []
    accounting.usage.arrived[0] = accounting.usage.arrived[0]._replace(atom=used(1, 11))
    found = await accounting.differences("2026-11.acme")
    assert [each.split(":")[0] for each in found if "amount" in each or "annex" in each] != []
    assert any("closed with amount 1.05, and computed with 1.15" in each for each in found)
    assert any(each.startswith("total: closed with 1.45, and computed with 1.55") for each in found)
    assert found[-1].startswith("the annex has the SHA-256")


@pytest_twisted.ensureDeferred
async def test_tax_is_on_corrections_too(accounting):
    vat = Tax(category="standard", name="VAT", percent=Decimal(20), place=PLACE, default=True)
    accounting.use(directory(with_text(book(price(), taxes=(vat,))), account()))
    await accounting.close()
    accounting.usage.arrive([used(9, 10), december(1, 1)], IN_JANUARY - timedelta(days=9))
    accounting.at(IN_JANUARY)
    await accounting.close("2026-12", ["acme"])
    statement = await statement_of(accounting, "2026-12.acme")
    assert (statement.net, statement.tax, statement.total) == (Decimal("1.10"), Decimal("0.22"), Decimal("1.32"))


# --- what nobody else would bill ---


def october(day, quantity, project="shop", resource="r1"):
    return used(date(2026, 10, day), quantity, project, resource)


def joined(membership, id="acme"):
    return replace(account(id), projects=(membership,))


def charge(id, amount, **fields):
    values = {"recurring": True, "prorated": False, "validity": valid(), "scope": PriceScope(), **fields}
    return FixedCharge(
        id=id,
        description=id,
        service="",
        category="Other",
        amount=Decimal(amount),
        list_amount=Decimal(amount),
        place=PLACE,
        **values,
    )


IN_NOVEMBER = datetime(2026, 11, 6, 12, tzinfo=UTC)


@pytest.mark.parametrize("removed", [False, True], ids=["project moved", "account removed"])
@pytest_twisted.ensureDeferred
async def test_corrections_of_an_account_that_pays_nothing_now_are_billed(removed):
    fee = charge("fee", 5)
    of_book = with_text(book(price(), fixed_charges=(fee,)))
    old = [account("gone", ["lab"])] if removed else []
    accounting = Accounting(directory(of_book, *old), "lab", "shop")
    accounting.usage.arrive([october(5, 10, "lab"), used(2, 3, "lab")], IN_NOVEMBER - timedelta(days=1))
    accounting.at(IN_NOVEMBER)
    await accounting.close("2026-10")
    first = "gone" if removed else "lab"
    assert (await statement_of(accounting, f"2026-10.{first}")).total == Decimal("6.00")

    accounting.use(
        directory(with_text(of_book, "second"), joined(Membership(id="lab", validity=valid(date(2026, 11, 1)))))
    )
    accounting.usage.arrive([october(6, 30, "lab")], IN_DECEMBER - timedelta(days=1))
    accounting.at(IN_DECEMBER)
    found = await accounting.close("2026-11", accept_gaps="new account")

    assert results(found) == {"acme": "closed", first: "closed"}
    late = await statement_of(accounting, f"2026-11.{first}")
    assert [(line.kind, line.amount) for line in late.lines] == [("correction", Decimal("3.00"))]
    assert await accounting.differences(f"2026-11.{first}") == []

    accounting.at(IN_JANUARY)
    assert set(results(await accounting.close("2026-12"))) == {"acme"}


@pytest_twisted.ensureDeferred
async def test_credit_of_a_project_is_used_once_whatever_its_account():
    credit = Credit(id="c", description="", amount=Decimal(1), place=PLACE, scope=PriceScope(project="lab"))
    of_book = with_text(book(price(), credits=(credit,)))
    accounting = Accounting(directory(of_book), "lab", "shop")
    accounting.usage.arrive([october(5, 20, "lab"), used(2, 30, "lab")], IN_NOVEMBER - timedelta(days=1))
    accounting.at(IN_NOVEMBER)
    await accounting.close("2026-10")
    assert (await statement_of(accounting, "2026-10.lab")).total == Decimal("1.00")

    accounting.use(directory(of_book, joined(Membership(id="lab", validity=valid(date(2026, 11, 1))))))
    accounting.at(IN_DECEMBER)
    await refresh(accounting)
    assert (await accounting.preview(period="2026-11")).statement.total == Decimal("3.00")
    await accounting.close("2026-11")
    assert (await statement_of(accounting, "2026-11.acme")).total == Decimal("3.00")
    assert await accounting.differences("2026-11.acme") == []


@pytest_twisted.ensureDeferred
async def test_first_close_says_which_earlier_usage_it_leaves_out(accounting):
    accounting.usage.arrive([october(5, 1000)], accounting.now)
    found = await accounting.close(accounts=["acme"])
    assert codes(found) == {"acme": ["earlier period open"]}
    assert found[0].problems[0].acceptable

    await accounting.close(accounts=["acme"], accept_gaps="billed elsewhere until November")
    completeness = (await statement_of(accounting, "2026-11.acme")).completeness
    assert [each.code for each in completeness.gaps] == ["earlier period open"]
    assert completeness.accepted == "billed elsewhere until November"
    [refused] = await accounting.close("2026-10", ["acme"])
    assert refused.problems[0].text.endswith("what belongs to 2026-10 is on no statement")


@pytest_twisted.ensureDeferred
async def test_one_time_charge_that_is_dated_in_a_closed_period_is_refused(accounting):
    await accounting.close()
    setup = charge("setup", 7, recurring=False, validity=valid(date(2026, 11, 20)))
    accounting.use(directory(with_text(book(price(), fixed_charges=(setup,)), "late"), account()))
    accounting.at(IN_JANUARY)
    found = await accounting.close("2026-12", ["acme"])
    assert codes(found) == {"acme": ["charge in a closed period"]}

    dated = replace(setup, validity=valid(date(2026, 12, 20)))
    accounting.use(directory(with_text(book(price(), fixed_charges=(dated,)), "mended"), account()))
    await accounting.close("2026-12", ["acme"])
    assert (await statement_of(accounting, "2026-12.acme")).total == Decimal("7.00")
    accounting.at(datetime(2027, 2, 8, tzinfo=UTC))
    assert codes(await accounting.close("2027-01", ["acme"])) == {}


@pytest_twisted.ensureDeferred
async def test_statement_that_would_not_verify_is_refused(accounting):
    accounting.usage.arrive([used(9, Decimal(10) ** 120)], accounting.now)
    found = await accounting.close(each_for_itself=True)
    assert codes(found) == {"acme": ["does not verify"]}
    assert "out of the bounds of numbers" in found[0].problems[0].text
    assert results(found) == {"acme": "refused", "lab": "closed"}


@pytest_twisted.ensureDeferred
async def test_closed_period_has_no_preview(accounting):
    await accounting.close(accounts=["acme"])
    with pytest.raises(ValueError, match=r"2026-11\.acme is closed"):
        await accounting.preview(period="2026-11")
    found = await accounting.previews().previews(accounting.now, "2026-11")
    assert [each.statement.account.id for each in found] == ["lab"]


@pytest_twisted.ensureDeferred
async def test_comparison_keeps_the_currencies_of_a_project_apart():
    euro = book(price())
    yen = replace(book(price(amount="5"), currency="JPY"), name="yen")
    members = [
        Membership(id="shop", validity=valid(until=date(2026, 11, 16))),
        Membership(id="shop", validity=valid(date(2026, 11, 16))),
    ]
    accounts = [joined(members[0]), replace(joined(members[1], "nippon"), book="yen")]
    prices = replace(directory(euro, *accounts), books={"list": euro, "yen": yen})
    accounting = Accounting(prices, "shop")
    accounting.usage.arrive([used(3, 1000), used(20, 100)], accounting.now)
    for each in (euro, yen):
        await accounting.usage.refresh(each, BillingPeriod.named("2026-11", each.timezone), accounting.now)
    found = await BookComparison(accounting.store.rating, accounting.store, prices, prices).compare(
        "2026-11", accounting.now
    )
    assert [(each.currency, each.old, each.new_currency, each.new) for each in found] == [
        ("EUR", Decimal("100.00"), "EUR", Decimal("100.00")),
        ("JPY", Decimal(500), "JPY", Decimal(500)),
    ]


@pytest_twisted.ensureDeferred
async def test_account_that_does_not_exist_is_not_billed(accounting):
    with pytest.raises(ValueError, match=r"unknown account 'amce'.*did you mean acme"):
        await accounting.close(accounts=["amce"])
    with pytest.raises(ValueError, match="unknown account 'amce'"):
        await accounting.previews().require_known("amce", accounting.now)
    assert await accounting.store.rating.statements.summaries() == []
    assert results(await accounting.close(accounts=["lab"])) == {"lab": "closed"}
    await accounting.previews().require_known("lab", accounting.now, "2027-01")


@pytest_twisted.ensureDeferred
async def test_period_that_has_not_begun_has_no_preview(accounting):
    for found in (accounting.preview(period="2027-01"), accounting.previews().previews(accounting.now, "2027-01")):
        with pytest.raises(PeriodNotBegun, match="2027-01 has not begun"):
            await found


@pytest.mark.parametrize("method", ["annex", "totals"])
@pytest_twisted.ensureDeferred
async def test_account_whose_close_fails_does_not_keep_others_open(accounting, method, logged_errors):
    original = getattr(accounting.usage, method)

    async def broken(book, period, projects):
        async for each in original(book, period, projects):
            if each.project_id == "shop":
                raise ValueError("row 2 of the annex is not in order")
            yield each

    setattr(accounting.usage, method, broken)

    found = await accounting.close()

    assert results(found) == {"acme": "refused", "lab": "closed"}
    assert [(each.code, each.text) for each in found[0].problems] == [
        ("close failed", "ValueError: row 2 of the annex is not in order")
    ]
    assert await accounting.store.rating.statements.latest("acme") is None
    assert len(logged_errors.flush(ValueError)) == 1


@pytest.mark.parametrize("forged_period", ["2026-11", "2099-12"])
@pytest_twisted.ensureDeferred
async def test_statement_that_nobody_signed_does_not_count_as_closed(accounting, forged_period):
    forged = statement("acme", forged_period)
    signature = signed(statement("acme", total=Decimal(1))).signature
    await accounting.store.rating.statements.add(
        replace(closing(forged), signed=SignedStatement(statement=forged, key_id=KEY_ID, signature=signature)), pages()
    )

    found = await accounting.close(each_for_itself=True)

    assert results(found) == {"acme": "refused", "lab": "closed"}
    assert codes(found)["acme"] == ["stored statement does not verify"]
    assert found[0].problems[0].text == (
        f"{forged_period}.acme is stored, but does not verify: the key {KEY_ID} has not signed this statement: it was altered"
    )


@pytest_twisted.ensureDeferred
async def test_statement_of_a_former_key_counts_as_closed_while_its_key_is_published(accounting):
    former = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
    public = former.public_key()
    await accounting.close(key=former)

    assert set(results(await accounting.close(public_keys={key_id_of(public): public})).values()) == {"already closed"}
    assert set(results(await accounting.close()).values()) == {"refused"}
