"""What agents listed, from the rows of the ledger in memory: the readable reference for ``ILifeStore.life_reports``."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from datetime import timedelta

from meter.completeness.ledger.ledger_changes import CycleRunRow
from meter.completeness.lives.life_store import UNKNOWN_AFTER_INTERVALS
from meter.completeness.lives.life_store import ListedTime
from meter.completeness_query import FOLLOWING_INTERVALS
from meter.testing.memory_completeness import FOREVER
from meter.testing.memory_completeness import MemoryCompletenessStore
from meter.testing.memory_completeness import MeteredResourceRow


def listed_times(
    store: MemoryCompletenessStore, resources: Collection[str], pollsters: Collection[str], as_of: datetime | None
) -> list[ListedTime]:
    """Return when agents listed ``resources`` for one of ``pollsters``, until ``as_of``."""
    names, hosts = store.agent_names, store.agent_hosts
    rows = [row for row in store.metered_resources if row.resource in resources and row.pollster in pollsters]
    found: list[ListedTime] = []
    for row in sorted(rows, key=lambda row: (row.first_due, row.agent)):
        runs = sorted(
            (
                run
                for run in store.cycle_runs
                if (names[run.agent_id], run.interval) == (row.agent, row.interval)
                and row.pollster in run.pollsters
                and (as_of is None or run.last_due <= as_of)
            ),
            key=lambda run: run.first_due,
        )
        silences = sorted([*_silences(row, runs), *_failures(store, row)], key=lambda silence: silence[::-1])
        found += _listed(store, row, runs, hosts).without(silences)
    return found


def _listed(
    store: MemoryCompletenessStore, row: MeteredResourceRow, runs: Sequence[CycleRunRow], hosts: Mapping[str, str]
) -> ListedTime:
    interval = timedelta(seconds=row.interval)
    failed = sum(
        each.cycles
        for each in store.polling_exceptions
        if store.agent_names[each.agent_id] == row.agent
        and each.pollster in (row.pollster, "")
        and not each.resource
        and each.expected
        and each.until_time > row.until_due
    )
    gone = row.until_due != FOREVER and (
        row.ended == "gone" or any(run.last_due >= row.until_due + interval * (failed + 0.5) for run in runs)
    )
    before = _last_before(runs, row.first_due, interval)
    return ListedTime(
        agent=row.agent,
        host=hosts[row.agent],
        pollster=row.pollster,
        resource_id=row.resource,
        project_id=row.project or None,
        interval=row.interval,
        first=row.first_due,
        last=max(_last_before(runs, row.until_due, interval) or row.first_due, row.first_due),
        gone=row.until_due if gone else None,
        unlisted_seconds=None if before is None else (row.first_due - before).total_seconds(),
    )


def _last_before(runs: Sequence[CycleRunRow], time: datetime, interval: timedelta) -> datetime | None:
    """Return the due time of the last cycle before ``time``."""
    earlier = [run for run in runs if run.first_due < time]
    return max((run.last_due if run.last_due < time else time - interval for run in earlier), default=None)


def _failures(store: MemoryCompletenessStore, row: MeteredResourceRow) -> Iterator[tuple[datetime, datetime]]:
    """Yield the last cycle before, and the first one after, each time in which polls of the resource failed for long."""
    interval = timedelta(seconds=row.interval)
    failed = sorted(
        (each.from_time, each.until_time)
        for each in store.polling_exceptions
        if (store.agent_names[each.agent_id], each.interval) == (row.agent, row.interval)
        and each.pollster in (row.pollster, "")
        and each.resource in (row.resource, "")
        and each.cause in ("poll failed", "domain hung", "skipped")
        and each.expected
        and each.until_time > row.first_due
    )
    together: list[tuple[datetime, datetime]] = []
    for begin, end in failed:
        if together and begin <= together[-1][1] + interval / 2:
            together[-1] = together[-1][0], max(together[-1][1], end)
        else:
            together.append((begin, end))
    for begin, end in together:
        if end - begin > (UNKNOWN_AFTER_INTERVALS - 1) * interval and begin < row.until_due:
            yield begin - interval, end


def _silences(row: MeteredResourceRow, runs: Sequence[CycleRunRow]) -> Iterator[tuple[datetime, datetime]]:
    """Yield the last cycle before each silence of the agent and the first one after it, while it listed the resource."""
    longest = timedelta(seconds=FOLLOWING_INTERVALS * row.interval)
    heard: datetime | None = None
    for run in runs:
        if run.last_due >= row.first_due and run.first_due < row.until_due:
            if heard is not None and run.first_due - heard > longest:
                yield heard, run.first_due
            heard = run.last_due if heard is None else max(heard, run.last_due)
