"""How long a range query in PromQL takes, beside the same question as statistics, in the same run.

230 instances of 20 projects are polled every 300 s, as in ``benchmarks/store_read.py``; hours and days are finalized. A query
over all days by the hour is evaluated, and the store is asked for the statistics that it is about, grouped by resource, without
the labels that PromQL adds. Printed are milliseconds and the ratio. The values are compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from benchmarks.store_read import INSTANCES
from benchmarks.store_read import TODAY
from benchmarks.store_read import fill
from benchmarks.store_read import milliseconds
from benchmarks.store_read import opened
from meter.api.auth.requester import Requester
from meter.api.auth.visibility import VisibleStore
from meter.api.prometheus.evaluation import evaluate_range
from meter.api.prometheus.results import Matrix
from meter.api.prometheus.source import PromqlSource
from meter.daemon.shared_slices import SharedSlices
from meter.query import Aggregate
from meter.query import AggregateFunction
from meter.query import Grouping
from meter.query import SampleFilter
from meter.query import Statistics
from meter.query import StatisticsQuery

HOUR = 3600


@dataclass(frozen=True, slots=True)
class PromqlCase:
    """An expression, and the statistics with the same values: of ``meter``, grouped by one field, whose label is ``label``."""

    expression: str
    meter: str
    function: AggregateFunction
    groupby: Grouping = "resource_id"
    label: str = "resource"


CASES = {
    "increase per resource": PromqlCase("increase(ceilometer_cpu[1h])", "cpu", "increase"),
    "average per resource": PromqlCase("avg_over_time(ceilometer_memory_usage[1h])", "memory.usage", "avg"),
    "newest per resource": PromqlCase("ceilometer_memory_usage", "memory.usage", "last"),
    "increase per project": PromqlCase(
        "sum by (project) (increase(ceilometer_cpu[1h]))", "cpu", "increase", "project_id", "project"
    ),
}


async def measure(reactor: Any, report: Report, dsn: str, options: argparse.Namespace) -> None:
    maintaining = await opened(reactor, dsn, maintain=True)
    await fill(maintaining, dsn, options.days, options.instances)
    await maintaining.stopService()
    store = await opened(reactor, dsn)
    source = PromqlSource(
        store=VisibleStore(store, Requester(is_admin=True)),
        slices=SharedSlices(reactor).of("benchmark"),
        visible_project=None,
    )
    start = TODAY - timedelta(days=options.days)
    table = Table(f"{options.days} days by the hour, {options.instances} resources")
    for name, case in CASES.items():
        query = StatisticsQuery(
            filter=SampleFilter(equals={"meter": case.meter}, start=start - timedelta(hours=1), end=TODAY),
            period=HOUR,
            groupby=(case.groupby,),
            aggregates=(Aggregate(case.function),),
        )
        for run in range(options.runs + 1):
            plain, rows = await milliseconds(store.statistics(query))
            took, answer = await milliseconds(
                evaluate_range(
                    case.expression, (start + timedelta(hours=1)).timestamp(), TODAY.timestamp(), HOUR, source
                )
            )
            if run:  # the first reads pages from disk
                table.add(f"{name}, statistics", plain, "ms")
                table.add(f"{name}, PromQL", took, "ms", f"{name}, statistics")
        assert isinstance(answer.result, Matrix)
        report.compare(name, _of_statistics(case, rows, start), _of_promql(case, answer.result))
    report.table(table)
    await store.stopService()


def _of_statistics(
    case: PromqlCase, rows: list[Statistics], start: datetime
) -> Mapping[tuple[str | None, datetime], float]:
    """Return the values by group and end of window. Windows before ``start`` have the samples from which steps lead."""
    return {
        (row.group[case.groupby], row.period_end): _rounded(row.values[case.function])
        for row in rows
        if row.period_start >= start
    }


def _of_promql(case: PromqlCase, matrix: Matrix) -> Mapping[tuple[str | None, datetime], float]:
    return {
        (dict(series.labels)[case.label], datetime.fromtimestamp(point.time, UTC)): _rounded(point.value)
        for series in matrix.series
        for point in series.points
    }


def _rounded(value: float) -> float:
    """Return ``value`` with twelve digits: sums depend on the order of their terms."""
    return float(f"{value:.12g}")


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    if options.dsn:
        report.line(measuring.settings_of("as it is", options.dsn))
        await measure(reactor, report, options.dsn, options)
        return
    for mode in measuring.modes(options):
        with measuring.postgresql_server(report, mode, options) as server:
            await measure(reactor, report, server.dsn(), options)


def main() -> None:
    parser = measuring.with_postgresql(measuring.parser(__doc__), "not-durable")
    parser.add_argument("--days", type=int, default=30, help="of samples (%(default)s)")
    parser.add_argument(
        "--instances", type=int, default=INSTANCES, help="at least 8, 1 445 samples a day each (%(default)s)"
    )
    parser.add_argument("--dsn", help="a database that keeps the samples, instead of a private server")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
