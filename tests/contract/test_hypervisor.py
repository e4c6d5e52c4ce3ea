"""What every hypervisor does, the pretended one of ``meter.testing`` and libvirt's own pretended host."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.interfaces import IReactorTime
from zope.interface.verify import verifyObject

from meter.hypervisor import LibvirtHypervisor
from meter.interfaces import Domain
from meter.interfaces import IHypervisor
from meter.testing import FakeHypervisor

UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"
XML = f"<domain type='test'><name>test</name><uuid>{UUID}</uuid><os><type arch='i686'>hvm</type></os></domain>"
STATS = {
    "state.state": 1,
    "cpu.time": 5_000_000_000,
    "vcpu.current": 2,
    "balloon.current": 2_097_152,
    "balloon.maximum": 8_388_608,
}


@pytest.fixture(params=["fake", "libvirt"])
def hypervisor(request: pytest.FixtureRequest) -> Iterator[IHypervisor]:
    if request.param == "fake":
        yield FakeHypervisor([Domain(UUID, "test", XML, STATS)])
        return
    real = LibvirtHypervisor(
        "test:///default", clock=IReactorTime(reactor), reactor_threads=IReactorFromThreads(reactor)
    )
    yield real
    pytest_twisted.blockon(real.stopService())


def test_hypervisor_provides_its_interface_and_uri(hypervisor: IHypervisor) -> None:
    assert verifyObject(IHypervisor, hypervisor)
    assert hypervisor.uri.startswith("test:///")


@pytest_twisted.ensureDeferred
async def test_domain_has_a_uuid_and_a_name(hypervisor: IHypervisor) -> None:
    [domain] = await hypervisor.domains()
    assert isinstance(domain, Domain)
    assert str(uuid.UUID(domain.uuid)) == domain.uuid == UUID
    assert domain.name == "test"


@pytest_twisted.ensureDeferred
async def test_domain_xml_has_the_same_uuid_and_name(hypervisor: IHypervisor) -> None:
    [domain] = await hypervisor.domains()
    root = ElementTree.fromstring(domain.xml)
    assert (root.findtext("uuid"), root.findtext("name")) == (domain.uuid, domain.name)


@pytest_twisted.ensureDeferred
async def test_domain_has_the_basic_statistics_as_integers(hypervisor: IHypervisor) -> None:
    [domain] = await hypervisor.domains()
    assert {name: type(domain.stats[name]) for name in STATS} == dict.fromkeys(STATS, int)
    assert domain.stats["state.state"] == 1
    assert domain.stats["balloon.current"] <= domain.stats["balloon.maximum"]


@pytest_twisted.ensureDeferred
async def test_domains_can_be_read_again(hypervisor: IHypervisor) -> None:
    first, second = await hypervisor.domains(), await hypervisor.domains()
    assert [domain.uuid for domain in first] == [domain.uuid for domain in second]
