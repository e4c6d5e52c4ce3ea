"""``meter-rate`` on a real database: from samples to statements that are closed, verified, corrected and reproduced."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from decimal import Decimal

import psycopg2
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.commands.rate.command import Options
from meter.commands.rate.command import work
from meter.rating.statements.statement import read_statement
from meter.rating.statements.statement import statement_sha256
from meter.store.rating.statements import LOCK
from tests.integration.test_store_rollups import running
from tests.price_files import requests_book
from tests.store_messages import message
from tests.waiting import until

BOOK = requests_book("requests", timezone="Asia/Kolkata")
CODE = "from meter.commands.rate.command import main; main()"


def month_before(now, count):
    """The first day of a month, so that both of two months before now are over and their days of grace, too."""
    for _ in range(count):
        now = now.replace(day=1) - timedelta(days=1)
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


NOW = datetime.now(UTC)
FIRST, SECOND = month_before(NOW, 3), month_before(NOW, 2)


def requests(day, volume, project="shop", resource="bucket"):
    return message("requests", volume, at=day, type="delta", unit="request", resource_id=resource, project_id=project)


@pytest.fixture
def rate(postgresql, tmp_path, capsys):
    """Runs the command on a database of its own; returns its exit status and its JSON objects."""
    dsn = postgresql.dsn_with_schema()
    prices = tmp_path / "prices.d"
    prices.mkdir()
    (prices / "list.toml").write_text(BOOK)
    file = tmp_path / "meter.toml"
    file.write_text(
        f'[store]\ndsn = "{dsn}"\n[signing]\nkey = "k"\n'
        f'[rating]\nprice_directory = "{prices}"\nsigning_key_file = "{tmp_path / "statement.pem"}"\n'
    )

    async def run(*words):
        options = Options()
        options.parseOptions(["--config", str(file), *words, "--json"])
        status = await work(reactor, options)
        return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    run.dsn, run.directory = dsn, tmp_path
    run.process = lambda *words: subprocess.Popen(
        [sys.executable, "-c", CODE, "--config", str(file), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return run


async def written(rate, *messages):
    """Write samples, and finalize all hours."""
    async with running(rate.dsn) as store:
        result = await store.write(list(messages))
        assert (result.stored, result.refused) == (len(messages), ())
        await store.maintenance.finalize(NOW)


GAPS = ("--accept-gaps", "no agent reports here")


@pytest_twisted.ensureDeferred
async def test_samples_become_statements_that_are_corrected_verified_and_reproduced(rate):
    midnight = FIRST - timedelta(hours=5, minutes=30)  # in Kolkata
    await written(
        rate,
        requests(midnight - timedelta(seconds=1), 1_000_000),
        requests(midnight, 4_000),
        requests(midnight + timedelta(days=3), 8_000, "web", "other"),
        requests(midnight + timedelta(days=9), 500, "lab"),
        requests(SECOND, 1_000),
    )
    assert (await rate("check"))[0] == 0
    assert (await rate("keys", "generate"))[0] == 0
    first, second = f"{FIRST:%Y-%m}", f"{SECOND:%Y-%m}"

    status, [preview] = await rate("preview", "--account", "acme", "--period", first)
    assert (status, preview["statement"]["total"]) == (0, "2.30")

    status, refused = await rate("close", first)
    assert (status, [each["result"] for each in refused]) == (1, ["refused", "refused"])
    assert [each["code"] for each in refused[0]["problems"]] == ["earlier period open", "nothing expected"]

    status, closed = await rate("close", first, *GAPS, "--output", str(rate.directory))
    assert (status, [(each["account"], each["total"]) for each in closed]) == (
        0,
        [("acme", "2.30"), ("lab", "0.10")],
    )
    assert await rate("close", first) == (0, [{**each, "result": "already closed"} for each in closed])

    await written(rate, requests(midnight + timedelta(days=5), 2_000, "web", "other"))
    status, [acme] = await rate("close", second, "--account", "acme", *GAPS, "--output", str(rate.directory))
    assert (status, acme["total"]) == (0, "0.50")
    documents = [read_statement((rate.directory / f"{month}.acme.json").read_bytes()) for month in (first, second)]
    before, after = (document.statement for document in documents)
    assert after.previous_sha256 == statement_sha256(before)
    assert [(line.kind, line.project_id, line.quantity, line.amount) for line in after.lines] == [
        ("usage", "shop", Decimal(1), Decimal("0.20")),
        ("correction", "web", Decimal(2), Decimal("0.30")),
    ]

    for month in (first, second):
        status, [found] = await rate("reproduce", f"{month}.acme")
        assert (status, found["differences"]) == (0, [])
        exported = rate.directory / f"{month}.annex"
        status, _ = await rate("export", f"{month}.acme", "--format", "annex", "--output", str(exported))
        assert status == 0
        status, checks = await rate("verify", str(rate.directory / f"{month}.acme.json"), "--annex", str(exported))
        assert (status, checks[-1]) == (0, {"verified": True}), checks

    status, found = await rate("list")
    assert [each["statement_id"] for each in found] == [f"{second}.acme", f"{first}.acme", f"{first}.lab"]


def waiting_for(dsn, key):
    """Whether a transaction waits for an advisory lock."""
    with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = %s",
            [key & 0xFFFFFFFF],
        )
        return cursor.fetchone() != (0,)


@pytest_twisted.ensureDeferred
async def test_close_that_is_killed_is_repeated_and_of_two_at_once_each_statement_is_closed_by_one(rate):
    await written(rate, *(requests(FIRST + timedelta(days=day), 100, f"p{day}") for day in range(4)))
    assert (await rate("keys", "generate"))[0] == 0
    month = f"{FIRST:%Y-%m}"
    blocker = psycopg2.connect(rate.dsn)
    with blocker.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    process = rate.process("close", month, *GAPS)
    try:
        await until(lambda: waiting_for(rate.dsn, LOCK))
    finally:
        process.send_signal(signal.SIGKILL)
        await deferToThread(process.wait)
        blocker.rollback()
        blocker.close()
    assert (await rate("list"))[1] == []

    other = rate.process("close", month, *GAPS)
    status, results = await rate("close", month, *GAPS)
    assert (status, await deferToThread(other.wait)) == (0, 0)
    assert {each["result"] for each in results if each["account"] != "acme"} <= {"closed", "already closed"}
    assert [each["statement_id"] for each in (await rate("list"))[1]] == [f"{month}.p{day}" for day in range(4)]


@pytest_twisted.ensureDeferred
async def test_other_prices_are_compared_and_nothing_is_changed(rate, postgresql):
    await written(rate, requests(FIRST, 20_000), requests(FIRST + timedelta(days=1), 7_000, "lab"))
    assert (await rate("keys", "generate"))[0] == 0
    month = f"{FIRST:%Y-%m}"
    assert (await rate("close", month, "--account", "acme", *GAPS))[0] == 0
    other = rate.directory / "new.toml"
    other.write_text(BOOK.replace('"0.20"', '"0.40"'))

    def contents():
        tables = ("statement", "usage_day", "usage_atom", "usage_sku", "price_book")
        return [postgresql.execute(f"SELECT * FROM {table} ORDER BY 1, 2", rate.dsn) for table in tables]

    before = contents()
    status, found = await rate("diff", "--book", str(other), "--period", month)
    assert status == 0
    assert [(each["project"], each["old"], each["new"], each["closed"]) for each in found] == [
        ("lab", "1.40", "2.80", False),
        ("shop", "3.50", "5.50", True),
    ]
    other.write_text(other.read_text().replace("1/1000", "1/2000"))  # measured in another way
    status, found = await rate("diff", "--book", str(other), "--period", month)
    assert [each["new"] for each in found] == ["1.40", "4.00"]
    assert contents() == before
