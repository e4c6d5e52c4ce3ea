"""What the cycle reports of a compute agent say about domains: those that hang, cannot be read, have ended, or have migrated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meter.cycle_report import DOMAIN_HUNG
from meter.cycle_report import DOMAIN_UNREADABLE
from meter.cycle_report import PollReport
from meter.cycle_report import SkipReport
from meter.interfaces import Absence
from meter.interfaces import Domain
from meter.interfaces import IDomainPollster
from meter.interfaces import IHypervisor
from meter.pollsters.libvirt import cpu
from meter.pollsters.libvirt import disk_device
from meter.pollsters.libvirt import instance
from meter.pollsters.libvirt import memory
from meter.pollsters.libvirt import network
from meter.testing import FakeHypervisor
from tests.hygiene import LoggedErrors
from tests.reporting_agent import ReportingAgent
from tests.reporting_agent import begun
from tests.reporting_agent import ended
from tests.reporting_agent import series_of

DATA = Path(__file__).parents[3] / "data/libvirt"
UUID = "1dc390e9-43cd-451d-9ae7-01c8bbbe4cac"
XML = (DATA / "nova-instance.xml").read_text()
STATS: dict[str, Any] = {
    name: int(value) if value.isdecimal() else value
    for name, value in re.findall(r"^  (\S+?)=(.*)$", (DATA / "nova-instance.domstats.txt").read_text(), re.MULTILINE)
}
NETWORK = {"net.count": 1, "net.0.name": "tap4ec4b8bb-23"} | {
    f"net.0.{way}.{name}": 1 for way in ("rx", "tx") for name in ("bytes", "pkts", "errs", "drop")
}
OTHER = "00000000-0000-0000-0000-000000000001"


def domain(uuid: str = UUID, **changes: Any) -> Domain:
    xml = XML.replace(UUID, uuid)
    return Domain(uuid, f"cloud-{uuid[-8:]}", xml, {**STATS, **NETWORK, **changes}, run=1)


def hung(whole: Domain) -> Domain:
    """What libvirt still answers about a domain whose emulator does not."""
    stats = {name: value for name, value in whole.stats.items() if name.startswith(("state.", "balloon.current"))}
    return replace(whole, stats=stats)


class Host:
    """An agent with all its pollsters of domains, and its hypervisor."""

    def __init__(self, directory: Path, **more: Any) -> None:
        self.hypervisor = FakeHypervisor([domain(), domain(OTHER)])
        self.agent = ReportingAgent(
            directory, instance, cpu, memory, disk_device, network, providers={IHypervisor: self.hypervisor}, **more
        )

    def cycle(self) -> dict[str, PollReport]:
        """Run a cycle; return its polls by pollster."""
        self.agent.cycle()
        reports, _ = self.agent.take()
        return {poll.pollster: poll for report in reports for poll in report.polls}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.agent.close()


def named(poll: PollReport) -> dict[str, set[str]]:
    return {each.reason: set(each.resources) for each in poll.skipped if each.resources}


def test_hung_domain_is_named_with_all_its_resources_and_stays(host: Host, logged_errors: LoggedErrors) -> None:
    for _ in range(3):
        before = host.cycle()
    assert all(poll.removed == poll.series == () for poll in before.values())
    host.hypervisor.running = [hung(domain()), domain(OTHER)]
    host.hypervisor.unreadable = {UUID: DOMAIN_HUNG}
    for _ in range(2):
        polls = host.cycle()
        assert all(poll.removed == poll.series == () for poll in polls.values())
        assert named(polls["cpu"]) == {DOMAIN_HUNG: {UUID}}
        assert named(polls["disk.device"]) == {DOMAIN_HUNG: {f"{UUID}-vda"}}
        assert [set(map(len, named(polls["network.interface"]).values()))] == [{1}]
        assert named(polls["instance"]) == {}
    host.hypervisor.running = [domain(), domain(OTHER)]
    host.hypervisor.unreadable = {}
    polls = host.cycle()
    assert all(poll.removed == poll.series == () for poll in polls.values())
    assert named(polls["disk.device"]) == {DOMAIN_HUNG: {f"{UUID}-vda"}}  # its rates need another reading
    polls = host.cycle()
    assert all(poll.removed == poll.series == () and named(poll) == {} for poll in polls.values())


def test_unreadable_domain_stays_until_libvirt_says_that_it_is_gone(host: Host) -> None:
    first = host.cycle()
    host.hypervisor.running = [domain(OTHER)]
    host.hypervisor.unreadable = {UUID: DOMAIN_UNREADABLE}
    host.hypervisor.absences = {UUID: Absence("unreadable")}
    polls = host.cycle()
    assert not any(map(ended, polls.values()))
    assert named(polls["instance"]) == named(polls["memory"]) == {DOMAIN_UNREADABLE: {UUID}}

    host.hypervisor.unreadable = {}
    polls = host.cycle()  # as the hypervisor says in the cycle after
    assert named(polls["instance"]) == {DOMAIN_UNREADABLE: {UUID}}

    host.hypervisor.absences = {UUID: Absence("gone")}
    last = [host.cycle(), host.cycle()]  # its gauges end with a last sample of 0, and are removed in the cycle after
    removed = {each for polls in last for poll in polls.values() for each in ended(poll)}
    known = {each for polls in (first, last[0]) for poll in polls.values() for each in series_of(poll.series)}
    assert removed == {each for each in known if OTHER not in each[1] and OTHER[-8:] not in each[1]}
    gone = {
        group.reason
        for polls in last
        for poll in polls.values()
        for group in poll.removed
        if series_of([group]) & removed
    }
    assert gone == {"gone"}


@pytest.mark.parametrize("listed", [True, False])
def test_domain_that_has_migrated_is_removed_with_that_reason(host: Host, listed: bool) -> None:
    for _ in range(2):
        host.cycle()
    away = replace(domain(**{"state.state": 5, "state.reason": 4}), run=None)
    host.hypervisor.running = [away, domain(OTHER)] if listed else [domain(OTHER)]
    host.hypervisor.absences = {UUID: Absence("migrated")}
    polls = host.cycle()
    for poll in polls.values():
        assert {group.reason for group in poll.removed} == {"migrated"}
        assert all(OTHER not in each[1] for each in series_of(poll.removed))
    assert {each[1] for each in series_of(polls["instance"].removed)} == {UUID}


def test_domain_that_is_shut_off_keeps_what_is_measured_of_it(host: Host) -> None:
    for _ in range(2):
        host.cycle()
    off = replace(domain(**{"state.state": 5}), run=None)
    host.hypervisor.running = [off, domain(OTHER)]
    polls = [host.cycle(), host.cycle()]
    removed = {each for some in polls for poll in some.values() for each in ended(poll)}
    assert {"cpu", "cpu_util"} <= {each[2] for each in removed}
    assert "memory" not in {each[2] for each in removed}  # it is 0, as the domain is Nova's
    assert not {"instance", "power.state", "disk.device.capacity"} & {each[2] for each in removed}
    reasons = {group.reason for some in polls for poll in some.values() for group in poll.removed}
    assert reasons == {"shut off"}


def test_rates_are_added_with_the_second_reading_and_not_expected_before(host: Host) -> None:
    first, second, third = host.cycle(), host.cycle(), host.cycle()
    assert {each[2] for each in series_of(first["cpu"].series)} == {"cpu"}
    assert {each[2] for each in begun(second["cpu"])} == {"cpu_util", "cpu.delta"}
    assert third["cpu"].series == third["cpu"].removed == ()


def test_statistic_that_libvirt_does_not_provide_any_more_is_removed(host: Host) -> None:
    host.cycle()
    gone = domain()
    host.hypervisor.running = [
        replace(gone, stats={name: value for name, value in gone.stats.items() if name != "balloon.rss"}),
        domain(OTHER),
    ]
    polls = host.cycle()
    assert {each[1:] for each in ended(polls["memory"])} == {(UUID, "memory.resident")}


def test_invalid_statistic_is_skipped_and_still_expected(host: Host) -> None:
    host.cycle()
    host.hypervisor.running = [domain(**{"balloon.rss": -1}), domain(OTHER)]
    polls = host.cycle()
    assert polls["memory"].removed == ()
    assert named(polls["memory"]) == {"invalid": {UUID}}


def test_domain_whose_xml_cannot_be_used_any_more_stays(host: Host) -> None:
    host.cycle()
    host.hypervisor.running = [replace(domain(), xml="<domain>"), domain(OTHER)]
    polls = host.cycle()
    assert not any(map(ended, polls.values()))
    assert named(polls["disk.device"]) == {"xml": {f"{UUID}-vda"}}


def test_agent_that_starts_while_a_domain_hangs_removes_none_of_its_resources(host: Host, tmp_path: Path) -> None:
    for _ in range(2):
        host.cycle()
    host.agent.close()
    again = Host(tmp_path, boot="boot-2", clock=host.agent.clock)
    again.hypervisor.running = [hung(domain()), domain(OTHER)]
    again.hypervisor.unreadable = {UUID: DOMAIN_HUNG}
    polls = again.cycle()
    assert named(polls["disk.device"]) == {DOMAIN_HUNG: {f"{UUID}-vda"}}
    assert f"{UUID}-vda" in {each[1] for each in series_of(polls["disk.device"].series)}
    assert polls["disk.device"].whole
    again.agent.close()


def test_agent_without_memory_that_starts_while_a_domain_hangs_calls_nothing_whole(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.hypervisor.running = [hung(domain()), domain(OTHER)]
    host.hypervisor.unreadable = {UUID: DOMAIN_HUNG}
    assert not any(poll.whole for poll in host.cycle().values())
    host.hypervisor.running = [domain(), domain(OTHER)]
    host.hypervisor.unreadable = {}
    assert all(poll.whole for poll in host.cycle().values())
    host.agent.close()


def test_event_of_a_domain_is_an_off_schedule_poll_and_ends_nothing(host: Host) -> None:
    host.cycle()
    stopped = replace(domain(**{"state.state": 5}), run=None, event="stopped (destroyed)")
    alone = FakeHypervisor([stopped])
    host.agent.run(host.agent.polling.poll_off_schedule(IDomainPollster, {IHypervisor: alone}))
    host.agent.clock.advance(1)
    host.agent.cycle()
    (report,), _ = host.agent.take()
    assert {"power.state"} <= {each[2] for poll in report.off_schedule for each in series_of(poll.series)}
    assert all(UUID in each[1] or "tap" in each[1] for poll in report.off_schedule for each in series_of(poll.series))
    assert not any(map(ended, report.polls))


def test_skipped_samples_are_counted_without_resources_that_were_never_measured(host: Host) -> None:
    polls = host.cycle()
    [skipped] = [each for each in polls["memory"].skipped if each.reason == "missing"]
    assert skipped == SkipReport("missing", skipped.samples)
    assert skipped.samples > 0
