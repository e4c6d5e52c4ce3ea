"""The subcommands of ``meter-rate`` that make, show and verify statements, over a store in memory."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.python import usage

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.rate import close
from meter.commands.rate import closed_list
from meter.commands.rate import diff
from meter.commands.rate import keys
from meter.commands.rate import preview
from meter.commands.rate import reproduce
from meter.commands.rate import verify
from meter.commands.rate.command import Options
from meter.commands.rate.subcommand import RateContext
from meter.completeness_query import ClosingReason
from meter.interfaces import Unavailable
from meter.rating.book.book_text import with_text
from meter.rating.statements.statement_keys import generate_key
from meter.settings.config_file import parse
from tests.closing_accounts import IN_DECEMBER
from tests.closing_accounts import Accounting
from tests.price_books import account
from tests.price_books import book
from tests.price_books import directory
from tests.price_books import price
from tests.price_books import used

MISSING = ClosingReason(code="samples missing", text="…", cause="unknown", samples=7)


def of_text(prices, *accounts):
    return directory(with_text(prices, accounts), *accounts)


class MemoryContext(RateContext):
    """The context of a subcommand, with the store and the time of ``accounting``."""

    def __init__(self, accounting, config):
        super().__init__(accounting.clock)
        self._config = config
        self._accounting = accounting

    def prices(self):
        return self._accounting.directory

    @asynccontextmanager
    async def store(self):
        store = self._accounting.store
        store.closable, store.completeness = self._accounting.ledger.closable, self._accounting.ledger.completeness
        store.rating.exclusively = self._exclusively
        yield store

    @asynccontextmanager
    async def recorder(self, options):
        async def record(action, details):
            if self._accounting.audit_log_is_down and not options["unrecorded"]:
                raise Unavailable("the audit log cannot be written")
            self._accounting.recorded.append((action, details))

        yield record

    async def _exclusively(self, work):
        await work()
        return True


@pytest.fixture
def accounting():
    found = Accounting(of_text(book(price()), account()), "shop", "web", "lab")
    found.usage.arrive(
        [used(1, 10), used(3, 4, "web", "r2"), used(30, 1, "lab", "r9")], IN_DECEMBER - timedelta(days=3)
    )
    return found


@pytest.fixture
def config(tmp_path):
    text = f'[signing]\nkey = "{"k" * 40}"\n[rating]\nsigning_key_file = "{tmp_path / "statement.pem"}"\n'
    generate_key(tmp_path / "statement.pem", tmp_path / "statement-keys")
    return parse(text, "meter-collector", "test")


@pytest.fixture
def rate(accounting, config, capsys):
    """Return a function that runs a subcommand and returns its exit status and output, as JSON objects if it is asked for."""

    async def run(module, options, *arguments):
        chosen = options()
        chosen.parent = None
        chosen.parseOptions(list(arguments))
        status = await module.work(MemoryContext(accounting, config), chosen)
        out = capsys.readouterr().out
        return status, [json.loads(line) for line in out.splitlines()] if "--json" in arguments else out

    return run


@pytest_twisted.ensureDeferred
async def test_closed_statements_are_written_listed_and_verified(rate, tmp_path):
    status, out = await rate(close, close.CloseOptions, "2026-11", "--output", str(tmp_path))
    assert (status, out.splitlines()) == (
        EXIT_OK,
        ["closed  acme  2026-11.acme  1.40 EUR", "closed  lab  2026-11.lab  0.10 EUR"],
    )
    status, out = await rate(closed_list, closed_list.ClosedListOptions, "--account", "acme", "--json")
    assert [(each["statement_id"], each["total"], each["projects"]) for each in out] == [
        ("2026-11.acme", "1.40", ["shop", "web"])
    ]
    status, out = await rate(verify, verify.StatementVerifyOptions, str(tmp_path / "2026-11.acme.json"), "--json")
    assert (status, out[-1]) == (EXIT_OK, {"verified": True})

    status, out = await rate(close, close.CloseOptions, "2026-11", "--json")
    assert (status, [each["result"] for each in out]) == (EXIT_OK, ["already closed", "already closed"])


@pytest_twisted.ensureDeferred
async def test_refused_close_says_why_and_what_can_be_done(rate, accounting):
    accounting.ledger.reasons = {"shop": [MISSING]}
    status, out = await rate(close, close.CloseOptions, "2026-11")
    assert status == EXIT_FOUND_PROBLEMS
    refused, why, waits = out.splitlines()
    assert (refused, waits) == ("refused  acme", "waits for others  lab")
    assert why.startswith("  samples missing: 7 samples are missing (unknown): ")
    assert why.endswith('(add --accept-gaps "REASON" to accept it)')

    status, out = await rate(close, close.CloseOptions, "2026-11", "--each", "--json")
    assert (status, [each["result"] for each in out]) == (EXIT_FOUND_PROBLEMS, ["refused", "closed"])
    status, _ = await rate(close, close.CloseOptions, "2026-11", "--accept-gaps", "host 7 burnt down")
    assert status == EXIT_OK
    assert [entry.reason for entry in accounting.store.audit_log] == ["", "host 7 burnt down"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["november"], "'november' is not a billing period"),
        (["2026-11", "--accept-gaps", "x" * 3000], "at most 2000 characters"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_wrong_close_is_refused(rate, arguments, why):
    with pytest.raises(CommandError, match=why):
        await rate(close, close.CloseOptions, *arguments)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (close.CloseOptions, []),
        (close.CloseOptions, ["2026-11", "--accept-gaps", " "]),
        (keys.KeysOptions, ["destroy"]),
        (verify.StatementVerifyOptions, []),
        (preview.PreviewOptions, ["--account", "a", "--project", "p"]),
        (closed_list.ClosedListOptions, ["--limit", "0"]),
        (closed_list.ClosedListOptions, ["--limit", "-1"]),
        (diff.DiffOptions, ["--period", "2026-11"]),
        (diff.DiffOptions, ["--book", "x"]),
    ],
)
def test_wrong_command_line_is_refused(options, arguments):
    with pytest.raises(usage.UsageError):
        options().parseOptions(arguments)


@pytest_twisted.ensureDeferred
async def test_statements_are_not_signed_with_a_key_that_others_can_use(rate, tmp_path):
    (tmp_path / "statement.pem").chmod(0o644)
    with pytest.raises(CommandError, match="others can use the signing key"):
        await rate(close, close.CloseOptions, "2026-11")


@pytest_twisted.ensureDeferred
async def test_preview_rates_and_shows_what_is_open(rate, accounting):
    accounting.at(datetime(2026, 11, 15, 23, tzinfo=UTC))
    accounting.usage.arrived = accounting.usage.arrived[:2]
    status, out = await rate(preview, preview.PreviewOptions, "--project", "shop")
    assert status == EXIT_OK
    assert out.startswith("2026-11.acme  open  acme (Acme)  2026-11  EUR\nsamples: expected 200  received 200  100 %\n")
    assert "project shop\n            1.00  usage" in out
    assert out.endswith("forecast of the period: 2.80 EUR\n\n")

    _, [found] = await rate(preview, preview.PreviewOptions, "--json", "--rated")
    assert (found["statement"]["total"], found["forecast"]["total"]) == ("1.40", "2.80")


@pytest_twisted.ensureDeferred
async def test_unpriced_usage_and_unmetered_time_are_shown(rate, accounting):
    only = price(match={"flavor": "small"})
    accounting.use(of_text(book(only), account()))
    accounting.usage.arrive([used(5, 3, flavor="big", unmetered=60)], accounting.now)
    _, out = await rate(preview, preview.PreviewOptions, "--account", "acme", "--period", "2026-11")
    assert "UNPRICED  3 GB  egress of project shop flavor=big: no price covers it\n" in out
    assert "unmetered  60 s  egress of project shop: not billed\n" in out


@pytest_twisted.ensureDeferred
async def test_reproduced_statement_is_equal_or_every_difference_is_listed(rate, accounting):
    await rate(close, close.CloseOptions, "2026-11")
    status, out = await rate(reproduce, reproduce.ReproduceOptions, "2026-11.acme")
    assert (status, out) == (EXIT_OK, "2026-11.acme is equal to what its samples and its price book give\n")

    accounting.usage.arrived[0] = accounting.usage.arrived[0]._replace(atom=used(1, 11))
    status, [out] = await rate(reproduce, reproduce.ReproduceOptions, "2026-11.acme", "--json")
    assert (status, out["equal"]) == (EXIT_FOUND_PROBLEMS, False)
    assert any("amount 1.00, and computed with 1.10" in each for each in out["differences"])

    with pytest.raises(CommandError, match=r"there is no closed statement 2026-11\.nobody"):
        await rate(reproduce, reproduce.ReproduceOptions, "2026-11.nobody")


@pytest_twisted.ensureDeferred
async def test_other_book_is_compared_by_project_and_changes_nothing(rate, accounting, monkeypatch):
    await rate(close, close.CloseOptions, "2026-11", "--account", "acme")
    closed = await accounting.store.rating.statements.summaries()
    other = of_text(book(price(amount="0.2")), account())
    monkeypatch.setattr(diff, "_directory", lambda path: other)

    status, out = await rate(diff, diff.DiffOptions, "--book", "x", "--period", "2026-11", "--json")

    assert status == EXIT_OK
    assert [(each["project"], each["old"], each["new"], each["difference"], each["closed"]) for each in out] == [
        ("lab", "0.10", "0.20", "0.10", False),
        ("shop", "1.00", "2.00", "1.00", True),
        ("web", "0.40", "0.80", "0.40", True),
    ]
    assert await accounting.store.rating.statements.summaries() == closed
    _, out = await rate(diff, diff.DiffOptions, "--book", "x", "--period", "2026-11")
    assert out.splitlines()[-1] == "total EUR: old 1.50  new 3.00  difference 1.50"


@pytest_twisted.ensureDeferred
async def test_other_book_may_have_another_currency_and_no_price(rate, accounting, monkeypatch):
    await accounting_refresh(rate)
    monkeypatch.setattr(
        diff, "_directory", lambda path: of_text(book(price(match={"a": "b"}), currency="JPY"), account())
    )
    _, out = await rate(diff, diff.DiffOptions, "--book", "x", "--period", "2026-11", "--json")
    assert [(each["project"], each["new"], each["unpriced"], each["difference"]) for each in out][1] == (
        "shop",
        "0",
        True,
        None,
    )


async def accounting_refresh(rate):
    await rate(preview, preview.PreviewOptions, "--period", "2026-11")


@pytest_twisted.ensureDeferred
async def test_nothing_is_closed_where_the_statements_cannot_be_written(rate, tmp_path):
    with pytest.raises(usage.UsageError, match="missing: there is no such directory"):
        await rate(close, close.CloseOptions, "2026-11", "--output", str(tmp_path / "missing"))
    _, out = await rate(closed_list, closed_list.ClosedListOptions)
    assert "2026-11" not in out


@pytest_twisted.ensureDeferred
async def test_preview_of_a_closed_period_says_that_nothing_is_open(rate, tmp_path):
    await rate(close, close.CloseOptions, "2026-11", "--output", str(tmp_path))
    _, out = await rate(preview, preview.PreviewOptions, "--period", "2026-11")
    assert out == "nothing to bill that is not closed in 2026-11; closed: meter-rate list\n"
    assert await rate(preview, preview.PreviewOptions, "--period", "2026-11", "--json") == (EXIT_OK, [])


@pytest_twisted.ensureDeferred
async def test_keys_are_listed_and_rotated(rate, tmp_path):
    _, [first] = await rate(keys, keys.KeysOptions, "list", "--json")
    assert (first["signs"], first["algorithm"]) == (True, "Ed25519")
    await rate(close, close.CloseOptions, "2026-11", "--output", str(tmp_path))
    _, out = await rate(keys, keys.KeysOptions, "rotate")
    assert f"The old private key is in {tmp_path}/statement.pem.{first['key_id']}." in out
    _, found = await rate(keys, keys.KeysOptions, "list", "--json")
    assert {each["key_id"]: each["signs"] for each in found}[first["key_id"]] is False
    assert len(found) == 2
    status, _ = await rate(verify, verify.StatementVerifyOptions, str(tmp_path / "2026-11.acme.json"))
    assert status == EXIT_OK

    with pytest.raises(CommandError, match="exists: meter-rate keys rotate"):
        await rate(keys, keys.KeysOptions, "generate")


@pytest_twisted.ensureDeferred
async def test_new_keys_are_in_the_audit_log_before_they_are_written(rate, accounting, tmp_path):
    _, [first] = await rate(keys, keys.KeysOptions, "list", "--json")
    _, [rotated] = await rate(keys, keys.KeysOptions, "rotate", "--json")
    (tmp_path / "statement.pem").unlink()
    _, [generated] = await rate(keys, keys.KeysOptions, "generate", "--json")
    paths = {"private": f"{tmp_path}/statement.pem", "public_directory": f"{tmp_path}/statement-keys"}
    assert accounting.recorded == [
        ("statement-key.rotate", {"key_id": rotated["key_id"], "replaces": first["key_id"], **paths}),
        ("statement-key.generate", {"key_id": generated["key_id"], **paths}),
    ]

    accounting.audit_log_is_down = True
    pem = (tmp_path / "statement.pem").read_bytes()
    with pytest.raises(Unavailable):
        await rate(keys, keys.KeysOptions, "rotate")
    assert (tmp_path / "statement.pem").read_bytes() == pem
    assert len((await rate(keys, keys.KeysOptions, "list", "--json"))[1]) == 3
    await rate(keys, keys.KeysOptions, "rotate", "--unrecorded")
    assert (tmp_path / "statement.pem").read_bytes() != pem


@pytest_twisted.ensureDeferred
async def test_statement_without_a_key_is_not_verified(rate, tmp_path):
    await rate(close, close.CloseOptions, "2026-11", "--output", str(tmp_path))
    (tmp_path / "statement-keys").rename(tmp_path / "elsewhere")
    status, out = await rate(verify, verify.StatementVerifyOptions, str(tmp_path / "2026-11.acme.json"))
    assert (status, out.splitlines()[-1]) == (EXIT_FOUND_PROBLEMS, "NOT VERIFIED")
    assert "NOT CHECKED  signature       no public key is given" in out
    with pytest.raises(CommandError, match="No such file"):
        await rate(verify, verify.StatementVerifyOptions, str(tmp_path / "nothing.json"))
    with pytest.raises(CommandError, match="cannot be read"):
        await rate(
            verify, verify.StatementVerifyOptions, str(tmp_path / "2026-11.acme.json"), "--keys", str(tmp_path / "none")
        )


@pytest_twisted.ensureDeferred
async def test_annex_and_statement_before_are_verified(rate, accounting, tmp_path):
    await rate(close, close.CloseOptions, "2026-11", "--output", str(tmp_path))
    accounting.usage.arrive([used(date(2026, 12, 1), 1)], accounting.now)
    accounting.at(datetime(2027, 1, 8, tzinfo=UTC))
    await rate(close, close.CloseOptions, "2026-12", "--account", "acme", "--output", str(tmp_path))
    annex = tmp_path / "annex.jsonl"
    annex.write_bytes(b"".join(await accounting.annex("2026-12.acme")))
    arguments = [str(tmp_path / "2026-12.acme.json"), "--annex", str(annex), "--previous"]
    status, out = await rate(
        verify, verify.StatementVerifyOptions, *arguments, str(tmp_path / "2026-11.acme.json"), "--json"
    )
    assert (status, {each["outcome"] for each in out[:-1]}) == (EXIT_OK, {"passed"})
    status, _ = await rate(verify, verify.StatementVerifyOptions, *arguments, str(tmp_path / "2026-11.lab.json"))
    assert status == EXIT_FOUND_PROBLEMS
    annex.write_bytes(b"x" * 5_000_000)
    status, _ = await rate(verify, verify.StatementVerifyOptions, *arguments, str(tmp_path / "2026-11.acme.json"))
    assert status == EXIT_FOUND_PROBLEMS


@pytest_twisted.ensureDeferred
async def test_preview_has_corrections_of_samples_that_have_just_arrived(rate, accounting):
    await rate(close, close.CloseOptions, "2026-11")
    accounting.usage.arrive([used(9, 10)], accounting.now)
    _, [found] = await rate(preview, preview.PreviewOptions, "--account", "acme", "--json")
    assert [line["kind"] for line in found["statement"]["lines"]] == ["correction"]


@pytest_twisted.ensureDeferred
async def test_preview_of_an_account_that_does_not_exist_is_refused(rate):
    for option in ("--account", "--project"):
        with pytest.raises(CommandError, match=r"unknown account 'acmee'.*did you mean acme"):
            await rate(preview, preview.PreviewOptions, option, "acmee")


@pytest_twisted.ensureDeferred
async def test_hours_that_are_not_final_say_what_to_do(rate, accounting):
    accounting.ledger.reasons = {"shop": [ClosingReason(code="hours not finalized", text="9 hours are not final")]}
    _, out = await rate(close, close.CloseOptions, "2026-11")
    assert "finalize_after_seconds" in out
    assert "meter-db finalize" in out


@pytest_twisted.ensureDeferred
async def test_close_names_what_has_no_price_and_its_files_are_its_owners(rate, accounting, tmp_path):
    accounting.use(of_text(book(price(match={"flavor": "small"})), account()))
    accounting.usage.arrive([used(5, 3, flavor="big")], accounting.now)
    _, out = await rate(close, close.CloseOptions, "2026-11", "--output", str(tmp_path))
    assert "UNPRICED  3 GB  egress of project shop flavor=big: no price covers it\n" in out
    assert (tmp_path / "2026-11.acme.json").stat().st_mode & 0o777 == 0o600


def test_help_has_one_usage(capsys):
    options = Options()
    with pytest.raises(SystemExit):
        options.parseOptions(["close", "--help"])
    assert capsys.readouterr().out.count("Usage:") == 1
