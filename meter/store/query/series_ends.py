"""SQL that finds the first and the last sample of series by their rollups: without them, each week is a look-up for each series.

A rollup of a final hour has the times of its first and its last sample. What it does not tell of is in hours that are not final: mostly
only the newest. So a series takes two look-ups whatever the number of weeks, and a third one in the hours that are not final.

PostgreSQL plans each week that a look-up may read. With :class:`EndWeeks` it plans only those that mostly have all hours that are not final, and
the statement tells whether they have; only if they have not is the answer not complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import both
from meter.store.postgres.sql import either
from meter.store.postgres.sql import filled
from meter.store.query.packed_parts import NO_END
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.partials import SPARSE_GAPS
from meter.store.query.sample_rows import EVER
from meter.store.query.sample_rows import first_of_series
from meter.store.query.sample_rows import sample_columns
from meter.store.query.sampled_gaps import may_have_samples

CUTOFF = """cutoff AS MATERIALIZED (
    SELECT m.id AS meter_id, max(c.before) AS before FROM retention_cutoff c JOIN meter m ON c.meter IN (m.name, '')
    GROUP BY m.id
)"""

# sampled_gap: the times that have samples and no final hours. gaps_known: whether these are all.
ENDS_TABLES = f"""WITH {CUTOFF}, gap AS MATERIALIZED ({SPARSE_GAPS}), gaps_known AS MATERIALIZED (
    SELECT {{known}} AS known
), sampled_gap AS MATERIALIZED (
    SELECT gap.start, gap.finish FROM gap WHERE {{may_have_samples}}
)"""

KNOWN = "NOT EXISTS (SELECT FROM gap WHERE NOT (true{in_weeks}))"

ROLLUP = """
    SELECT {columns} FROM rollup r
    WHERE r.hours = 1 AND r.series_id = x.id
        AND r.start >= coalesce((SELECT cutoff.before FROM cutoff WHERE cutoff.meter_id = x.meter_id), '-infinity')
        AND EXISTS (SELECT FROM final_period p WHERE p.hours = 1 AND p.start = r.start OFFSET 0)
    ORDER BY r.start {direction}, r.metadata_run {direction} LIMIT 1
"""

# Samples since a constant time come first: PostgreSQL plans and reads only the weeks from then on, and the series of resources that exist have
# some. Those of other series are looked up from their last rollup on.
NEWEST = """
    ({recent})
    UNION ALL
    (
        SELECT s.* FROM (SELECT coalesce((SELECT known.last FROM ({rollup}) AS known), '-infinity') AS last OFFSET 0) AS known
        CROSS JOIN LATERAL ({since_last}) AS s
    )
    LIMIT 1
"""

# What is not in the weeks has its time, and the metadata if the rollup is of one document alone; the id is not known.
NEWEST_IN_WEEKS = f"""
    {NEWEST.strip().removesuffix("LIMIT 1")}
    UNION ALL
    (SELECT known.last, NULL::uuid {{metadata_id}} FROM ({{rollup_of_one}}) AS known)
    LIMIT 1
"""

# Rollups of one hour, each of other metadata, can end with the same sample's time.
METADATA_OF_LAST = """CASE WHEN NOT EXISTS (
    SELECT FROM rollup o
    WHERE o.hours = 1 AND o.series_id = r.series_id AND o.start = r.start AND o.metadata_run <> r.metadata_run AND o.last >= r.last OFFSET 0
) THEN r.metadata_id ELSE 0 END"""

OLDEST = """
    SELECT least(known.first, (
        SELECT min(s.timestamp) FROM sampled_gap CROSS JOIN LATERAL ({in_gap}) AS s
        WHERE sampled_gap.finish <= coalesce(known.first, 'infinity')
    )) AS timestamp
    FROM (SELECT (SELECT known.first FROM ({rollup}) AS known) AS first OFFSET 0) AS known
"""

IS_PROVED = """EXISTS (
    SELECT FROM rollup r
    WHERE r.hours = 1 AND r.series_id = ANY({ids})
        AND r.start >= coalesce((SELECT cutoff.before FROM cutoff WHERE cutoff.meter_id = {meter}), '-infinity')
    OFFSET 0
)"""
"""The condition that a rollup proves that one of the series ``{ids}``, which are of one meter, has samples: they are voided together."""

WITHIN_GAP = "s.timestamp >= sampled_gap.start AND s.timestamp < sampled_gap.finish"
OF_GAP = EVER.within("sampled_gap.start", "sampled_gap.finish")
SINCE_LAST = EVER.within("known.last", NO_END)


@dataclass(frozen=True, slots=True)
class EndWeeks:
    """Ranges of whole weeks that mostly have all samples of hours that are not final: each from a Monday to another, ``None`` without limit."""

    ranges: Sequence[tuple[datetime | None, datetime | None]]

    @property
    def of_samples(self) -> Sql:
        """The condition that a sample ``s`` is of these weeks, after others."""
        return self._within("s.timestamp", "s.timestamp", "<")

    @property
    def of_rows(self) -> Sql:
        """The condition that a packed row ``p`` is of these weeks, after others."""
        return self._within("p.first", "p.first", "<")

    @property
    def of_gaps(self) -> Sql:
        """The condition that a ``gap`` is in these weeks, after others."""
        return self._within("gap.start", "gap.finish", "<=")

    @property
    def gaps_known(self) -> Sql:
        """The condition that no ``gap`` is in other weeks."""
        return filled(KNOWN, in_weeks=self.of_gaps)

    def _within(self, first: str, last: str, until: str) -> Sql:
        parts = []
        for start, end in self.ranges:
            since = [] if start is None else [Sql(f"{first} >= %s", (start,))]
            parts.append(both([*since, *([] if end is None else [Sql(f"{last} {until} %s", (end,))])]))
        return filled(" AND ({parts})", parts=either(parts))


@dataclass(frozen=True, slots=True)
class WeeksBefore:
    """In which weeks samples before a time are looked for: in ``all`` of these. Those since the Monday ``first`` follow one another."""

    first: datetime
    all: EndWeeks


ALL = Sql("")
"""The condition that restricts nothing, after others."""


def ends_tables(weeks: EndWeeks | None = None) -> Sql:
    """Return the WITH clause that the subqueries of this module refer to."""
    return filled(
        ENDS_TABLES,
        known=weeks.gaps_known if weeks else "true",
        may_have_samples=may_have_samples(weeks.of_samples, weeks.of_rows) if weeks else may_have_samples(),
    )


def newest_by_rollups(columns: str, recent: Sql, weeks: EndWeeks | None = None) -> Sql:
    """Return the subquery of the newest sample of the series ``x``, with ``columns`` of ``s``; no row if it has none.

    ``recent`` is a constant time, since which most series are expected to have samples; the answer does not depend on it. If the sample is not
    in ``weeks``, it has its time alone: its id is null, and its metadata are 0 unless they are known.
    """
    names = sample_columns(columns)
    since_last = filled("s.timestamp >= known.last{of_samples}", of_samples=weeks.of_samples if weeks else ALL)
    parts: dict[str, Sql | str] = {
        "recent": first_of_series(
            names,
            TimeBounds(recent, NO_END),
            series="x.id",
            condition=filled("s.timestamp >= {recent}", recent=recent),
            limit=1,
        ),
        "rollup": ROLLUP.format(direction="DESC", columns="r.first, r.last"),
        "since_last": first_of_series(
            names,
            SINCE_LAST,
            series="x.id",
            condition=since_last,
            limit=1,
            of_rows=weeks.of_rows if weeks else ALL,
        ),
    }
    if weeks is None:
        return filled(NEWEST, **parts)
    with_metadata = "metadata_id" in names
    return filled(
        NEWEST_IN_WEEKS,
        metadata_id=", known.metadata_id" if with_metadata else "",
        rollup_of_one=ROLLUP.format(
            direction="DESC", columns=f"r.last, {METADATA_OF_LAST} AS metadata_id" if with_metadata else "r.last"
        ),
        **parts,
    )


def oldest_by_rollups(weeks: EndWeeks | None = None) -> Sql:
    """Return the subquery whose row has the ``timestamp`` of the oldest sample of the series ``x``; null if it has none."""
    in_gap = first_of_series(
        ("timestamp", "message_id"),
        OF_GAP,
        series="x.id",
        condition=filled("{gap}{of_samples}", gap=WITHIN_GAP, of_samples=weeks.of_samples if weeks else ALL),
        limit=1,
        oldest=True,
        of_rows=weeks.of_rows if weeks else ALL,
    )
    return filled(OLDEST, rollup=ROLLUP.format(direction="ASC", columns="r.first, r.last"), in_gap=in_gap)


def any_in_weeks(weeks: EndWeeks) -> Sql:
    """Return the subquery that has a row if the series ``x`` has a sample in ``weeks``."""
    return first_of_series(
        ("timestamp", "message_id"),
        EVER,
        series="x.id",
        condition=filled("true{of_samples}", of_samples=weeks.of_samples),
        limit=1,
        of_rows=weeks.of_rows,
    )
