"""SQL for whether a ``gap``, a time without final hours, has samples at all, whatever their series.

A gap without samples is then looked at once, and not once for each series. OFFSET 0 makes each look-up one walk along an index.
"""

from __future__ import annotations

from meter.store.packing.packed_rows import overlaps
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import alternative
from meter.store.postgres.sql import filled
from meter.store.query.access_paths import IN_ORDER_OF_TIME
from meter.store.query.sample_rows import OF_ANY_SERIES

PLAIN_ON_ONE_SERVER = f"""
        SELECT FROM sample s WHERE {IN_ORDER_OF_TIME} AND s.timestamp >= gap.start AND s.timestamp < gap.finish AND {{range}} OFFSET 0
"""
PLAIN_IN_SPREAD_STORE = """
        SELECT FROM spread_samples_in_order(NULL, gap.start, gap.finish, true, 0, 1, false) s WHERE s.timestamp < gap.finish
"""

PLAIN_OF_GAP = alternative(PLAIN_ON_ONE_SERVER.format(range="true"), PLAIN_IN_SPREAD_STORE)
"""The subquery that has a row if a sample that is not packed lies in ``gap``."""

_PACKED = f"""
        SELECT FROM packed_samples p WHERE {OF_ANY_SERIES} AND {overlaps("gap.start", "gap.finish")}{{of_rows}} OFFSET 0
"""
PACKED_OF_GAP = _PACKED.format(of_rows="")
"""The subquery that has a row if a packed sample may lie in ``gap``: its row has samples before, in or after it."""

_SAMPLED_GAP = f"""sampled_gap AS MATERIALIZED (
    SELECT gap.start, gap.finish FROM gap WHERE EXISTS ({PLAIN_ON_ONE_SERVER}) OR EXISTS ({PACKED_OF_GAP})
)"""


def may_have_samples(of_samples: Sql | str = "", of_rows: Sql | str = "") -> Sql:
    """Return the condition that ``gap`` may have samples; where the store is on one server, samples of the weeks that the conditions select.

    Those are ``of_samples``, on plain ones, and ``of_rows``, on packed ones, which both follow others.
    """
    plain = filled(PLAIN_ON_ONE_SERVER, range=filled("true{of_samples}", of_samples=of_samples))
    return filled(
        "EXISTS ({plain}) OR EXISTS ({packed})",
        plain=alternative(plain, PLAIN_IN_SPREAD_STORE),
        packed=filled(_PACKED, of_rows=of_rows),
    )


def sampled_gaps_table(range: Sql) -> Sql:
    """Return the common table expression ``sampled_gap``: those rows of the table ``gap`` that may have samples in ``range``.

    ``range`` is a condition on a sample ``s``. In a spread store it has all rows of ``gap``: there all series of a gap are read at once, and
    looking at the gap before would take as long.
    """
    return alternative(
        filled(_SAMPLED_GAP, range=range), "sampled_gap AS MATERIALIZED (SELECT gap.start, gap.finish FROM gap)"
    )
