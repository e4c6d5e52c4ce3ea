"""Two compute agents with real guests: one agent is killed and started again, and a guest of the other one hangs.

What the ledger answers is compared with the timestamps of the samples that are stored, which it does not read.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from datetime import timedelta
from itertools import pairwise
from math import ceil
from typing import Any
from urllib.parse import urlencode

from tests.servers.libvirt import Libvirtd
from tests.system.daemons import STOPPED
from tests.system.daemons import Daemon
from tests.system.daemons import House
from tests.system.daemons import until
from tests.system.test_cycle_reports import rows
from tests.system.test_doctor import reason

INTERVAL = timedelta(seconds=2)

CONFIG = f"""
[compute]
libvirt_uri = "{{uri}}"
timeout_seconds = 1.0
[polling]
interval_seconds = {INTERVAL.total_seconds()}
"""

COMPLETENESS = "from meter.commands.completeness import main; main()"

KILLED, OTHER = "meter-compute@compute-1", "meter-compute@compute-2"

AGENT_NOT_RUNNING, DOMAIN_HUNG = "agent not running", "domain hung"


class Site:
    """A collector, an API, and an agent on each of two hosts."""

    def __init__(self, house: House, uris: Mapping[str, str]) -> None:
        self.store = house.store
        self.collector = house.daemon("meter-collector").start()
        self.api = house.daemon("meter-api").start()
        self.agents: dict[str, Daemon] = {}
        for name, uri in uris.items():
            self.agents[name] = house.daemon("meter-compute", CONFIG.format(uri=uri))
            self.agents[name].host_name = name.partition("@")[2]
            self.agents[name].start()
        for daemon in self.daemons:
            daemon.until_ready()

    @property
    def daemons(self) -> list[Daemon]:
        return [*self.agents.values(), self.collector, self.api]

    def last_due(self, agent: str) -> datetime | None:
        """When the newest cycle was due that an agent has reported."""
        of_agent = f"agent_id = (SELECT id FROM agent WHERE name = '{agent}')"
        found: datetime | None = rows(self.store, f"SELECT max(last_due) FROM cycle_run WHERE {of_agent}")[0][0]
        return found

    def cycles(self, agent: str, count: int) -> datetime:
        """Wait until the collector has stored the reports of ``count`` more cycles of an agent; return when the last was due."""
        for _ in range(count):
            before = self.last_due(agent)
            until(lambda: self.last_due(agent) != before, f"a cycle of {agent}")  # noqa: B023
        last = self.last_due(agent)
        assert last is not None
        return last

    def sample_times(self, resource: str, meter: str) -> list[datetime]:
        """The timestamps of the stored samples, in order."""
        found = self.api.get(f"/v2/meters/{meter}?q.field=resource&q.value={resource}&limit=1000")
        return sorted(datetime.fromisoformat(f"{each['timestamp']}+00:00") for each in found)


class Period:
    """Questions about one period."""

    def __init__(self, site: Site, start: datetime, end: datetime) -> None:
        self._site = site
        self.end = end
        self._period = {"start": start.isoformat(), "end": end.isoformat()}

    def answer(self, what: str = "", **arguments: str) -> Any:
        return self._site.api.get(f"/v2/completeness{what}?{urlencode({**self._period, **arguments})}")

    def of_meters(self, resource: str) -> dict[str, dict[str, Any]]:
        return {each["group"]["meter"]: each for each in self.answer(resource_id=resource, group="meter")}

    def command(self, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
        """Run ``meter-completeness``; return its exit status and what it printed."""
        daemon = self._site.api
        daemon.config_file.chmod(0o600)
        period = [word for name, value in self._period.items() for word in (f"--{name}", value)]
        ran = subprocess.run(
            [
                *(sys.executable, "-c", COMPLETENESS, "--config", str(daemon.config_file)),
                *("--json", *period, *arguments),
            ],
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert ran.returncode in (0, 1), ran.stderr
        return ran.returncode, [json.loads(line) for line in ran.stdout.splitlines()]


def missed(times: Sequence[datetime]) -> list[tuple[datetime, datetime, int]]:
    """Where samples are missing: the time of the last before, of the first after, and how many do not exist in between."""
    # The first cycle after a start comes at once: a step shorter than 1.5 intervals misses none.
    steps = ((before, after, ceil((after - before) / INTERVAL - 1.5)) for before, after in pairwise(times))
    return [step for step in steps if step[2] > 0]


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")


def is_of_cycle(sampled: datetime, due: datetime) -> bool:
    """Whether a sample is of the cycle that was due then: on a busy machine it is taken later, but before the next cycle."""
    return -INTERVAL / 4 < sampled - due < INTERVAL * 3 / 4


def test_the_gaps_of_a_killed_agent_and_of_a_hung_guest_are_told_to_the_second(
    furnished: House, libvirtd: Libvirtd, libvirtd_elsewhere: Libvirtd
) -> None:
    with ExitStack() as guests:
        web = guests.enter_context(libvirtd.guest("web"))
        sick = guests.enter_context(libvirtd_elsewhere.guest("sick"))
        steady = guests.enter_context(libvirtd_elsewhere.guest("steady"))
        site = Site(furnished, {KILLED: libvirtd.uri, OTHER: libvirtd_elsewhere.uri})
        for agent in site.agents:
            site.cycles(agent, 3)

        site.agents[KILLED].stop(signal.SIGKILL)
        with libvirtd_elsewhere.hanging("sick"):
            site.cycles(OTHER, 4)
        site.agents[KILLED].start()
        site.cycles(KILLED, 3)
        period = whole_period(site, web)

        the_killed_agent_is_named(site, period, web)
        the_hung_guest_is_named(site, period, sick)

        [row] = period.answer(resource_id=steady)
        assert (row["expected"], row["percent"], row["causes"]) == (row["received"], 100, {})
        assert period.answer("/gaps", resource_id=steady) == []
        assert period.command("--resource", steady)[0] == 0
        for daemon in site.daemons:
            assert daemon.stop() in STOPPED, daemon.log


def whole_period(site: Site, resource: str) -> Period:
    """The time from before the first sample until before the newest cycle of both agents, once its samples are stored."""
    dues = [site.last_due(agent) for agent in site.agents]
    end = min(each for each in dues if each is not None) - INTERVAL / 2
    period = Period(site, site.sample_times(resource, "cpu")[0] - timedelta(seconds=30), end)
    until(
        lambda: {"not finalized", "unknown"}.isdisjoint(*(each["causes"] for each in period.answer(by="hour"))),
        "the samples of the last cycles",
    )
    return period


def the_killed_agent_is_named(site: Site, period: Period, web: str) -> None:
    [(before, after, count)] = missed(site.sample_times(web, "cpu"))
    assert count >= 3
    for meter, row in period.of_meters(web).items():
        assert row["received"] == len([each for each in site.sample_times(web, meter) if each < period.end]), meter
        assert row["expected"] - row["received"] == row["missing"] == count, meter
        assert row["causes"] == {AGENT_NOT_RUNNING: count}, meter

    [gap] = period.answer("/gaps", resource_id=web)
    assert (gap["cause"], gap["agent"], gap["pollster"], gap["exact"]) == (AGENT_NOT_RUNNING, KILLED, None, True)
    start, end = time_of(gap["start"]), time_of(gap["end"])
    assert is_of_cycle(before, start - INTERVAL)
    assert is_of_cycle(after, end)

    status, [row, shown] = period.command("--resource", web)
    assert status == 1
    assert row["missing"] == gap["samples"] == count * len(period.of_meters(web))
    assert (shown["gap"], shown["start"], shown["end"]) == (AGENT_NOT_RUNNING, gap["start"], gap["end"])

    for at in (start, start + (end - start) / 2, end - timedelta(seconds=0.1)):
        for meter in ("cpu", "memory"):
            status, verdict, _ = reason(site.api, web, meter, "--at", at.isoformat())
            assert (status, verdict) == (
                1,
                f"stops at: polled — {KILLED} is silent since {start - INTERVAL:%Y-%m-%d %H:%M:%S} UTC"
                f" until {end:%Y-%m-%d %H:%M:%S} UTC (agent not running)",
            )


def the_hung_guest_is_named(site: Site, period: Period, sick: str) -> None:
    [(before, after, count)] = missed(site.sample_times(sick, "disk.read.bytes"))
    assert count >= 3
    meters = period.of_meters(sick)
    assert meters["disk.read.bytes"]["causes"] == meters["memory.resident"]["causes"] == {DOMAIN_HUNG: count}
    assert meters["cpu"]["percent"] == meters["memory"]["percent"] == 100, "those need no emulator"
    assert {cause for row in meters.values() for cause in row["causes"]} == {DOMAIN_HUNG}

    gaps = [each for each in period.answer("/gaps") if each["cause"] == DOMAIN_HUNG]
    assert {each["agent"] for each in gaps} == {OTHER}
    assert {name[: len(sick)] for each in gaps for name in each["resources"]} == {sick}
    [gap] = [each for each in gaps if each["resources"] == [sick] and each["pollster"] == "disk"]
    start, end = time_of(gap["start"]), time_of(gap["end"])
    assert is_of_cycle(before, start - INTERVAL)
    assert is_of_cycle(after, end)

    status, verdict, _ = reason(site.api, sick, "disk.read.bytes", "--at", (start + (end - start) / 2).isoformat())
    assert status == 1
    assert verdict.startswith(f"stops at: polled — {OTHER}: disk: {DOMAIN_HUNG} from {start:%Y-%m-%d %H:%M:%S} UTC")
