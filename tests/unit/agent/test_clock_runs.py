"""Counters after the system clock was set back: what was measured is counted once, also across restarts of the agent."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import succeed
from twisted.logger import capturedLogs
from twisted.logger import eventAsText

from meter.agent.clock_runs import ClockRuns
from meter.agent.clock_runs import ClockState
from meter.sample import MAX_RUN
from meter.sample import Sample
from meter.sample import with_reserved
from tests.metered import metered

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def agent(path):
    return ClockRuns(path / "meter-compute.clock", lambda write: succeed(write()))


def counted(volume: int, minute: float, run: str | None = "hv1/boot") -> Sample:
    metadata: dict[str, Any] = {"display_name": "web-1"}
    return Sample(
        name="network.outgoing.bytes",
        type="cumulative",
        unit="B",
        volume=volume,
        resource_id="tap1",
        timestamp=NOON + timedelta(minutes=minute),
        resource_metadata=metadata if run is None else with_reserved(metadata, run=run),
    )


async def polled(clock_runs, minute, *samples):
    now = (NOON + timedelta(minutes=minute)).timestamp()
    clock_runs.begin(now)
    found = list(clock_runs.applied(samples))
    await clock_runs.end(now)
    return found


async def traffic(path, clock, run, restart_at=()):
    """Poll a counter that grows by 1000 between polls, at the minutes that the ``clock`` shows; return its samples."""
    found, runs = [], agent(path)
    for number, minute in enumerate(clock):
        if number in restart_at:
            runs = agent(path)
        found += await polled(runs, minute, counted(10**6 + 1000 * number, minute, run))
    return found


AN_HOUR_BACK = [*range(0, 65, 5), *(minute + 0.1 for minute in range(5, 95, 5))]
"""Polls every five minutes; at 13:00 the clock is set to 12:00."""


@pytest.mark.parametrize("run", ["hv1/boot", None, "x" * MAX_RUN])
@pytest.mark.parametrize("restart_at", [(), (13,), (16,), (13, 30)], ids=["no restart", "meanwhile", "soon", "later"])
@pytest_twisted.ensureDeferred
async def test_what_was_counted_before_the_clock_was_set_back_is_not_counted_again(tmp_path, run, restart_at):
    samples = await traffic(tmp_path, AN_HOUR_BACK, run, restart_at)
    # All but what was counted between the last poll before and the first one after.
    assert await metered(samples, "increase") == 1000 * (len(samples) - 2)
    assert all(len(each.resource_metadata.get("_meter", {}).get("run", "")) <= MAX_RUN for each in samples)


@pytest_twisted.ensureDeferred
async def test_a_clock_that_is_set_back_twice_begins_two_runs(tmp_path):
    samples = await traffic(tmp_path, [*range(0, 65, 5), *range(1, 60, 5), *range(2, 70, 5)], "hv1/boot")
    assert len({each.resource_metadata["_meter"]["run"] for each in samples}) == 3
    assert await metered(samples, "increase") == 1000 * (len(samples) - 3)


@pytest.mark.parametrize("minutes_back", [7, 60])
@pytest.mark.parametrize("is_first_poll", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_clock_that_is_set_back_during_a_poll_begins_a_run_with_the_next_one(
    tmp_path, minutes_back, is_first_poll
):
    runs = agent(tmp_path)
    samples = [] if is_first_poll else await polled(runs, 60, counted(1000, 60))
    runs.begin((NOON + timedelta(minutes=65)).timestamp())
    samples += runs.applied([counted(2000, 65)])
    await runs.end((NOON + timedelta(minutes=65 - minutes_back)).timestamp())
    samples += await polled(runs, 70 - minutes_back, counted(3000, 70 - minutes_back))
    assert len({each.resource_metadata["_meter"]["run"] for each in samples}) == 2


@pytest_twisted.ensureDeferred
async def test_a_clock_that_is_set_back_between_two_polls_keeps_their_order_and_runs(tmp_path):
    """Neither is a clock that is set ahead, or slowed down, a reason to begin a run."""
    samples = await traffic(tmp_path, [0, 5, 5 - 0.9 / 60, 7, 600, 601], "hv1/boot")
    assert {each.resource_metadata["_meter"]["run"] for each in samples} == {"hv1/boot"}


@pytest_twisted.ensureDeferred
async def test_gauges_and_deltas_are_as_they_were_and_metadata_are_shared(tmp_path):
    runs = agent(tmp_path)
    await polled(runs, 60)
    counter = counted(1, 0)
    others = [
        Sample(name="memory", type=kind, unit="MiB", volume=1, resource_id="vm", timestamp=NOON)
        for kind in ("gauge", "delta")
    ]
    again = counter.resource_metadata
    found = await polled(runs, 0, counter, *others, counter)
    assert found[1:3] == others
    assert found[0].resource_metadata is found[3].resource_metadata
    assert found[0].resource_metadata is not again
    assert again["_meter"] == {"run": "hv1/boot"}


@pytest.mark.parametrize("content", [b"", b"{", b'{"set_back_at": "x"}', b"\xff", b'{"other": 1}'])
@pytest_twisted.ensureDeferred
async def test_a_damaged_file_counts_as_none_and_is_replaced(tmp_path, content):
    file = tmp_path / "meter-compute.clock"
    file.write_bytes(content)
    with capturedLogs() as logged:
        [sample] = await polled(agent(tmp_path), 5, counted(1, 5))
    assert sample.resource_metadata["_meter"]["run"] == "hv1/boot"
    assert any("is not the state of the clock" in eventAsText(event) for event in logged)
    assert agent(tmp_path)._state == ClockState(polled_until=(NOON + timedelta(minutes=5)).timestamp())
    assert file.stat().st_mode & 0o777 == 0o600


@pytest_twisted.ensureDeferred
async def test_a_state_that_cannot_be_kept_is_logged_once_and_polling_goes_on(tmp_path, logged_errors):
    (tmp_path / "meter-compute.clock.new").mkdir()
    runs = agent(tmp_path)
    for minute in (0, 5, 10):
        assert len(await polled(runs, minute, counted(minute, minute))) == 1
    [event] = logged_errors.flush()
    assert "cannot be kept" in eventAsText(event)
