"""Windows: which rollups none of them cuts, wherever they are."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta
from datetime import timezone

import pytest

from meter.store.postgres.sql import Sql
from meter.store.query.windows import Windows

MIDNIGHT = datetime(2026, 11, 16, tzinfo=UTC)
INDIA = timezone(timedelta(hours=5, minutes=30))
HOUR, DAY = 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "start", "hours"),
    [
        (DAY, MIDNIGHT, 24),
        (2 * DAY, MIDNIGHT, 24),
        (HOUR, MIDNIGHT, 1),
        (DAY, MIDNIGHT + timedelta(hours=3), 1),
        (DAY, MIDNIGHT.replace(tzinfo=INDIA), 0),
        (600, MIDNIGHT, 0),
        (HOUR + 1, MIDNIGHT, 0),
        (HOUR, MIDNIGHT + timedelta(minutes=7), 0),
        (HOUR, MIDNIGHT + timedelta(microseconds=1), 0),
        (HOUR, None, 0),
    ],
)
def test_windows_that_begin_on_whole_hours_cut_none(seconds, start, hours):
    assert Windows(seconds, start, Sql("%s", (start,))).aligned_hours == hours


def test_window_of_a_time_has_its_parameters_in_order():
    of = Windows(600, MIDNIGHT, Sql("%s", (MIDNIGHT,))).of("first")
    assert of == Sql("date_bin(%s * interval '1 second', first, %s)", (600, MIDNIGHT))
