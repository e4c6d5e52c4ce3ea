"""GPUs that the flavors of domains ask for, in the XML that Nova 32.2 wrote with extra specs put into it."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from meter.flavor_gpus import FlavorGpuOptions
from meter.interfaces import Domain
from meter.interfaces import IHypervisor
from meter.pollsters.libvirt import flavor_gpus
from meter.sample import Sample
from meter.testing import FakeHypervisor
from meter.testing import FakePluginContext
from tests.polling_agent import PollingAgent
from tests.unit.pollsters.libvirt.test_gpus import GpuConfig

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
XML = (Path(__file__).parents[3] / "data/libvirt/nova-instance.xml").read_text()
UUID = "1dc390e9-43cd-451d-9ae7-01c8bbbe4cac"
PROJECT = "b6e8cc20ee9c457e83f13218eca89c43"


def nova(**specs: str) -> str:
    """The XML with these extra specs, in which ``__`` stands for a colon."""
    inside = "".join(
        f'<nova:extraSpec name="{name.replace("__", ":")}">{value}</nova:extraSpec>' for name, value in specs.items()
    )
    return XML.replace("<nova:extraSpecs/>", f"<nova:extraSpecs>{inside}</nova:extraSpecs>")


class FlavorHost:
    """A host with one domain, polled every five minutes."""

    def __init__(self, options: FlavorGpuOptions | None = None) -> None:
        self.hypervisor = FakeHypervisor(uri="qemu:///system")
        self.clock = Clock()
        context = FakePluginContext({IHypervisor: self.hypervisor}, clock=self.clock, config=GpuConfig())
        self.agent = PollingAgent((flavor_gpus.configured(options or FlavorGpuOptions()),), context)
        self.minutes = 0

    async def poll(self, xml: str | None, *, off: bool = False) -> list[Sample]:
        self.minutes += 5
        at = NOON + timedelta(minutes=self.minutes)
        self.clock.advance(max(0.0, at.timestamp() - self.clock.seconds()))
        stats = {"state.state": 5 if off else 1, "state.reason": 1}
        self.hypervisor.running = (
            []
            if xml is None
            else [Domain(uuid=UUID, name="n", xml=xml, stats=stats, run=None if off else 1, read_at=at)]
        )
        return await self.agent.cycle()


@pytest.fixture
def host() -> FlavorHost:
    return FlavorHost()


def told(samples: list[Sample]) -> list[tuple[str, Any]]:
    return [(each.name, each.volume) for each in samples]


@pytest_twisted.ensureDeferred
async def test_flavor_that_asks_for_gpus_is_metered_running_and_shut_off(host: FlavorHost) -> None:
    xml = nova(pci_passthrough__alias="gpu:2", resources1__VGPU="1")
    samples = await host.poll(xml)
    assert told(samples) == [("flavor.gpus", 2), ("flavor.vgpus", 1)]
    assert {(each.resource_id, each.project_id) for each in samples} == {(UUID, PROJECT)}
    assert samples[0].resource_metadata["flavor"]["extra_specs"] == {
        "pci_passthrough:alias": "gpu:2",
        "resources1:VGPU": "1",
    }
    assert told(await host.poll(xml, off=True)) == [("flavor.gpus", 2), ("flavor.vgpus", 1)]


@pytest_twisted.ensureDeferred
async def test_flavor_without_gpus_and_domains_without_extra_specs_have_no_sample(host: FlavorHost) -> None:
    assert await host.poll(XML) == []
    assert await host.poll(XML.replace("<nova:extraSpecs/>", "")) == []
    assert await host.poll("<domain><name>n</name></domain>") == []


@pytest_twisted.ensureDeferred
async def test_resize_to_a_flavor_without_gpus_sends_one_0(host: FlavorHost) -> None:
    await host.poll(nova(pci_passthrough__alias="gpu:2", resources__VGPU="1"))
    assert told(await host.poll(nova(pci_passthrough__alias="gpu:1"))) == [("flavor.gpus", 1), ("flavor.vgpus", 0)]
    assert told(await host.poll(XML)) == [("flavor.gpus", 0)]
    assert await host.poll(XML) == []


@pytest_twisted.ensureDeferred
async def test_deleted_instance_ends_with_0(host: FlavorHost) -> None:
    await host.poll(nova(resources__VGPU="1"))
    assert told(await host.poll(None)) == [("flavor.vgpus", 0)]


@pytest_twisted.ensureDeferred
async def test_number_that_cannot_be_read_is_unknown_not_0(host: FlavorHost) -> None:
    await host.poll(nova(resources__VGPU="1"))
    assert await host.poll(nova(resources__VGPU="one")) == []
    assert told(await host.poll(nova(resources__VGPU="1"))) == [("flavor.vgpus", 1)]


@pytest_twisted.ensureDeferred
async def test_options_name_the_aliases_that_are_gpus() -> None:
    host = FlavorHost(FlavorGpuOptions(gpu_aliases=("a100",)))
    assert told(await host.poll(nova(pci_passthrough__alias="a100:1,gpu:4"))) == [("flavor.gpus", 1)]
