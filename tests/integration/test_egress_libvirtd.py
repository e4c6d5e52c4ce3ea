"""Traffic by class of a real guest of QEMU: its tap, which libvirt names, is counted, with the resource of its other meters."""

from __future__ import annotations

import os

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from meter.interfaces import IHypervisor
from meter.pollsters.egress.nftables import Nftables
from meter.pollsters.egress.options import EgressOptions
from meter.pollsters.egress.pollster import EgressPollster
from meter.pollsters.libvirt import GuestPollster
from meter.testing import FakeCycle
from tests.integration.test_compute_libvirtd import hypervisor_at
from tests.network_namespaces import NamespaceHost
from tests.network_namespaces import namespace_host
from tests.servers.libvirt import Libvirtd

OPTIONS = EgressOptions(classes=[{"name": "internal", "prefixes": ["10.0.0.0/8"]}])


@pytest_twisted.ensureDeferred
async def test_frames_of_a_guest_count_at_its_tap(libvirtd: Libvirtd) -> None:
    tap = f"mt{os.getpid() % 100000}e"
    # QEMU has opened the tap: in another namespace, the rules for it do not touch those of this host.
    with (
        namespace_host() as host,
        libvirtd.taps(tap),
        libvirtd.guest("talking", taps=(tap,)) as uuid,
        host.having(tap),
    ):
        pollster = EgressPollster(OPTIONS, Nftables(host.nft), host.devices)
        async with hypervisor_at(libvirtd.uri) as hypervisor:
            cycle = FakeCycle({IHypervisor: hypervisor}, clock=IReactorTime(reactor))  # type: ignore[arg-type]
            began = list(await pollster.poll(cycle))
            packets_before, bytes_before = host.received(tap)
            libvirtd.virsh("qemu-monitor-command", "talking", "--hmp", "announce_self")
            packets, size = await until_quiet(host, tap, packets_before)
            samples = list(await pollster.poll(cycle.following()))
            ours = list(await GuestPollster("network.interface").poll(cycle.following()))
    found = {each.name: each.volume for each in samples}
    assert {each.volume for each in began} == {0}
    assert {each.resource_id for each in samples} == {f"talking-{uuid}-{tap}"}
    assert {each.resource_id for each in ours} <= {f"talking-{uuid}-{tap}"}
    # QEMU announces a guest by RARP, which is not IP.
    assert found["network.outgoing.packets:local"] == packets - packets_before > 0
    assert found["network.outgoing.bytes:local"] == size - bytes_before
    assert found["network.outgoing.bytes:internet"] == 0


async def until_quiet(host: NamespaceHost, tap: str, packets: int) -> tuple[int, int]:
    """Return the packets and bytes from a tap once there are more than ``packets``, and no more come."""
    while True:
        now = host.received(tap)
        await deferLater(reactor, 0.5)
        if packets < now[0] == host.received(tap)[0]:
            return now
