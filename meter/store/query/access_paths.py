"""Access paths: which index a statement may use, and joins whose order PostgreSQL cannot change.

PostgreSQL chooses indexes and join orders by its estimates, which are wrong for new samples. Therefore indexes on time alone
are partial, with a condition that is true of every row: only a statement that contains the condition can use the index. All
other statements find samples by series and time. docs/decisions/0009-plans.rst has the reasons.
"""

from __future__ import annotations

from enum import Enum

IN_ORDER_OF_TIME = "s.wire_format_id >= -2147483648"
"""Makes the index on the timestamp of samples ``s`` usable. True of every row: no integer is smaller."""

IN_ORDER_OF_RECORDING = "s.metadata_id >= -2147483648"
"""Makes the index on ``recorded_at`` of samples ``s`` usable. Also true of every row."""

ROLLUPS_BY_START = "{}.metadata_run >= -32768"
"""Makes the index on the start of rollups usable. True of every row: no small integer is smaller."""

SERIES_OF_SAMPLE = "CROSS JOIN LATERAL (SELECT * FROM series x WHERE x.id = s.series_id OFFSET 0) x"
"""Joins the series ``x`` of each sample ``s``. It must follow ``s``; OFFSET 0 keeps PostgreSQL from finding ``s`` by ``x``."""

METADATA_OF_SAMPLE = "CROSS JOIN LATERAL (SELECT d.document FROM metadata d WHERE d.id = s.metadata_id OFFSET 0) d"
"""Joins the metadata ``d`` of each sample ``s``, in the same way."""

OWNER_SERIES = """LATERAL (
    SELECT o.id, o.retained_until FROM series o
    WHERE (o.meter_id, o.resource_id, o.user_id, o.project_id, o.source_id, o.run_kind, o.run_id, o.polling_interval)
        = (x.meter_id, 0, x.user_id, x.project_id, x.source_id, 0, 0, 0)
    OFFSET 0
) o"""
"""The series ``o`` without a resource of the owner of ``x``, looked up by its key.

PostgreSQL takes the conditions for independent and expects one such series, where each owner of each meter has one: it would
compare all of them with each row.
"""

FEW_SERIES = "SELECT sqrt(greatest(reltuples, 100))::bigint AS few FROM pg_class WHERE oid = 'series'::regclass"
"""How many series or resources are few, so that many index lookups, one for each, are cheap: the square root of the number of all series."""

NEWEST_FIRST = "SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off; "
"""Begins a statement that reads a few samples in the order of an index, so that PostgreSQL does not sort a whole range instead.

PostgreSQL would sort a range that it estimates to be small. Incremental sorting, within one timestamp, has a setting of its own and
stays enabled.
"""

BY_INDEXES = f"{NEWEST_FIRST}SET LOCAL enable_seqscan = off; "
"""The same for a statement that looks up each row of a page: PostgreSQL would rather scan a table of a few hundred rows each time."""


class AccessPath(Enum):
    """How the samples that match a filter are found."""

    MESSAGE_ID = "unique index of message ids, in each partition"
    RECORDED_AT = "index on recorded_at"
    SERIES = "index on series and timestamp"
    TIMESTAMP = "index on timestamp"
