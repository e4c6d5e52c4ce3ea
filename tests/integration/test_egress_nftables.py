"""Traffic by class on real network devices: what nftables counts is what was sent, to the byte."""

from __future__ import annotations

import json
from collections.abc import Collection
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from meter.interfaces import Disabled
from meter.interfaces import Domain
from meter.interfaces import Enabled
from meter.interfaces import IHypervisor
from meter.interfaces import ISkippedSamples
from meter.pollsters.egress.nftables import Nftables
from meter.pollsters.egress.options import EgressOptions
from meter.pollsters.egress.pollster import EgressPollster
from meter.sample import Sample
from meter.settings import ComputeSection
from meter.testing import FakeCycle
from meter.testing import FakeHypervisor
from meter.testing import FakePluginContext
from tests.network_namespaces import NamespaceHost
from tests.network_namespaces import domain_with
from tests.network_namespaces import namespace_host

CLASSES = [
    {"name": "partner", "prefixes": ["10.9.0.0/16", "2001:db8:9::/48"]},
    {"name": "internal", "prefixes": ["10.0.0.0/8", "fd00::/8"]},
    {"name": "region", "prefixes": ["198.51.100.0/24", "203.0.113.7/32", "2001:db8::/32"]},
]
UDP, ETHERNET = {4: 28, 6: 48}, 14


@pytest.fixture
def host() -> Iterator[NamespaceHost]:
    with namespace_host() as made:
        yield made


class TakenSkips:
    """What the pollster says about samples that it did not make."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.ended: dict[str, set[str]] = {}

    def samples_skipped(
        self, plugin: str, reason: str, count: int = 1, resources: Any = (), projects: Any = ()
    ) -> None:
        self.reasons += [reason] * count

    def resources_ended(self, plugin: str, reason: str, resources: Collection[str]) -> None:
        self.ended[reason] = {*resources}


class CountedHost:
    """A compute agent's pollster on the host; ``start`` makes a new agent, which knows nothing of the one before."""

    def __init__(self, host: NamespaceHost, **options: Any) -> None:
        self.host = host
        self.hypervisor = FakeHypervisor(uri="qemu:///system")
        self.clock = Clock()
        self.clock.advance(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
        self.start(**options)

    def start(self, classes: Any = CLASSES, **options: Any) -> None:
        self.pollster = EgressPollster(
            EgressOptions(classes=classes, **options), Nftables(self.host.nft), self.host.devices
        )
        self.skipped = TakenSkips()
        self.context = FakePluginContext(
            {IHypervisor: self.hypervisor, ISkippedSamples: self.skipped}, clock=self.clock, config=HostConfig()
        )

    async def poll(self, *domains: Domain, trial: bool = False) -> list[Sample]:
        self.clock.advance(300)
        self.hypervisor.running = list(domains)
        return list(await self.pollster.poll(FakeCycle(context=self.context, trial=trial)))

    async def event(self, domain: Domain, event: str) -> list[Sample]:
        """Poll one domain, after an event of libvirt."""
        return await self.poll(replace(domain, event=event))


class HostConfig:
    """A configuration with ``[compute]`` only."""

    compute = ComputeSection(host="hv1")


def volumes(samples: list[Sample], what: str = "network.outgoing.bytes") -> dict[str, int | float]:
    """The volumes by class."""
    found = {each.name.partition(":")[2]: each.volume for each in samples if each.name.partition(":")[0] == what}
    assert len(found) == sum(each.name.startswith(f"{what}:") for each in samples)
    return found


def run_name(sample: Sample) -> str:
    return str(sample.resource_metadata["_meter"]["run"])


def run_in(samples: list[Sample]) -> str:
    [run] = {run_name(each) for each in samples}
    return run


@pytest_twisted.ensureDeferred
async def test_each_byte_that_a_guest_sends_counts_in_the_class_of_its_destination(host: NamespaceHost) -> None:
    guest = host.plug("tap-a")
    counted = CountedHost(host)
    domain = domain_with("tap-a")
    began = await counted.poll(domain)
    assert set(volumes(began).values()) == {0}
    packets_before, bytes_before = host.received("tap-a")

    host.send(guest, "10.1.2.3", 1000, 3)  # internal
    host.send(guest, "10.9.2.3", 100)  # partner comes before internal
    host.send(guest, "198.51.100.7", 200, 2)  # region
    host.send(guest, "203.0.113.7", 10)  # region: a single address
    host.send(guest, "203.0.113.8", 20)  # the next one is not
    host.send(guest, "8.8.8.8", 1200, 5)
    host.send(guest, "169.254.169.254", 80)
    host.send(guest, "fd00::1", 300)
    host.send(guest, "2001:db8:9::1", 400)
    host.send(guest, "2001:db8:a::1", 500)
    host.send(guest, "2606:4700::1111", 600)
    host.send_spoofed(guest, "192.0.2.99", "8.8.4.4", 50)

    samples = await counted.poll(domain)
    found = volumes(samples)
    assert {name: found[name] for name in ("partner", "internal", "region", "internet")} == {
        "partner": 100 + 400 + UDP[4] + UDP[6] + 2 * ETHERNET,
        "internal": 3 * (1000 + UDP[4] + ETHERNET) + 300 + UDP[6] + ETHERNET,
        "region": 2 * (200 + UDP[4] + ETHERNET) + 10 + UDP[4] + 500 + UDP[6] + 2 * ETHERNET,
        "internet": 20 + UDP[4] + 5 * (1200 + UDP[4]) + 600 + UDP[6] + 20 + 50 + 8 * ETHERNET,
    }
    assert found["local"] >= 80 + UDP[4] + ETHERNET
    packets_after, bytes_after = host.received("tap-a")
    assert sum(found.values()) == bytes_after - bytes_before
    assert sum(volumes(samples, "network.outgoing.packets").values()) == packets_after - packets_before
    assert run_in(samples) == run_in(began)
    [resource] = {each.resource_id for each in samples}
    assert resource == "web-uuid-of-web-tap-a"
    assert {each.resource_metadata["class"] for each in samples} == {*found}
    assert samples[0].resource_metadata["mac"] == "02:00:00:00:00:02"


@pytest_twisted.ensureDeferred
async def test_what_a_guest_receives_counts_in_the_class_of_its_source(host: NamespaceHost) -> None:
    host.plug("tap-a")
    for address in ("198.51.100.1", "8.8.8.8"):
        host.ip(f"addr add {address}/32 dev lo")
    counted = CountedHost(host, incoming=True)
    await counted.poll(domain_with("tap-a"))
    packets_before, bytes_before = host.sent("tap-a")
    host.send(host.name, "10.0.0.2", 100)
    host.send(host.name, "10.0.0.2", 1000, 2, source="198.51.100.1")
    host.send(host.name, "10.0.0.2", 700, source="8.8.8.8")
    host.send(host.name, "fd00::2", 300)

    samples = await counted.poll(domain_with("tap-a"))
    found = volumes(samples, "network.incoming.bytes")
    packets_after, bytes_after = host.sent("tap-a")
    assert found["internal"] == 100 + UDP[4] + 300 + UDP[6] + 2 * ETHERNET
    assert found["region"] == 2 * (1000 + UDP[4] + ETHERNET)
    assert found["internet"] == 700 + UDP[4] + ETHERNET
    assert sum(found.values()) == bytes_after - bytes_before
    assert sum(volumes(samples, "network.incoming.packets").values()) == packets_after - packets_before
    # The guest has answered that nobody listens: 4 times to its neighbour, to which of its addresses ever.
    assert volumes(samples)["internal"] > 0


@pytest_twisted.ensureDeferred
async def test_a_tap_that_was_made_again_has_another_run_and_the_last_bytes_of_the_old_one_count(
    host: NamespaceHost,
) -> None:
    guest = host.plug("tap-a")
    counted = CountedHost(host)
    began = await counted.poll(domain_with("tap-a"))
    host.send(guest, "8.8.8.8", 100)
    host.unplug("tap-a")
    host.plug("tap-a", guest)
    host.send(guest, "8.8.8.8", 1000)  # not counted yet: the old chain must not count what the new tap sends

    samples = await counted.poll(domain_with("tap-a", run=2))
    by_run: dict[str, list[Sample]] = {}
    for each in samples:
        by_run.setdefault(run_name(each), []).append(each)
    assert len(by_run) == 2
    assert volumes(by_run.pop(run_in(began)))["internet"] == 100 + UDP[4] + ETHERNET
    [new] = by_run.values()
    assert len({(each.name, each.timestamp) for each in samples}) == len(samples), "a series has one sample at a time"
    assert set(volumes(new).values()) == {0}

    host.send(guest, "8.8.8.8", 10)
    again = await counted.poll(domain_with("tap-a", run=2))
    assert run_in(again) == run_in(new)
    assert volumes(again)["internet"] == 10 + UDP[4] + ETHERNET
    assert host.run("nft", "list", "table", "netdev", "meter_egress").count("counter outgoing") == 5


@pytest_twisted.ensureDeferred
async def test_a_domain_is_counted_from_its_start_to_its_stop_and_leaves_nothing_behind(host: NamespaceHost) -> None:
    other, guest = host.plug("tap-b"), host.plug("tap-a")
    counted = CountedHost(host)
    beside = domain_with("tap-b", "beside")
    await counted.poll(beside)
    host.send(other, "8.8.8.8", 1)
    started = await counted.event(domain_with("tap-a"), "started (booted)")
    assert {each.resource_id for each in started} == {"web-uuid-of-web-tap-a"}
    assert set(volumes(started).values()) == {0}
    assert await counted.event(domain_with("tap-a"), "resumed (unpaused)") == [], "its counters are read in the cycle"
    host.send(guest, "8.8.8.8", 100)
    host.unplug("tap-a")
    off = replace(domain_with("tap-a"), stats={"state.state": 5}, run=None, process=None)
    last = await counted.event(off, "stopped (destroyed)")
    assert {each.resource_id for each in last} == {"web-uuid-of-web-tap-a"}
    assert volumes(last)["internet"] == 100 + UDP[4] + ETHERNET
    assert run_in(last) == run_in(started)

    samples = await counted.poll(beside, replace(off, event=None))
    assert {each.resource_id for each in samples} == {"beside-uuid-of-beside-tap-b"}
    assert volumes(samples)["internet"] == 1 + UDP[4] + ETHERNET
    host.unplug("tap-b")
    assert volumes(await counted.poll())["internet"] == 1 + UDP[4] + ETHERNET
    assert counted.skipped.ended["gone"] == {"beside-uuid-of-beside-tap-b"}
    assert await counted.poll() == []
    assert "counter" not in host.run("nft", "list", "table", "netdev", "meter_egress")


@pytest_twisted.ensureDeferred
async def test_a_chain_that_the_kernel_has_deleted_with_its_tap_loses_nothing(host: NamespaceHost) -> None:
    guest = host.plug("tap-a")
    counted = CountedHost(host)
    await counted.poll(domain_with("tap-a"))
    host.send(guest, "8.8.8.8", 100)
    host.unplug("tap-a")
    chains = json.loads(host.run("nft", "-j", "list", "chains", "netdev"))["nftables"]
    [chain] = [each["chain"]["name"] for each in chains if "chain" in each] or [""]
    if chain:  # Linux before 6.16 has done so by itself
        for verb in ("flush", "delete"):
            host.run("nft", verb, "chain", "netdev", "meter_egress", chain)
    assert volumes(await counted.poll())["internet"] == 100 + UDP[4] + ETHERNET
    assert await counted.poll() == []
    assert "counter" not in host.run("nft", "list", "table", "netdev", "meter_egress")


@pytest.mark.parametrize("how", ["delete table", "flush ruleset", "flush table", "reset counters"])
@pytest_twisted.ensureDeferred
async def test_what_others_do_to_the_table_begins_a_new_run_and_never_a_step_back(
    host: NamespaceHost, how: str
) -> None:
    guest = host.plug("tap-a")
    counted = CountedHost(host)
    await counted.poll(domain_with("tap-a"))
    host.send(guest, "8.8.8.8", 100)
    before = await counted.poll(domain_with("tap-a"))
    host.run(
        "nft",
        *how.split(),
        *(
            []
            if how == "flush ruleset"
            else ["netdev", "meter_egress"]
            if "table" in how
            else ["table", "netdev", "meter_egress"]
        ),
    )
    after = await counted.poll(domain_with("tap-a"))
    old = [each for each in after if run_name(each) == run_in(before)]
    new = [each for each in after if each not in old]
    assert [volumes(old).get("internet", 100 + UDP[4] + ETHERNET)] == [100 + UDP[4] + ETHERNET]
    assert set(volumes(new).values()) == {0}
    host.send(guest, "8.8.8.8", 50)
    assert volumes(await counted.poll(domain_with("tap-a")))["internet"] == 50 + UDP[4] + ETHERNET


@pytest_twisted.ensureDeferred
async def test_an_agent_that_starts_again_continues_and_other_classes_begin_a_new_run(host: NamespaceHost) -> None:
    guest = host.plug("tap-a")
    counted = CountedHost(host)
    began = await counted.poll(domain_with("tap-a"))
    host.send(guest, "198.51.100.7", 100)
    counted.start()
    assert volumes(continued := await counted.poll(domain_with("tap-a")))["region"] == 100 + UDP[4] + ETHERNET
    assert run_in(continued) == run_in(began)

    host.send(guest, "198.51.100.7", 100)
    counted.start(classes=[{"name": "city", "prefixes": ["198.51.100.0/24"]}])
    changed = await counted.poll(domain_with("tap-a"))
    last = [each for each in changed if run_name(each) == run_in(began)]
    assert volumes(last)["region"] == 2 * (100 + UDP[4] + ETHERNET)
    first = [each for each in changed if each not in last]
    assert volumes(first) == {"city": 0, "local": 0, "internet": 0}
    host.send(guest, "198.51.100.7", 30)
    found = volumes(await counted.poll(domain_with("tap-a")))
    assert (found["city"], found["internet"]) == (30 + UDP[4] + ETHERNET, 0)
    table = host.run("nft", "list", "table", "netdev", "meter_egress")
    assert "region" not in table
    assert table.count("\tset ") == 3


@pytest_twisted.ensureDeferred
async def test_rules_of_others_stay_and_packets_pass_as_before(host: NamespaceHost) -> None:
    guest = host.plug("tap-a")
    others = """table netdev firewall {
	chain tap {
		type filter hook ingress device "tap-a" priority 0; policy accept;
		udp dport 9 ip daddr 8.8.8.8 counter drop
	}
}
table inet filter {
	chain input {
		type filter hook input priority filter; policy accept;
		udp dport 9 counter packets 0 bytes 0 accept
	}
}
"""
    host.run("nft", "-f", "-", stdin=others)
    before = host.run("nft", "-s", "list", "ruleset")
    counted = CountedHost(host)
    await counted.poll(domain_with("tap-a"))
    host.send(guest, "8.8.8.8", 100)
    host.send(guest, "10.0.0.1", 100)
    samples = await counted.poll(domain_with("tap-a"))
    assert volumes(samples)["internet"] == 100 + UDP[4] + ETHERNET, "what a firewall drops later has been sent"
    assert volumes(samples)["internal"] == 100 + UDP[4] + ETHERNET
    assert "udp dport 9 counter packets 1 bytes 128 accept" in host.run("nft", "list", "table", "inet", "filter")
    host.run("nft", "delete", "table", "netdev", "meter_egress")
    assert host.run("nft", "-s", "list", "ruleset") == before


@pytest_twisted.ensureDeferred
async def test_a_trial_changes_nothing(host: NamespaceHost) -> None:
    host.plug("tap-a")
    counted = CountedHost(host)
    assert await counted.poll(domain_with("tap-a"), trial=True) == []
    assert host.run("nft", "list", "ruleset") == ""
    assert await counted.pollster.enabled(counted.context) == Enabled()
    assert host.run("nft", "list", "ruleset") == ""
    await counted.poll(domain_with("tap-a"))
    assert volumes(await counted.poll(domain_with("tap-a"), trial=True)) != {}
    assert await counted.pollster.enabled(counted.context) == Enabled()


@pytest_twisted.ensureDeferred
async def test_a_tap_that_nftables_refuses_does_not_hinder_others(host: NamespaceHost) -> None:
    host.plug("tap-a")
    counted = CountedHost(host)
    long = "a-name-that-no-device-has"
    counted.pollster = EgressPollster(
        counted.pollster.options, Nftables(host.nft), lambda: {**host.devices(), long: 4711}
    )
    samples = await counted.poll(domain_with("tap-a"), domain_with(long, "refused"))
    assert {each.resource_id for each in samples} == {"web-uuid-of-web-tap-a"}
    assert counted.skipped.reasons == ["refused"]


@pytest_twisted.ensureDeferred
async def test_without_permission_the_pollster_says_what_it_needs(host: NamespaceHost) -> None:
    counted = CountedHost(host)
    command = (*host.nft[:4], "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "nft")
    pollster = EgressPollster(counted.pollster.options, Nftables(command), host.devices)
    assert await pollster.enabled(counted.context) == Disabled(
        "nftables cannot count here: nft is not permitted to use nftables: it needs the capability CAP_NET_ADMIN"
        " (docs/egress.rst)"
    )


@pytest_twisted.ensureDeferred
async def test_another_user_than_root_can_count_with_this_capability_alone(host: NamespaceHost) -> None:
    guest = host.plug("tap-a")
    counted = CountedHost(host, incoming=True)
    only = "-all,+net_admin"
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs")
    capability = (f"--inh-caps={only}", f"--ambient-caps={only}", f"--bounding-set={only}")
    # nft opens its input again by name: it has to be that user's.
    command = (*host.nft[:4], *user, *capability, "sh", "-c", 'cat | nft "$@"', "nft")
    counted.pollster = EgressPollster(counted.pollster.options, Nftables(command), host.devices)
    assert await counted.pollster.enabled(counted.context) == Enabled()
    await counted.poll(domain_with("tap-a"))
    host.send(guest, "8.8.8.8", 100)
    assert volumes(await counted.poll(domain_with("tap-a")))["internet"] == 100 + UDP[4] + ETHERNET


@pytest_twisted.ensureDeferred
async def test_a_frame_with_a_tag_counts_by_its_address_and_one_with_two_is_local(host: NamespaceHost) -> None:
    guest = host.plug("tap-a")
    counted = CountedHost(host)
    await counted.poll(domain_with("tap-a"))
    for tags in range(3):
        host.send_tagged(guest, "8.8.8.8", tags)
    found = volumes(await counted.poll(domain_with("tap-a")))
    assert found["internet"] == 2 * (1000 + ETHERNET), "without the 4 bytes of the tag"
    assert found["local"] >= 1000 + 4 + ETHERNET
