"""Hours that are finalized while faults are done: each final hour must have as many samples in its rollups as are stored of it.

Also if it was finalized while a server was away, or transactions were in doubt.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.chaos.site import Site

FINAL = """
SELECT r.start::text, r.series_id, sum(r.count)::bigint FROM rollup r JOIN final_period f USING (hours, start)
JOIN series ON series.id = r.series_id AND series.resource_id > 0
WHERE hours = 1 AND NOT EXISTS (SELECT FROM changed_series c WHERE c.start = r.start) GROUP BY 1, 2
"""
"""Samples of each final hour and series by the rollups; not those of whole projects."""

SAMPLES = """
WITH counts AS MATERIALIZED (
    SELECT date_trunc('hour', timestamp) AS start, series_id, count(*) AS count FROM sample GROUP BY 1, 2
)
SELECT counts.start::text, series_id, count FROM counts JOIN final_period f ON f.hours = 1 AND f.start = counts.start
"""

MORE_COUNTS = 4


@contextmanager
def finalizing(site: Site) -> Iterator[None]:
    """Finalize all hours again and again."""
    finalizer = site.process_of("finalizer")
    try:
        yield
        assert finalizer.poll() is None, "the finalizer has ended"
    finally:
        finalizer.kill()
        finalizer.wait()


def final_differences(site: Site) -> list[str]:
    """Finalize all hours; return where a final hour has not as many samples of a series as are stored.

    Agents go on while rollups and samples are counted, one after the other, and a new sample makes its hour final no longer. So what
    differs is counted again: an hour that is final with other samples than are stored stays so.
    """
    differences = differences_now(site)
    for _ in range(MORE_COUNTS):
        if differences:
            differences = [each for each in differences_now(site) if each in differences]
    return differences


def differences_now(site: Site) -> list[str]:
    """Finalize and count once."""
    finalizer = site.process_of("finalizer", "once")
    try:
        finalizer.wait(120)
    except subprocess.TimeoutExpired:
        return ["hours do not become final"]
    finally:
        finalizer.kill()
        finalizer.wait()
    final = {(hour, series): count for hour, series, count in site.postgresql.execute(FINAL, site.dsn)}
    stored = {(hour, series): count for hour, series, count in site.postgresql.execute(SAMPLES, site.dsn)}
    if not stored:
        return ["no hour is final"]
    return [
        f"the hour of {hour} has {final.get((hour, series), 0)} of {stored.get((hour, series), 0)} samples of series {series}"
        for hour, series in sorted(final.keys() | stored.keys())
        if final.get((hour, series)) != stored.get((hour, series))
    ]
