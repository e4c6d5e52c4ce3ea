"""Totals of hours that late samples have changed during an upgrade: what the API answers, beside the stored samples."""

from __future__ import annotations

import json
from datetime import datetime
from datetime import timedelta
from typing import Any

from tests.system.daemons import fetch
from tests.upgrade.questions import query
from tests.upgrade.rolling_site import RollingSite

TRUTH = """
SELECT floor(extract(epoch FROM timestamp - '{start}'::timestamptz) / {seconds})::bigint, count(*), sum(volume)
FROM (
    SELECT timestamp, volume, series_id FROM sample
) AS every JOIN series x ON x.id = series_id JOIN meter m ON m.id = x.meter_id
WHERE m.name = 'late' AND timestamp >= '{start}' AND timestamp < '{end}' GROUP BY 1
"""

CASES = (
    ("by hour", timedelta(0), 3600, ()),
    ("by hour and project", timedelta(0), 3600, (("groupby", "project_id"),)),
    ("by windows that cut hours", timedelta(minutes=2), 420, ()),
    ("by windows that cut hours, and project", timedelta(minutes=2), 420, (("groupby", "project_id"),)),
    ("by day", timedelta(0), 86400, ()),
)


def wrong_totals(site: RollingSite) -> list[str]:
    """Return which totals of the late samples are not those of what is stored, whether rollups answer or samples do."""
    wrong = []
    for name, after, seconds, groups in CASES:
        start, end = site.recent_day + after, site.recent_day + timedelta(days=1)
        words = query(start, end, ("period", str(seconds)), *groups)
        status, body = fetch(f"{site.new_api.api}/v2/meters/late/statistics?{words}")
        found = {_window(each, start, seconds): (each["count"], each["sum"]) for each in json.loads(body)}
        rows = site.postgresql.execute(
            TRUTH.format(start=start.isoformat(), end=end.isoformat(), seconds=seconds), site.dsn
        )
        truth = {int(window): (count, total) for window, count, total in rows}
        if status != 200 or found != truth or not truth:
            differing = [window for window in {*found, *truth} if found.get(window) != truth.get(window)]
            wrong.append(
                f"late samples {name}: status {status}, {len(differing)} of {len(truth)} windows differ, such as"
                f" {[(window, found.get(window), truth.get(window)) for window in sorted(differing)[:2]]}"
            )
    return wrong


def _window(statistics: dict[str, Any], start: datetime, seconds: int) -> int:
    began = datetime.fromisoformat(statistics["period_start"])
    return int((began.replace(tzinfo=start.tzinfo) - start).total_seconds() // seconds)
