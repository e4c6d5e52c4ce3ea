"""Rows and reasons at the borders of a period: the present day, and hours that are not final."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest

from meter.completeness.ledger.answers import Tally
from meter.completeness.ledger.answers import buckets_between
from meter.completeness.ledger.answers import rows_of
from meter.completeness.ledger.answers import seconds_of
from meter.completeness.ledger.closing import closable
from meter.completeness.ledger.ledger_source import Finality
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import CompletenessRow
from meter.completeness_query import ReportingAgent

START = datetime(2026, 11, 18, tzinfo=UTC)
NOW = START + timedelta(days=1, hours=13, minutes=17)


@pytest.mark.parametrize("by", ["hour", "day"])
def test_the_present_hour_or_day_has_one_row_although_the_period_ends_later(by):
    query = CompletenessQuery(start=START, end=START + timedelta(days=2), by=by)
    told = buckets_between(START.timestamp(), NOW.timestamp(), seconds_of(query))
    rows = rows_of(query, [(bucket, None, Tally(expected=5, received=5)) for bucket in told], 100)
    starts = [row.start for row in rows]
    assert len(starts) == len(set(starts)) == (48 if by == "hour" else 2)
    assert sum(row.expected for row in rows) == 5 * len(told)
    assert rows[-1].end == query.end


@pytest.mark.parametrize(
    ("open_hours", "text"),
    [
        (1, "at the end of the period 1 hour is not final yet; the first begins at 2026-11-18T04:00:00"),
        (2, "at the end of the period 2 hours are not final yet; the first begins at 2026-11-18T03:00:00"),
        (3, "at the end of the period 3 hours are not final yet; the first begins at 2026-11-18T02:00:00"),
        (9, "at the end of the period 5 hours are not final yet; the first begins at 2026-11-18T00:00:00"),
    ],
)
def test_hours_that_are_not_final_are_counted_within_the_period(open_hours, text):
    query = CompletenessQuery(start=START, end=START + timedelta(hours=5))
    finality = Finality((query.end - timedelta(hours=open_hours)).timestamp())
    reasons = closable(query, NOW, [], [], finality).reasons
    assert [each.text for each in reasons if each.code == "hours not finalized"] == [text]


@pytest.mark.parametrize(
    ("waiting", "text"),
    [
        (1, "1 report of meter-compute@hv1 waits for one with a lower number"),
        (2, "2 reports of meter-compute@hv1 wait for one with a lower number"),
    ],
)
def test_reports_that_wait_are_counted(waiting, text):
    query = CompletenessQuery(start=START, end=START + timedelta(hours=5))
    agent = ReportingAgent(
        agent="meter-compute@hv1",
        daemon="meter-compute",
        host="hv1",
        state="running",
        first_due=START,
        last_due=query.end,
        silent_since=None,
        interval_seconds=300.0,
        resources=1,
        waiting_reports=waiting,
    )
    reasons = closable(query, NOW, [], [agent], Finality(query.end.timestamp())).reasons
    assert [each.text for each in reasons if each.code == "reports outstanding"] == [text]


@pytest.mark.parametrize(
    ("selected", "agents"),
    [
        ({}, ["meter-compute@hv1", "meter-compute@hv2"]),
        ({"agent": "meter-compute@hv1"}, ["meter-compute@hv1"]),
        ({"resource_id": "r1"}, ["meter-compute@hv1"]),
        ({"meter": "cpu"}, ["meter-compute@hv1"]),
        ({"project_id": "p1"}, ["meter-compute@hv1"]),
    ],
)
def test_only_agents_that_measure_what_is_selected_speak_against_closing(selected, agents):
    """Both are silent; hv1 measured what is selected."""
    query = CompletenessQuery(start=START, end=START + timedelta(hours=5), **selected)
    row = CompletenessRow(start=query.start, end=query.end, group="meter-compute@hv1", expected=1, received=1)
    silent = [
        ReportingAgent(
            agent=f"meter-compute@{host}",
            daemon="meter-compute",
            host=host,
            state="silent",
            first_due=START,
            last_due=START + timedelta(hours=1),
            silent_since=START + timedelta(hours=2),
            interval_seconds=300.0,
            resources=1,
            waiting_reports=0,
        )
        for host in ("hv1", "hv2")
    ]
    reasons = closable(query, NOW, [row], silent, Finality(query.end.timestamp())).reasons
    assert [each.agent for each in reasons] == agents
