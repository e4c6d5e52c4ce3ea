"""What an operator wants to know of each step of the schema before it is applied: ``meter-db upgrade --dry-run`` tells it.

tests/integration/test_schema_upgrade.py compares the locks with those that PostgreSQL has taken, and demands an entry for each step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from types import MappingProxyType

ALTERS = "ACCESS EXCLUSIVE"
"""Nobody else reads or writes the table until the upgrade is over."""

TRIGGERS = "SHARE ROW EXCLUSIVE"
"""Others read the table, and nobody writes it, until the upgrade is over."""

INDEXES = "SHARE"
"""Others read the table, and nobody writes it, until the upgrade is over."""

GO_ON = "go on over the connections that they have"
NO_DAEMONS = "there are none"
STOP_COLLECTORS = "stop collectors of earlier versions before: "


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """Facts about one step. ``locks``: tables that were there before, each with the strongest lock that keeps others from writing.

    ``reads``: tables that it reads as a whole. ``writes``: tables that it writes as a whole, or whose index it builds.
    ``earlier_daemons``: what daemons of versions that do not know the step may do after it.
    """

    does: str
    locks: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    earlier_daemons: str = GO_ON


UNKNOWN = StepFacts(does="is not described", earlier_daemons="unknown")
"""Facts about a step that has no entry."""

OF_LEDGER = (
    "cycle_run",
    "metered_resource",
    "polling_exception",
    "inactive_pollster",
    "off_schedule_poll",
    "rejected_sample",
    "late_sample",
)
"""Tables with the triggers of the completeness ledger."""

FACTS: Mapping[int, StepFacts] = MappingProxyType(
    {
        1: StepFacts(does="Makes the tables of samples, series, metadata and rollups.", earlier_daemons=NO_DAEMONS),
        2: StepFacts(
            does="Makes the tables of signed batches, and adds the place in its batch to each sample without rewriting any.",
            locks={"sample": ALTERS},
        ),
        3: StepFacts(
            does="Makes the audit log and the table of voided samples, voids samples whose volume is out of bounds, and forbids such samples.",
            locks={"sample": ALTERS},
            reads=("sample", "sample", "rollup"),
            earlier_daemons=STOP_COLLECTORS + "they would store a repeat of a voided sample again",
        ),
        4: StepFacts(does="Makes the table of API tokens."),
        5: StepFacts(
            does="Replaces the index of series by resource by one by resource and project.",
            locks={"series": ALTERS},
            reads=("series",),
            writes=("series",),
        ),
        6: StepFacts(
            does="Makes an index of voided samples by time.",
            locks={"voided_sample": INDEXES},
            reads=("voided_sample",),
            writes=("voided_sample",),
        ),
        7: StepFacts(
            does="Makes the tables of the completeness ledger, of late and rejected samples, and of heartbeats."
        ),
        8: StepFacts(does="Makes the tables of names of projects, domains and users."),
        9: StepFacts(
            does="Makes the table of series whose samples changed after their hour was final.",
            earlier_daemons=STOP_COLLECTORS
            + "they would not say which series a late sample changes, and rollups could lack it",
        ),
        10: StepFacts(
            does="Makes the daily numbers of the completeness ledger, and the triggers that say which are out of date.",
            locks=dict.fromkeys(OF_LEDGER, TRIGGERS),
        ),
        11: StepFacts(does="Makes the tables of usage, from which statements are rated."),
        12: StepFacts(
            does="Makes the tables of closed statements and of price books, and the triggers that refuse changes of them."
        ),
        13: StepFacts(does="Makes the tables of budgets and webhooks."),
        14: StepFacts(
            does="Makes the hourly numbers of the completeness ledger, an index of voided samples by series, and other triggers of the ledger.",
            locks={**dict.fromkeys(OF_LEDGER, ALTERS), "voided_sample": INDEXES},
            reads=("voided_sample", "polling_exception"),
            writes=("voided_sample", "polling_exception"),
            earlier_daemons=STOP_COLLECTORS + "they would leave hourly numbers that a late sample has made wrong",
        ),
        15: StepFacts(
            does="Makes the tables of packed weeks.",
            earlier_daemons="go on until the first week is packed, which they could not read",
        ),
        16: StepFacts(
            does="Makes the table of totals by minute.",
            earlier_daemons=STOP_COLLECTORS + "they would leave totals of minutes that a late sample has made wrong",
        ),
        17: StepFacts(
            does="Makes the tables of archived weeks, and marks no row of the packed weeks as archived, without rewriting any.",
            locks={"packed_samples": ALTERS},
            earlier_daemons="go on until the first week is archived, which they could not read",
        ),
        18: StepFacts(
            does="Makes the table of totals of meters by hour and day, and marks no final hour or day as having them.",
            locks={"final_period": ALTERS},
            earlier_daemons=GO_ON
            + "; hours that they finalize have no totals of meters, and are read from the rollups of the owners",
        ),
        19: StepFacts(
            does="Makes an index of the series of each meter by the time until which they may have samples.",
            locks={"series": INDEXES},
            reads=("series",),
            writes=("series",),
        ),
        20: StepFacts(
            does="Makes the functions that read archived rows together, and the columns that say which weeks are lost.",
            locks={"archived_week": ALTERS},
            earlier_daemons=GO_ON + "; messages whose id may be that of a sample in a lost week wait at theirs",
        ),
        21: StepFacts(
            does="Makes the table of the resources of metadata, the triggers that fill it from now on, and an index of the values in metadata.",
            locks={"metadata": TRIGGERS, "resource": TRIGGERS, "sample": TRIGGERS},
            reads=("metadata",),
            writes=("metadata",),
        ),
        22: StepFacts(
            does="Replaces the functions that read archived rows by ones that read only the rows that were moved to the archive server.",
        ),
    }
)


def facts_of(step: int) -> StepFacts:
    """Return the facts about the step with this number."""
    return FACTS.get(step, UNKNOWN)
