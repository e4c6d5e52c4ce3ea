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
from meter.completeness_query import ClosingReason
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import ICompletenessLedger
from meter.rating.period import BillingPeriod
from meter.rating.period import start_of_day
from meter.rating.statements.payers import Payer
from meter.sample import utc_text

ACCEPTABLE = frozenset(("samples missing", "agent silent", "reports outstanding", "nothing expected"))
"""Reasons of the ledger that can be accepted at the close. The others end by themselves: wait for it."""

MAX_NAMED_PROJECTS = 10


@dataclass(frozen=True, slots=True)
class ClosingProblem:
    """A reason against a close. One that is ``acceptable`` does not count if the gaps are accepted."""

    code: str
    text: str
    acceptable: bool = False


def end_of_grace(period: BillingPeriod, grace_days: int) -> datetime:
    """Return when the days of grace after ``period`` are over."""
    return start_of_day(period.until + timedelta(days=grace_days), period.timezone)


def time_problems(payer: Payer, now: datetime) -> Iterator[ClosingProblem]:
    """Yield whether the period is not over, or its days of grace are not."""
    period, grace = payer.period, payer.book.grace_days
    if now < period.end:
        yield ClosingProblem("period not over", f"the period {period.name} ends at {utc_text(period.end)}")
    elif now < (until := end_of_grace(period, grace)):
        days = "1 day" if grace == 1 else f"{grace} days"
        text = f"late samples are waited for: the {days} of grace end at {utc_text(until)}"
        yield ClosingProblem("grace not over", text)


async def ledger_reasons(ledger: ICompletenessLedger, payer: Payer, now: datetime) -> list[ClosingReason]:
    """Return the ledger's reasons against closing the period of the account's projects; those of one kind are taken together."""
    reasons: dict[str, list[ClosingReason]] = {}
    start, end = payer.period.start, payer.period.end
    for project_id in payer.projects:
        query = CompletenessQuery(start=start, end=end, project_id=project_id)
        reasons[project_id] = list((await ledger.closable(query, now)).reasons)
    return merged_reasons(reasons)


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
