"""``meter-completeness``: how many samples were expected and are missing, where and why, and whether a period may be closed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any
from typing import get_args

from twisted.python import usage

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.command import CommandOptions
from meter.commands.command import configuration
from meter.commands.command import escape_terminal
from meter.commands.command import run
from meter.commands.command import time_option
from meter.commands.database import ready_store
from meter.completeness_query import Closable
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import CompletenessRow
from meter.completeness_query import Gap
from meter.completeness_query import GroupField
from meter.completeness_query import Resolution
from meter.counts import counted
from meter.interfaces import RequestError
from meter.sample import utc_text
from meter.settings import Config
from meter.store import PostgresStore

MAX_ROWS = 100_000
MAX_GAPS = 1_000
"""Rows and gaps that are written at most."""


class Options(CommandOptions):
    """The options of ``meter-completeness``."""

    synopsis = "Usage: meter-completeness [--config FILE] [--start TIME] [--end TIME] [--project ID] [--json]"
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["start", None, None, "Start of the period, such as 2026-11-01T00:00 (UTC). [default: one day before its end]"],
        ["end", None, None, "End of the period (exclusive). [default: now]"],
        ["project", "p", None, "Only resources of this project."],
        ["resource", "r", None, "Only this resource."],
        ["meter", "m", None, "Only this meter."],
        ["agent", "a", None, "Only samples of this agent, such as meter-compute@host."],
        ["by", None, None, "One row for each 'hour' or 'day' (UTC)."],
        ["group", "g", None, "One row for each 'agent', 'project_id', 'meter' or 'resource_id'."],
    ]
    optFlags = [  # noqa: N815, RUF012
        ["closable", None, "Say whether the period may be closed, and the reasons against it."],
        ["json", None, "Write one JSON object per line."],
    ]

    def postOptions(self) -> None:
        """Check the values of --by and --group."""
        for name, allowed in (("by", get_args(Resolution)), ("group", get_args(GroupField))):
            if self[name] is not None and self[name] not in allowed:
                raise usage.UsageError(f"--{name} must be {' or '.join(allowed)}, not {self[name]}")


def main() -> None:
    """Run ``meter-completeness``."""
    run(Options(), sys.argv[1:], work)


async def work(reactor: Any, options: Any) -> int:
    """Write the answer; return the exit status, :data:`EXIT_FOUND_PROBLEMS` if something is missing."""
    config = configuration(options["config"])
    now = datetime.fromtimestamp(reactor.seconds(), UTC)
    query = query_of(options, now)
    async with ready_store(reactor, config, lambda dsn: store_of(reactor, config, dsn)) as store:
        try:
            return await answer(store, query, now, closable=bool(options["closable"]), as_json=bool(options["json"]))
        except RequestError as error:
            raise CommandError(str(error)) from error


def store_of(reactor: Any, config: Config, dsn: str) -> PostgresStore:
    """Return the store at ``dsn``, which judges by the settings by which the collector and the API judge."""
    return PostgresStore(
        reactor,
        dsn,
        clock=reactor,
        migrate=False,
        readers=1,
        writers=0,
        statement_timeout_seconds=config.store.statement_timeout_seconds,
        finalize_after_seconds=config.store.finalize_after_seconds,
        application_name="meter-completeness",
    )


def query_of(options: Any, now: datetime) -> CompletenessQuery:
    """Return the query that the options state; :class:`CommandError` if the period is empty."""
    end = time_option(options, "end") or now
    start = time_option(options, "start") or end - timedelta(days=1)
    if start >= end:
        raise CommandError(f"--start must be before --end; got {utc_text(start)} and {utc_text(end)}")
    return CompletenessQuery(
        start=start,
        end=end,
        project_id=options["project"],
        resource_id=options["resource"],
        meter=options["meter"],
        agent=options["agent"],
        by=options["by"],
        group=options["group"],
    )


async def answer(store: Any, query: CompletenessQuery, now: datetime, *, closable: bool, as_json: bool) -> int:
    """Write the answer of ``store``, an ``ICompletenessLedger``; return the exit status."""
    if closable:
        verdict: Closable = await store.closable(query, now)
        _write([closable_json(verdict)] if as_json else closable_lines(verdict), as_json)
        return EXIT_OK if verdict.closable else EXIT_FOUND_PROBLEMS
    rows: Sequence[CompletenessRow] = await store.completeness(query, now, MAX_ROWS + 1)
    gaps: Sequence[Gap] = []
    if any(row.missing for row in rows):
        gaps = await store.completeness_gaps(query, now, MAX_GAPS + 1)
    lines: list[Any] = [(row_json if as_json else row_line)(row) for row in rows[:MAX_ROWS]]
    lines += [(gap_json if as_json else gap_line)(gap) for gap in gaps[:MAX_GAPS]]
    for kind, is_cut, limit in (("rows", len(rows) > MAX_ROWS, MAX_ROWS), ("gaps", len(gaps) > MAX_GAPS, MAX_GAPS)):
        if is_cut:
            text = f"only the first {limit} {kind} are written: narrow the period, or what is selected"
            lines.append({"incomplete": kind, "text": text} if as_json else text)
    _write(lines, as_json)
    return EXIT_FOUND_PROBLEMS if any(row.missing for row in rows) else EXIT_OK


def _write(lines: Sequence[Any], as_json: bool) -> None:
    for line in lines:
        sys.stdout.write((json.dumps(line) if as_json else escape_terminal(line).replace("\n", " ")) + "\n")
    sys.stdout.flush()


def row_line(row: CompletenessRow) -> str:
    """Return a row as text."""
    numbers = (
        f"expected {row.expected}  received {row.received}  unexpected {row.unexpected}  late {row.late}"
        f"  missing {row.missing}"
    )
    percent = "-" if row.percent is None else f"{row.percent:g}%"
    causes = "".join(f"  {cause} {samples}" for cause, samples in row.causes.items())
    return f"{utc_text(row.start)}  {utc_text(row.end)}  {row.group or '-'}  {numbers}  {percent}{causes}"


def gap_line(gap: Gap) -> str:
    """Return a gap as text."""
    end = "now" if gap.end is None else utc_text(gap.end)
    more = f" and {gap.resource_count - len(gap.resources)} more" if gap.resource_count > len(gap.resources) else ""
    place = f"{gap.agent}  {gap.pollster or '-'}  {', '.join(gap.resources)}{more}"
    reason = f"  {gap.reason}" if gap.reason else ""
    return f"gap {utc_text(gap.start)}  {end}  {gap.cause}  {place}  {counted(gap.samples, 'sample')}{reason}"


def row_json(row: CompletenessRow) -> dict[str, Any]:
    """Return a row for JSON."""
    return {
        "start": utc_text(row.start),
        "end": utc_text(row.end),
        "group": row.group,
        "expected": row.expected,
        "received": row.received,
        "unexpected": row.unexpected,
        "late": row.late,
        "missing": row.missing,
        "percent": row.percent,
        "causes": dict(row.causes),
        "skipped": dict(row.skipped),
    }


def gap_json(gap: Gap) -> dict[str, Any]:
    """Return a gap for JSON."""
    return {
        "gap": gap.cause,
        "start": utc_text(gap.start),
        "end": None if gap.end is None else utc_text(gap.end),
        "reason": gap.reason,
        "agent": gap.agent,
        "pollster": gap.pollster,
        "resources": list(gap.resources),
        "resource_count": gap.resource_count,
        "samples": gap.samples,
        "exact": gap.exact,
    }


def closable_lines(verdict: Closable) -> list[str]:
    """Return whether the period may be closed as text."""
    if verdict.closable:
        return ["the period may be closed"]
    return ["the period may not be closed:", *(f"  {reason.text}" for reason in verdict.reasons)]


def closable_json(verdict: Closable) -> dict[str, Any]:
    """Return whether the period may be closed for JSON."""
    reasons = [
        {"code": each.code, "text": each.text, "cause": each.cause, "samples": each.samples, "agent": each.agent}
        for each in verdict.reasons
    ]
    return {"closable": verdict.closable, "reasons": reasons}
