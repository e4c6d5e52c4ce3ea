"""How fast a month is closed and a project previewed, beside adding up the same kept usage in SQL in the same run.

The kept usage of a month is that of benchmarks/rating.py: ``--instances`` with ``--skus`` each, in projects of twenty, each project an account
of its own, or with ``--one-account`` all in one. The ledger is asked as always; what it misses is accepted.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks import measuring
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from benchmarks.rating import DAY
from benchmarks.rating import FILL_NAMES
from benchmarks.rating import OVER
from benchmarks.rating import SAMPLES
from benchmarks.rating import book_of
from benchmarks.rating import execute
from benchmarks.rating import keep_month
from benchmarks.rating import opened
from benchmarks.store_read import milliseconds
from meter.rating.book.book_text import directory_from_text
from meter.rating.book.book_text import with_text
from meter.rating.book.price_book import Account
from meter.rating.book.price_book import Membership
from meter.rating.book.price_book import Place
from meter.rating.book.price_book import Price
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_book import Tier
from meter.rating.period import BillingPeriod
from meter.rating.statements.closing import Closing
from meter.rating.statements.closing_act import ClosingAct
from meter.rating.statements.preview import Previews

CLOSED_AT = datetime(2026, 11, 7, tzinfo=UTC)
MEASURED = 20
"""Instances with samples of a day: their usage is computed, so that the days are known."""


def directory_of(skus: int, projects: Sequence[str]) -> PriceDirectory:
    """Return prices with two tiers for each SKU, and one account with ``projects``, or none."""
    place = Place(file="benchmark.toml", line=1)
    tiers = tuple(
        Tier(up_to=up_to, list_price=Decimal(price), price=Decimal(price))
        for up_to, price in ((Decimal(10_000), "0.0125"), (None, "0.01"))
    )
    book = book_of(skus)
    prices = tuple(
        Price(id=f"price-{id}", sku=id, place=place, tiers=tiers, mode="graduated") for id in sorted(book.skus)
    )
    members = tuple(Membership(id=each) for each in projects)
    accounts = (Account(id="all", name="All", book=book.name, projects=members),) if projects else ()
    book = with_text(replace(book, prices=prices), accounts)
    return PriceDirectory(books={book.name: book}, accounts={each.id: each for each in accounts})


async def measure(reactor: Any, report: Report, dsn: str, options: argparse.Namespace) -> None:
    store = await opened(reactor, dsn)
    pool, usage = store.maintenance._pool, store.rating.usage
    book = book_of(options.skus)
    period = BillingPeriod.named("2026-10", book.timezone)
    await execute(store, FILL_NAMES, {"skus": options.skus, "instances": options.instances})
    await store.maintenance._partitions.ensure([DAY])
    await execute(store, SAMPLES, {"day": DAY, "measured": min(options.instances, MEASURED)})
    measuring.rows(dsn, "VACUUM (ANALYZE)")
    await store.maintenance.finalize(OVER)
    await usage.refresh(book, period, OVER)
    await keep_month(store, book)
    measuring.rows(dsn, "VACUUM (ANALYZE)")
    projects = list(await usage.projects(book, period))
    directory = directory_of(options.skus, projects if options.one_account else ())
    services = (store.rating, store, store, directory, directory_from_text)
    report.line(f"kept rows of the month: {options.instances * options.skus * 31}; projects: {len(projects)}")
    table = Table("closing")
    previews = Previews(*services, correct_periods=2)
    account = "all" if options.one_account else projects[0]
    for _ in range(options.runs):
        adding, [[wanted]] = await milliseconds(pool.rows("SELECT sum(quantity) FROM usage_atom"))
        table.add("adding a kept month up in SQL", adding, "ms")
        took, _ = await milliseconds(previews.preview(account, CLOSED_AT, period.name))
        table.add("preview of one account", took, "ms", "adding a kept month up in SQL")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    closing = Closing(*services, correct_periods=2)
    act = ClosingAct(key=Ed25519PrivateKey.generate(), closed_by="benchmark", accept_gaps="no agent has reported here")
    took, results = await milliseconds(closing.close(period.name, None, act, CLOSED_AT))
    table.add("closing the month", took, "ms")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    table.add("memory that closing took", grown, "MB")
    closed = [each.signed.statement for each in results if each.signed is not None]
    report.compare("closed statements", 1 if options.one_account else len(projects), len(closed))
    quantities = [line.quantity for each in closed for line in each.lines]
    report.compare("sum of the lines' quantities", wanted, sum(quantity or 0 for quantity in quantities))
    took, _ = await milliseconds(closing.close(period.name, None, act, CLOSED_AT + timedelta(minutes=1)))
    table.add("closing it once more", took, "ms")
    report.table(table)
    await store.stopService()


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    for mode in measuring.modes(options):
        with measuring.postgresql_server(report, mode, options) as server:
            await measure(reactor, report, server.dsn(), options)


def main() -> None:
    parser = measuring.with_postgresql(measuring.parser(__doc__), "durable")
    parser.add_argument("--instances", type=int, default=10_000, help="whose usage is kept (%(default)s)")
    parser.add_argument("--skus", type=int, default=20, help="of each instance (%(default)s)")
    parser.add_argument("--one-account", action="store_true", help="one account pays for all projects")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
