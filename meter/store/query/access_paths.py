"""Access paths: how a statement says which index it may use, and looks rows up whatever PostgreSQL estimates.

PostgreSQL chooses indexes and orders of joins by what it expects to find, and of new samples it expects nothing right. So
indexes on time alone are partial, on a condition that holds for every row: only a statement that names the condition
can use them. All others find samples by series and time. docs/decisions/0009-plans.rst says more.
"""

from __future__ import annotations

IN_ORDER_OF_TIME = "s.wire_format_id >= -2147483648"
"""Makes the index on the time of samples ``s`` usable. True of every row: no integer is smaller."""

IN_ORDER_OF_RECORDING = "s.metadata_id >= -2147483648"
"""Makes the index on ``recorded_at`` of samples ``s`` usable. True of every row, too."""

ROLLUPS_BY_START = "{}.metadata_run >= -32768"
"""Makes the index on the start of rollups usable. True of every row: no small integer is smaller."""

SERIES_OF_SAMPLE = "CROSS JOIN LATERAL (SELECT * FROM series x WHERE x.id = s.series_id OFFSET 0) x"
"""Adds the series ``x`` of each sample ``s``. It must follow ``s``; OFFSET 0 keeps PostgreSQL from looking for ``s`` by ``x``."""

METADATA_OF_SAMPLE = "CROSS JOIN LATERAL (SELECT d.document FROM metadata d WHERE d.id = s.metadata_id OFFSET 0) d"
"""Adds the metadata ``d`` of each sample ``s``, in the same way."""

NEWEST_FIRST = "SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off; "
"""Begins a statement that takes a few samples in the order of an index, and must not sort all there are instead.

PostgreSQL sorts what it expects to be little. Sorting within a moment remains: that has a setting of its own.
"""
