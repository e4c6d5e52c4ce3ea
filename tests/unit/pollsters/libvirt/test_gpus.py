"""GPUs, and parts of them, that domains have."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from meter.interfaces import Domain
from meter.interfaces import IHypervisor
from meter.pollsters.libvirt import gpu
from meter.pollsters.libvirt.host_devices import DeviceReader
from meter.sample import Sample
from meter.settings import ComputeSection
from meter.testing import FakeHypervisor
from meter.testing import FakePluginContext
from tests.polling_agent import PollingAgent

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MDEV = "4b20d080-1b54-4048-85b3-a6a62d165c01"
NOVA = (Path(__file__).parents[3] / "data/libvirt/nova-instance.xml").read_text()


class GpuConfig:
    """A configuration with ``[compute]`` only."""

    compute = ComputeSection(host="hv1")


def pci(bus: int, function: int = 0) -> str:
    return (
        "<hostdev mode='subsystem' type='pci' managed='yes'><source>"
        f"<address domain='0x0000' bus='0x{bus:02x}' slot='0x00' function='0x{function:x}'/></source></hostdev>"
    )


def mdev(uuid: str = MDEV) -> str:
    return f"<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='{uuid}'/></source></hostdev>"


class GpuHost:
    """A host whose ``/sys`` has a GPU with its sound device, a network device, and a GPU with virtual functions and a mediated device."""

    def __init__(self, sysfs: Path) -> None:
        self.sysfs = sysfs
        for address, class_ in {
            "0000:41:00.0": "0x030200",
            "0000:41:00.1": "0x040300",
            "0000:42:00.0": "0x020000",
            "0000:43:00.0": "0x120000",
            "0000:43:00.1": "0x030200",
        }.items():
            path = sysfs / "devices" / address
            path.mkdir(parents=True)
            for name, text in (("class", class_), ("vendor", "0x10de"), ("device", "0x20b5")):
                (path / name).write_text(text + "\n")
        (sysfs / "bus/pci").mkdir(parents=True)
        (sysfs / "bus/pci/devices").symlink_to(sysfs / "devices")
        (sysfs / "devices/0000:43:00.1/physfn").symlink_to(sysfs / "devices/0000:43:00.0")
        kind = sysfs / "devices/0000:43:00.0/mdev_supported_types/nvidia-222"
        kind.mkdir(parents=True)
        (sysfs / "devices/0000:43:00.0" / MDEV).mkdir()
        (sysfs / "devices/0000:43:00.0" / MDEV / "mdev_type").symlink_to(kind)
        (sysfs / "bus/mdev/devices").mkdir(parents=True)
        (sysfs / "bus/mdev/devices" / MDEV).symlink_to(sysfs / "devices/0000:43:00.0" / MDEV)
        self.hypervisor = FakeHypervisor(uri="qemu:///system")
        self.clock = Clock()
        context = FakePluginContext({IHypervisor: self.hypervisor}, clock=self.clock, config=GpuConfig())
        context.daemon_cache("libvirt host devices", lambda: DeviceReader(sysfs))
        self.agent = PollingAgent((gpu,), context)
        self.minutes = 0

    async def poll(self, *hostdevs: str, off: bool = False, nova: bool = False, **more: Any) -> list[Sample]:
        self.minutes += 5
        at = NOON + timedelta(minutes=self.minutes)
        self.clock.advance(max(0.0, at.timestamp() - self.clock.seconds()))
        devices = f"<devices>{''.join(hostdevs)}</devices>"
        xml = NOVA.replace("<devices>", devices[:-10], 1) if nova else f"<domain><name>n</name>{devices}</domain>"
        stats = {"state.state": 5 if off else 1, "state.reason": 1}
        run = None if off else 1
        self.hypervisor.running = [
            Domain(**{"uuid": "u", "name": "n", "xml": xml, "stats": stats, "run": run, "read_at": at, **more})
        ]
        return await self.agent.cycle()


@pytest.fixture
def host(tmp_path: Path) -> GpuHost:
    return GpuHost(tmp_path)


def told(samples: list[Sample]) -> list[tuple[str, str, Any]]:
    return [(each.name, each.resource_id, each.volume) for each in samples]


@pytest_twisted.ensureDeferred
async def test_gpus_are_told_from_other_devices_and_from_parts_of_gpus(host: GpuHost) -> None:
    samples = await host.poll(pci(0x42), pci(0x41), pci(0x41, 1), pci(0x43, 1), mdev())
    assert told(samples) == [("gpu", "u-hostdev1", 1), ("vgpu", "u-hostdev3", 1), ("vgpu", "u-hostdev4", 1)]
    whole, _, mediated = samples
    assert whole.resource_metadata["vendor_id"] == "10de"
    assert whole.resource_metadata["product_id"] == "20b5"
    assert mediated.resource_metadata["vgpu_type"] == "nvidia-222"
    assert "vgpu_type" not in whole.resource_metadata


@pytest_twisted.ensureDeferred
async def test_detached_gpu_ends_with_one_0_and_the_others_keep_their_names(host: GpuHost) -> None:
    second = mdev().replace("</hostdev>", "<alias name='hostdev1'/></hostdev>")
    await host.poll(pci(0x41), second)
    assert told(await host.poll(second)) == [("vgpu", "u-hostdev1", 1), ("gpu", "u-hostdev0", 0)]
    assert told(await host.poll(second)) == [("vgpu", "u-hostdev1", 1)]


@pytest_twisted.ensureDeferred
async def test_domain_of_nova_has_its_gpus_while_it_is_shut_off_and_another_does_not(host: GpuHost) -> None:
    await host.poll(pci(0x41))
    assert told(await host.poll(pci(0x41), off=True)) == [("gpu", "u-hostdev0", 0)]
    assert told(await host.poll(pci(0x41), off=True)) == []
    assert told(await host.poll(pci(0x41), nova=True, off=True)) == [("gpu", "u-hostdev0", 1)]


@pytest_twisted.ensureDeferred
async def test_device_that_cannot_be_read_is_unknown_not_gone(host: GpuHost) -> None:
    await host.poll(pci(0x41))
    assert told(await host.poll(pci(0x41), pci(0x77))) == []
    assert told(await host.poll(pci(0x41))) == [("gpu", "u-hostdev0", 1)]


@pytest_twisted.ensureDeferred
async def test_domain_that_is_about_to_stop_keeps_its_gpus_until_it_has(host: GpuHost) -> None:
    await host.poll(pci(0x41))
    stopping = {"state.state": 4, "state.reason": 1}
    assert told(await host.poll(pci(0x41), stats=stopping, event="shutdown")) == []
    assert told(await host.poll(pci(0x41))) == [("gpu", "u-hostdev0", 1)]


@pytest_twisted.ensureDeferred
async def test_devices_that_no_xml_can_name_are_no_gpus(host: GpuHost) -> None:
    usb = "<hostdev mode='subsystem' type='usb'><source><address bus='1' device='2'/></source></hostdev>"
    outside = pci(0x41).replace("'0x41'", "'../41'")
    assert told(await host.poll(usb, outside, mdev("../../../etc"), "<hostdev mode='subsystem' type='pci'/>")) == []
