"""Samples in many units, which clients of the API choose, fill neither the log nor the memory of a collector."""

from __future__ import annotations

import sys

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.logger import formatEvent

from meter.collector.unit_watch import MAX_LINES
from meter.collector.unit_watch import MAX_NAME
from meter.collector.unit_watch import MAX_UNITS
from meter.collector.unit_watch import UnitWatch
from meter.daemon.log_window import WINDOW_SECONDS
from tests.signed import received_together
from tests.store_messages import KEYS
from tests.store_messages import sample


def messages(units, name="custom.x"):
    samples = [sample(name, 1, unit=unit, project_id="evil", source="evil:openstack") for unit in units]
    return [
        message
        for first in range(0, len(samples), 100)
        for message in received_together(samples[first : first + 100], KEYS)
    ]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def watch(clock):
    return UnitWatch(clock)


def lines(watch, *observed):
    with capturedLogs() as logs:
        for each in observed:
            watch.observe(each)
    return [formatEvent(event) for event in logs]


def test_units_of_one_meter_are_logged_up_to_a_limit_and_then_once_more(watch):
    found = lines(watch, messages([f"unit number {n:04}" for n in range(1000)]))
    assert len(found) == MAX_UNITS
    assert found[0].startswith("meter custom.x now arrives in unit unit number 0001 from source ")
    assert "custom.x arrives in more than 5 units" in found[-1]
    assert len(watch._units["custom.x"]) == MAX_UNITS
    assert lines(watch, messages(["another", "unit number 0007"])) == []


def test_names_of_units_that_are_kept_are_short(watch):
    found = lines(watch, messages([f"{n}" + "x" * 200 for n in range(4)]))
    assert max(map(len, watch._units["custom.x"])) == MAX_NAME
    assert max(map(len, found)) < 1000
    assert sum(map(sys.getsizeof, watch._units["custom.x"])) < 1000


def test_lines_of_all_meters_together_are_limited_in_a_minute(watch, clock):
    meters = [messages(["a", "b"], name=f"custom.{n}") for n in range(MAX_LINES + 10)]
    assert len(lines(watch, *meters)) == MAX_LINES
    clock.advance(WINDOW_SECONDS)
    # What was not logged is logged in the next window, if it still arrives.
    found = lines(watch, *meters)
    assert found[0] == "10 more samples arrived in a further unit of their meter"
    assert len(found) == 1 + 10
    assert "meter custom.59 now arrives in unit b" in found[-1]
