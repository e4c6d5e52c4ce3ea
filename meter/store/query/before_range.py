"""SQL that looks up what was before a range, for steps: whether a run was counted or a resource deleted, and whether a poll is still valid.

PostgreSQL plans each week that a look-up may read, and these may read all weeks before the start. With :class:`WeeksBefore` it plans few of
them: rollups tell which series have samples in the others, as long as all hours there are final. The statement tells whether they are, and
whether nothing else is missing; if not, it is executed again without them.
"""

from __future__ import annotations

from datetime import datetime

from meter.counter_runs import INTERVALS_CARRIED
from meter.counter_runs import RunKind
from meter.sample import DELETED
from meter.sample import EXISTED_THROUGHOUT
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled
from meter.store.query.packed_parts import NO_START
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.partials import SPARSE_GAPS
from meter.store.query.sample_rows import sample_columns
from meter.store.query.sample_rows import samples_between
from meter.store.query.series_ends import WeeksBefore


def _is_run(name: str) -> str:
    return f"coalesce(run_kind = {RunKind.DECLARED:d} AND run_id = (SELECT id FROM run WHERE name = '{name}'), false)"


IS_DELETED = _is_run(DELETED)
IS_MEASURED = f"polling_interval > 0 AND NOT {_is_run(EXISTED_THROUGHOUT)}"
"""The condition that a poll has measured what is in use, instead of reading what a service has recorded, as its notifications do."""

OF_SERIES = "p.series_id = x.id"
JUST_BEFORE = f"{{start}} - make_interval(secs => {INTERVALS_CARRIED} * x.polling_interval)"

EXISTS_BEFORE = "EXISTS (SELECT FROM {samples_before} WHERE s.series_id = x.id AND s.timestamp {before_start}{in_weeks}{unexpired} AND {as_of} OFFSET 0)"
IN_ROLLUPS = """EXISTS (
    SELECT FROM rollup r
    WHERE r.hours IN (1, 24) AND r.series_id = x.id AND r.start {before_start} AND r.last {before_start}{retained} OFFSET 0
)"""
"""The condition that the series ``x`` has a sample before the range, or had one that expired: a sample is voided together with its rollups."""

RETAINED = """
        AND {time} >= coalesce((SELECT max(c.before) FROM retention_cutoff c WHERE c.meter IN (m.name, '')), '-infinity')"""
"""A condition that follows others: what is at that time of the meter ``m`` has not expired. Packed samples outlive their expiry by some hours."""

# Evaluated for the first partial of a run that seems to begin in the range.
COUNTED_BEFORE = """coalesce((
    SELECT true
    FROM meter m
    CROSS JOIN LATERAL (
        SELECT x.id FROM series x WHERE x.meter_id = m.id AND x.resource_id = visit_maximum.resource_id
            AND x.run_kind = visit_maximum.run_kind AND x.run_id = visit_maximum.run_id
        OFFSET 0
    ) AS x
    WHERE m.name = visit_maximum.meter AND m.unit = visit_maximum.unit AND {exists_before}
    LIMIT 1
), false)"""

# Evaluated for the first partial of each resource.
DELETED_BEFORE = f"""coalesce((
    SELECT true
    FROM meter m
    CROSS JOIN LATERAL (
        SELECT x.id FROM series x WHERE x.meter_id = m.id AND x.resource_id = of_resource.resource_id AND {IS_DELETED} OFFSET 0
    ) AS x
    WHERE m.name = of_resource.meter AND {{exists_before}}
    LIMIT 1
), false)"""

COVERED_BEFORE = f"""(
    SELECT s.timestamp + make_interval(secs => {INTERVALS_CARRIED} * x.polling_interval)
    FROM meter m
    CROSS JOIN LATERAL (
        SELECT x.id, x.polling_interval FROM series x
        WHERE x.meter_id = m.id AND x.resource_id = resource_step.resource_id AND {IS_MEASURED}
        OFFSET 0
    ) AS x
    CROSS JOIN LATERAL (
        SELECT s.timestamp, s.message_id FROM {{samples_just_before}}
        WHERE s.series_id = x.id AND s.timestamp {{before_start}} AND {{as_of}}
            AND s.timestamp > {JUST_BEFORE}{{since}}
        ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 1
    ) AS s
    WHERE m.name = resource_step.meter
    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 1
)"""

# Of polls before the first of the weeks, only those of series that are polled so seldom can be valid.
COVERED_IN_WEEKS = f"""coalesce({COVERED_BEFORE}, (
    SELECT '-infinity'::timestamptz
    FROM meter m
    CROSS JOIN LATERAL (
        SELECT FROM series x
        WHERE x.meter_id = m.id AND x.resource_id = resource_step.resource_id AND {IS_MEASURED} AND {JUST_BEFORE} < {{first_week}}
        OFFSET 0
    ) AS x
    WHERE m.name = resource_step.meter
    LIMIT 1
))"""

COVER_KNOWN = "covered_until IS DISTINCT FROM '-infinity'"
"""The condition that the weeks suffice to tell until when a poll before the range is valid."""

ALL_FINAL = "NOT EXISTS (SELECT FROM ({gaps}) AS gap WHERE gap.start < {start} AND NOT (true{in_weeks}))"


class BeforeRange:
    """Look-ups before the ``start`` of a range, ``None`` if it has none; ``excluded`` if the range begins after that time.

    ``as_of`` is a condition on a row ``s`` of ``sample``; ``with_rollups`` if rollups are read where samples have expired. With ``weeks``,
    for which there must be a start and no ``as_of``, samples of these alone are looked up, and rollups of all.
    """

    def __init__(
        self,
        start: datetime | None,
        *,
        excluded: bool,
        as_of: Sql,
        with_rollups: bool,
        weeks: WeeksBefore | None = None,
    ) -> None:
        self._start = start
        self._weeks = weeks
        self._parts: dict[str, Sql | str] = {
            "before_start": Sql(f"{'<=' if excluded else '<'} %s", (start,)),
            "start": self._at(),
            "as_of": as_of,
            "in_weeks": weeks.all.of_samples if weeks else "",
            "since": Sql(" AND s.timestamp >= %s", (weeks.first,)) if weeks else "",
            "first_week": Sql("%s", (weeks.first,)) if weeks else "",
            "retained": "" if with_rollups else RETAINED.format(time="r.start"),
            "unexpired": "" if with_rollups else RETAINED.format(time="s.timestamp"),
            "samples_before": samples_between(
                sample_columns("s.series_id", as_of),
                TimeBounds(NO_START, self._at()),
                series=OF_SERIES,
                packed=filled("true{of_rows}", of_rows=weeks.all.of_rows) if weeks else "true",
            ),
            "samples_just_before": samples_between(
                sample_columns("s.series_id, s.message_id", as_of),
                TimeBounds(filled(JUST_BEFORE, start=self._at()), self._at()),
                series=OF_SERIES,
                packed=Sql("p.first >= %s", (weeks.first,)) if weeks else "true",
            ),
        }
        in_samples, in_rollups = (filled(each, **self._parts) for each in (EXISTS_BEFORE, IN_ROLLUPS))
        either = "({rollups} OR {samples})" if weeks else "({samples} OR {rollups})" if with_rollups else "({samples})"
        self._parts["exists_before"] = filled(either, samples=in_samples, rollups=in_rollups)

    def counted(self) -> Sql:
        """Return the condition that the run of a row of ``visit_maximum`` was counted before the range."""
        return self._lookup(COUNTED_BEFORE, "false")

    def deleted(self) -> Sql:
        """Return the condition that the resource of a row of ``of_resource`` was deleted before the range."""
        return self._lookup(DELETED_BEFORE, "false")

    def covered(self) -> Sql:
        """Return the time until which a poll before the range is valid for the resource of a row of ``resource_step``."""
        return self._lookup(COVERED_IN_WEEKS if self._weeks else COVERED_BEFORE, "NULL::timestamptz")

    def all_final(self) -> Sql:
        """Return the condition that rollups tell of all samples before the range that are not of the weeks."""
        if self._weeks is None:
            return Sql("true")
        return filled(ALL_FINAL, gaps=SPARSE_GAPS, start=self._at(), in_weeks=self._weeks.all.of_gaps)

    def _at(self) -> Sql:
        return Sql("%s::timestamptz", (self._start,))

    def _lookup(self, template: str, unbounded: str) -> Sql:
        return Sql(unbounded) if self._start is None else filled(template, **self._parts)
