"""What a new leader knows of the lists of those before it, and which of its own lists succeeds them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from meter.agent import cycle_reports
from meter.agent.listing_handover import ListingHandover
from meter.cycle_report import PollReport
from meter.cycle_report import SucceededListing
from meter.interfaces import Unavailable
from meter.sample import utc_text
from tests.hygiene import LoggedErrors
from tests.reporting_agent import INTERVAL
from tests.reporting_agent import NOON
from tests.reporting_agent import ReportingAgent
from tests.reporting_agent import ScriptedPollster

HALL, ATTIC = ("acme", "hall", "lamp.power"), ("acme", "attic", "lamp.power")
OTHERS = SucceededListing("meter-compute@other", "2023-11-14T22:00:00")
OWN = "meter-compute@host"


def at(cycles: int) -> str:
    return utc_text(datetime.fromtimestamp(NOON + cycles * INTERVAL, UTC))


@pytest.fixture
def agent_with(tmp_path: Path) -> Iterator[Callable[..., ReportingAgent]]:
    made: list[ReportingAgent] = []

    def make(*pollsters: ScriptedPollster) -> ReportingAgent:
        made.append(ReportingAgent(tmp_path, *pollsters))
        return made[-1]

    yield make
    for agent in made:
        agent.close()


def polls_of(agent: ReportingAgent) -> list[PollReport]:
    reports, _ = agent.take()
    return [poll for report in reports for poll in report.polls]


def test_lists_of_other_agents_are_succeeded_until_this_one_lists() -> None:
    handover = ListingHandover(OWN)
    handover.received({"lamp": OTHERS, "disk": OTHERS, "image": SucceededListing(OWN, at(0))})
    handover.listed("lamp", at(1))

    assert [handover.predecessor(each) for each in ("lamp", "disk", "image", "new")] == [None, OTHERS, None, None]
    assert handover.listings == {
        "lamp": SucceededListing(OWN, at(1)),
        "disk": OTHERS,
        "image": SucceededListing(OWN, at(0)),
    }


def test_first_list_after_a_checkpoint_of_another_leader_is_whole_and_succeeds_it(agent_with: Any) -> None:
    agent = agent_with(ScriptedPollster(series=[HALL, ATTIC]), ScriptedPollster("heat", series=[HALL]))
    agent.cycle()
    agent.reports.handover.received({"lamp": OTHERS})
    agent.cycle()
    agent.cycle()

    lamps = [poll for poll in polls_of(agent) if poll.pollster == "lamp"]
    assert [(poll.whole, poll.succeeds) for poll in lamps] == [(True, None), (True, OTHERS), (False, None)]
    assert agent.reports.handover.listings == {
        "lamp": SucceededListing(OWN, at(2)),
        "heat": SucceededListing(OWN, at(2)),
    }


def test_list_that_fails_succeeds_nothing_and_stays_to_be_succeeded(agent_with: Any) -> None:
    lamp = ScriptedPollster(series=[HALL], failure=Unavailable("no answer"))
    agent = agent_with(lamp)
    agent.reports.handover.received({"lamp": OTHERS})
    agent.cycle()
    assert agent.reports.handover.listings == {"lamp": OTHERS}
    lamp.failure = None
    agent.cycle()

    assert [(poll.outcome, poll.whole, poll.succeeds) for poll in polls_of(agent)] == [
        ("unavailable", False, None),
        ("ok", True, OTHERS),
    ]


def test_each_part_of_a_long_list_succeeds_the_other(agent_with: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycle_reports, "PART_BYTES", 500)
    agent = agent_with(ScriptedPollster(series=[("acme", f"lamp-{n:03}", "lamp.power") for n in range(100)]))
    agent.reports.handover.received({"lamp": OTHERS})
    agent.cycle()

    first, *parts = polls_of(agent)
    assert (first.series, first.succeeds) == ((), None)
    assert len(parts) > 1
    assert {part.succeeds for part in parts} == {OTHERS}


def test_list_that_is_not_on_disk_stays_to_be_succeeded(
    agent_with: Any, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> None:
    agent = agent_with(ScriptedPollster(series=[HALL]))

    async def full(_: Any) -> bool:
        raise Unavailable("the disk is full")

    agent.reports.handover.received({"lamp": OTHERS})
    with monkeypatch.context() as patched:
        patched.setattr(agent.outbox, "put_report", full)
        agent.cycle()
    assert agent.reports.handover.listings == {"lamp": OTHERS}
    logged_errors.flush()
    agent.cycle()
    assert {poll.succeeds for poll in polls_of(agent)} == {OTHERS}
    assert agent.reports.handover.predecessor("lamp") is None
