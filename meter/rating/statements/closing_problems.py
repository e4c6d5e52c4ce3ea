"""Why the statement of an account may not be closed yet: time, other periods, and what the completeness ledger says."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta

from meter.completeness.ledger.causes import EXPLANATIONS
from meter.completeness_query import NO_PROJECT
from meter.completeness_query import ClosingReason
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import CompletenessRow
from meter.completeness_query import ICompletenessLedger
from meter.counts import counted
from meter.rating.period import BillingPeriod
from meter.rating.period import start_of_day
from meter.rating.statements.payers import Payer
from meter.rating.statements.statement import Statement
from meter.sample import utc_text

ACCEPTABLE = frozenset(("samples missing", "agent silent", "reports outstanding", "nothing expected"))
"""Reasons of the ledger that can be accepted at the close. The others end by themselves: wait for it."""

MAX_NAMED_PROJECTS = 10

MAX_PROJECT_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class ClosingProblem:
    """A reason against a close. One that is ``acceptable`` does not count if the gaps are accepted."""

    code: str
    text: str
    acceptable: bool = False
    samples: int = 0


def end_of_grace(period: BillingPeriod, grace_days: int) -> datetime:
    """Return when the days of grace after ``period`` are over."""
    return start_of_day(period.until + timedelta(days=grace_days), period.timezone)


def time_problems(payer: Payer, now: datetime) -> Iterator[ClosingProblem]:
    """Yield whether the period is not over, or its days of grace are not."""
    period, grace = payer.period, payer.book.grace_days
    if now < period.end:
        yield ClosingProblem("period not over", f"the period {period.name} ends at {utc_text(period.end)}")
    elif now < (until := end_of_grace(period, grace)):
        days = counted(grace, "day")
        text = f"late samples are waited for: the {days} of grace end at {utc_text(until)}"
        yield ClosingProblem("grace not over", text)


def time_zone_problems(payer: Payer, latest: Statement) -> Iterator[ClosingProblem]:
    """Yield that hours are on the account's newest statement, too, or on none: its book had another time zone than it has now."""
    start, end = payer.period.start, latest.period.end
    if end == start or (end < start and latest.period.until != payer.period.first):
        return
    hours = f"{utc_text(min(start, end))} until {utc_text(max(start, end))}"
    what = "billed twice: credit them" if start < end else "on no statement: charge them"
    text = (
        f"{latest.statement_id} was closed in the time zone {latest.period.timezone}, and the book has {payer.period.timezone.key} now:"
        f" {hours} would be {what} by hand, or go back to the former time zone"
    )
    yield ClosingProblem("time zone changed", text, acceptable=True)


class LedgerReasons:
    """The ledger's reasons against closing, for one close at the time ``now``.

    The ledger is asked about each project by itself only where something speaks against closing the period that is not a number of
    samples, such as a silent agent: whom that concerns depends on the project. Else the numbers of all projects tell it.
    """

    def __init__(self, ledger: ICompletenessLedger, now: datetime) -> None:
        self._ledger = ledger
        self._now = now
        self._rows: dict[_Times, Mapping[str, CompletenessRow]] = {}
        self._simple: dict[_Times, bool] = {}

    async def rows(self, period: BillingPeriod) -> Mapping[str, CompletenessRow]:
        """Return the ledger's numbers of all projects in ``period``, by project."""
        times = period.start, period.end
        if times not in self._rows:
            query = CompletenessQuery(start=period.start, end=period.end, group="project_id")
            rows = await self._ledger.completeness(query, self._now, MAX_PROJECT_ROWS)
            self._rows[times] = {row.group or NO_PROJECT: row for row in rows}
        return self._rows[times]

    async def of(self, payer: Payer) -> list[ClosingReason]:
        """Return the reasons for the account's projects; those of one kind are taken together."""
        period = payer.period
        reasons: dict[str, list[ClosingReason]] = {}
        for project_id in payer.projects:
            if await self._is_simple(period):
                reasons[project_id] = _counted((await self.rows(period)).get(project_id))
            else:
                query = CompletenessQuery(start=period.start, end=period.end, project_id=project_id)
                reasons[project_id] = list((await self._ledger.closable(query, self._now)).reasons)
        return merged_reasons(reasons)

    async def _is_simple(self, period: BillingPeriod) -> bool:
        """Whether nothing but numbers of samples speaks against closing the period of all projects."""
        times = period.start, period.end
        if times not in self._simple:
            verdict = await self._ledger.closable(CompletenessQuery(start=period.start, end=period.end), self._now)
            self._simple[times] = all(each.code in ("samples missing", "nothing expected") for each in verdict.reasons)
        return self._simple[times]


_Times = tuple[datetime, datetime]


def _counted(row: CompletenessRow | None) -> list[ClosingReason]:
    """Return the reasons that the numbers of a project are."""
    if row is None or not row.expected:
        return [ClosingReason(code="nothing expected", text="")]
    return [
        ClosingReason(code="samples missing", text="", cause=cause, samples=samples)
        for cause, samples in row.causes.items()
        if samples
    ]


def merged_reasons(reasons: Mapping[str, Sequence[ClosingReason]]) -> list[ClosingReason]:
    """Return the reasons of several projects: each text once, missing samples summed by cause, unreported projects in one text."""
    found: dict[tuple[str, str], ClosingReason] = {}
    unreported: list[str] = []
    for project_id, of_project in reasons.items():
        for each in of_project:
            if each.code == "nothing expected":
                unreported.append(project_id)
            elif each.code == "samples missing" and each.cause is not None:
                before = found.get((each.code, each.cause))
                samples = each.samples + (before.samples if before else 0)
                found[each.code, each.cause] = ClosingReason(
                    code=each.code, text=_missing(each.cause, samples), cause=each.cause, samples=samples
                )
            else:
                found.setdefault((each.code, each.text), each)
    merged = list(found.values())
    if unreported:
        named = ", ".join(unreported[:MAX_NAMED_PROJECTS])
        more = f" and {len(unreported) - MAX_NAMED_PROJECTS} more" if len(unreported) > MAX_NAMED_PROJECTS else ""
        text = f"no agent has reported that it measured anything of the projects {named}{more} in the period"
        if len(unreported) == 1:
            text = f"no agent has reported that it measured anything of project {named} in the period"
        merged.append(ClosingReason(code="nothing expected", text=text))
    return merged


def _missing(cause: str, samples: int) -> str:
    counted = "1 sample is" if samples == 1 else f"{samples} samples are"
    explanations: Mapping[str, str] = {known: text for known, text in EXPLANATIONS.items()}
    return f"{counted} missing ({cause}): {explanations[cause]}"


def ledger_problems(reasons: Iterable[ClosingReason]) -> Iterator[ClosingProblem]:
    """Yield the ledger's reasons as problems; that the period is not over is one of time."""
    for each in reasons:
        if each.code != "period not over":
            yield ClosingProblem(each.code, each.text, each.code in ACCEPTABLE)
