"""The pollsters of libvirt: from the statistics and the XML of domains to samples."""

from __future__ import annotations

import json
import re
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.plugin import getPlugins
from zope.interface.verify import verifyObject

import meter.pollsters
from meter.interfaces import Disabled
from meter.interfaces import Domain
from meter.interfaces import Enabled
from meter.interfaces import IComputePollster
from meter.interfaces import IHypervisor
from meter.interfaces import Unavailable
from meter.pollsters.libvirt import cpu
from meter.pollsters.libvirt import instance
from meter.pollsters.libvirt import memory
from meter.pollsters.libvirt import vcpus
from meter.pollsters.libvirt.pollster import GuestPollster
from meter.pollsters.libvirt.pollster import LibvirtOptions
from meter.pollsters.libvirt.table import ROWS
from meter.pollsters.libvirt.table import BadStat
from meter.sample import Sample
from meter.testing import FakeCycle
from meter.testing import FakeHypervisor
from meter.testing import FakeSurroundings

DATA = Path(__file__).parents[2] / "data/libvirt"
UUID = "1dc390e9-43cd-451d-9ae7-01c8bbbe4cac"
NOVA_XML = (DATA / "nova-instance.xml").read_text()
NOVA_STATS: dict[str, Any] = {
    name: int(value) if value.isdecimal() else value
    for name, value in re.findall(r"^  (\S+?)=(.*)$", (DATA / "nova-instance.domstats.txt").read_text(), re.MULTILINE)
}
PLAIN_XML = "<domain><name>plain</name><os><type arch='aarch64'>hvm</type></os></domain>"
PLAIN_STATS = {"state.state": 1, "cpu.time": 7, "vcpu.current": 2, "balloon.current": 1536, "balloon.maximum": 2048}

POLLSTERS = (instance, cpu, vcpus, memory)


def nova_domain(**changes: Any) -> Domain:
    return Domain(UUID, "cloud-00000001", NOVA_XML, {**NOVA_STATS, **changes})


def plain_domain(xml: str = PLAIN_XML, uuid: str = "plain-uuid", **changes: Any) -> Domain:
    return Domain(uuid, "plain", xml, {**PLAIN_STATS, **changes})


def cycle_of(*domains: Domain) -> FakeCycle:
    return FakeCycle({IHypervisor: FakeHypervisor(domains)})


async def polled(*domains: Domain, options: LibvirtOptions | None = None) -> list[Sample]:
    """Samples of one cycle of all pollsters."""
    cycle = cycle_of(*domains)
    return [
        sample
        for pollster in POLLSTERS
        for sample in await pollster.configured(options or LibvirtOptions()).poll(cycle)
    ]


async def only(pollster: GuestPollster, domain: Domain) -> Sample:
    [sample] = await pollster.poll(cycle_of(domain))
    return sample


def without(stats: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in stats.items() if name not in names}


# --- as plugins


def test_twisted_finds_them() -> None:
    assert {pollster.name for pollster in getPlugins(IComputePollster, meter.pollsters)} >= {
        row.meter.name for row in ROWS
    }


@pytest.mark.parametrize("pollster", POLLSTERS, ids=lambda pollster: pollster.name)
def test_each_provides_its_interface(pollster: GuestPollster) -> None:
    assert verifyObject(IComputePollster, pollster)
    assert [definition.name for definition in pollster.meters] == [pollster.name]


@pytest_twisted.ensureDeferred
async def test_they_work_where_there_is_a_hypervisor() -> None:
    assert await cpu.enabled(FakeSurroundings({IHypervisor: FakeHypervisor()})) == Enabled()
    assert await cpu.enabled(FakeSurroundings()) == Disabled("no hypervisor is configured")


@pytest_twisted.ensureDeferred
async def test_a_cycle_asks_libvirt_once() -> None:
    cycle = cycle_of(nova_domain())
    for pollster in POLLSTERS:
        await pollster.poll(cycle)
    assert cycle.provider(IHypervisor).calls == 1


@pytest_twisted.ensureDeferred
async def test_a_hypervisor_that_is_away_makes_them_unavailable() -> None:
    cycle = cycle_of()
    cycle.provider(IHypervisor).failure = Unavailable("libvirt is away")
    with pytest.raises(Unavailable, match="libvirt is away"):
        await cpu.poll(cycle)


@pytest_twisted.ensureDeferred
async def test_the_timestamp_is_when_libvirt_answered() -> None:
    clock = Clock()
    clock.advance(1000)

    class SlowHypervisor(FakeHypervisor):
        async def domains(self) -> Any:
            clock.advance(3)
            return await super().domains()

    cycle = FakeCycle({IHypervisor: SlowHypervisor([nova_domain()])}, clock=clock)
    [early] = await cpu.poll(cycle)
    clock.advance(60)
    [late] = await vcpus.poll(cycle)
    assert early.timestamp == late.timestamp == datetime.fromtimestamp(1003, UTC)


def test_the_readme_lists_every_meter_as_the_table_has_it() -> None:
    readme = Path(meter.pollsters.libvirt.__file__).with_name("README.rst").read_text()
    rule = re.search(r"^=+(  =+){4}$", readme, re.MULTILINE)
    assert rule
    lines = readme[rule.end() :].split(rule[0])[1].strip().splitlines()
    assert [tuple(re.split(r"\s{2,}", line)) for line in lines] == [
        (row.meter.name, row.meter.type, row.meter.unit, row.origin(), "yes" if row.when_off else "no") for row in ROWS
    ]


# --- volumes


@pytest_twisted.ensureDeferred
async def test_a_guest_of_nova_is_metered_as_ceilometer_does() -> None:
    theirs = json.loads((DATA / "ceilometer-cpu-sample.json").read_text())
    ours = await only(cpu.configured(LibvirtOptions(host="compute-07")), nova_domain())
    assert (ours.name, ours.type, ours.unit) == (
        theirs["counter_name"],
        theirs["counter_type"],
        theirs["counter_unit"],
    )
    assert (ours.resource_id, ours.project_id, ours.user_id) == (
        theirs["resource_id"],
        theirs["project_id"],
        theirs["user_id"],
    )
    assert ours.resource_metadata == theirs["resource_metadata"]


@pytest_twisted.ensureDeferred
async def test_the_volumes_are_those_of_the_statistics() -> None:
    assert [(sample.name, sample.volume, sample.unit) for sample in await polled(nova_domain())] == [
        ("instance", 1, "instance"),
        ("cpu", 9_570_000_000, "ns"),
        ("vcpus", 1, "vcpu"),
        ("memory", 64.0, "MB"),
    ]


@pytest_twisted.ensureDeferred
async def test_cpu_is_the_time_of_all_plugged_processors_running_and_waiting() -> None:
    three_of_four = {
        "vcpu.current": 3,
        "vcpu.maximum": 4,
        **{f"vcpu.{number}.time": 100 * number for number in (0, 1, 3)},
        **{f"vcpu.{number}.wait": number for number in (0, 1, 3)},
    }
    assert (await only(cpu, plain_domain(**three_of_four))).volume == 404


@pytest.mark.parametrize(
    "incomplete",
    [
        {"vcpu.current": 2, "vcpu.maximum": 2, "vcpu.0.time": 1, "vcpu.0.wait": 1},
        {"vcpu.current": 1, "vcpu.maximum": 1, "vcpu.0.time": 1},
        {"vcpu.current": 1},
    ],
)
@pytest_twisted.ensureDeferred
async def test_cpu_is_libvirts_sum_where_a_processor_is_unknown(incomplete: dict[str, int]) -> None:
    sample = await only(cpu, plain_domain(**incomplete))
    assert sample.volume == 7
    assert sample.resource_metadata["cpu_number"] == incomplete["vcpu.current"]


def test_a_pretended_million_of_processors_takes_no_time() -> None:
    with pytest.raises(BadStat, match="does not give"):
        cpu.row.volume({"vcpu.current": 1, "vcpu.maximum": 2**60})


@pytest_twisted.ensureDeferred
async def test_a_domain_that_is_shut_off_exists_and_nothing_more() -> None:
    assert [(sample.name, sample.resource_metadata["state"]) for sample in await polled(plain_domain(**OFF))] == [
        ("instance", "shutdown")
    ]


OFF = {"state.state": 5}


@pytest.mark.parametrize("state", [0, 2, 3, 4, 6, 7])
@pytest_twisted.ensureDeferred
async def test_in_every_other_state_all_is_metered(state: int) -> None:
    assert len(await polled(plain_domain(**{"state.state": state}))) == len(POLLSTERS)


# --- owner and metadata


@pytest_twisted.ensureDeferred
async def test_the_older_namespace_of_nova_is_read_as_well() -> None:
    older = Domain(UUID, "old", NOVA_XML.replace("nova/1.1", "nova/1.0"), NOVA_STATS)
    assert (await only(instance, older)).project_id == "b6e8cc20ee9c457e83f13218eca89c43"


@pytest_twisted.ensureDeferred
async def test_a_domain_without_nova_has_the_configured_owner_and_the_same_keys() -> None:
    options = LibvirtOptions(default_project_id="lab", default_user_id="operator", host="tower")
    plain = await only(instance.configured(options), plain_domain())
    assert (plain.project_id, plain.user_id) == ("lab", "operator")
    told = {key: value for key, value in plain.resource_metadata.items() if value is not None}
    assert told.pop("host") != "tower"
    assert told == {
        "display_name": "plain",
        "name": "plain",
        "instance_id": "plain-uuid",
        "instance_host": "tower",
        "status": "active",
        "state": "running",
        "task_state": "",
        "architecture": "aarch64",
        "os_type": "hvm",
        "vcpus": 2,
        "memory_mb": 2,
    }
    novas = await only(instance, nova_domain())
    assert set(novas.resource_metadata) - set(plain.resource_metadata) == {"image_meta"}


@pytest_twisted.ensureDeferred
async def test_the_owner_that_nova_names_is_not_replaced_by_the_configured_one() -> None:
    options = LibvirtOptions(default_project_id="lab", default_user_id="operator")
    sample = await only(instance.configured(options), nova_domain())
    assert sample.project_id == "b6e8cc20ee9c457e83f13218eca89c43"
    assert sample.user_id == "4cc236f0eb364412abb1024bc6ffbdf3"


@pytest_twisted.ensureDeferred
async def test_without_options_a_plain_domain_belongs_to_nobody() -> None:
    sample = await only(instance, plain_domain())
    assert (sample.project_id, sample.user_id) == (None, None)


@pytest_twisted.ensureDeferred
async def test_the_ephemeral_disk_counts_as_in_novas_notifications() -> None:
    xml = NOVA_XML.replace("<nova:disk>1<", "<nova:disk>20<").replace("<nova:ephemeral>0<", "<nova:ephemeral>5<")
    metadata = (await only(instance, Domain(UUID, "big", xml, NOVA_STATS))).resource_metadata
    assert {key: metadata[key] for key in ("root_gb", "ephemeral_gb", "disk_gb")} == {
        "root_gb": 20,
        "ephemeral_gb": 5,
        "disk_gb": 25,
    }


@pytest_twisted.ensureDeferred
async def test_a_size_that_is_no_number_is_unknown() -> None:
    xml = NOVA_XML.replace("<nova:vcpus>1<", f"<nova:vcpus>{'9' * 5000}<")
    assert (await only(instance, Domain(UUID, "odd", xml, NOVA_STATS))).resource_metadata["vcpus"] is None


@pytest_twisted.ensureDeferred
async def test_properties_of_the_image_and_extra_specs_are_told() -> None:
    xml = NOVA_XML.replace(
        "<nova:properties/>",
        '<nova:properties><nova:property name="hw_rng_model">virtio</nova:property></nova:properties>',
    ).replace(
        "<nova:extraSpecs/>",
        '<nova:extraSpecs><nova:extraSpec name="hw:cpu_policy">shared</nova:extraSpec></nova:extraSpecs>',
    )
    metadata = (await only(instance, Domain(UUID, "rich", xml, NOVA_STATS))).resource_metadata
    assert metadata["image_meta"]["hw_rng_model"] == "virtio"
    assert metadata["flavor"]["extra_specs"] == {"hw:cpu_policy": "shared"}


# --- bad input

TWO_NOVAS = NOVA_XML.replace(
    "</metadata>", '<n:instance xmlns:n="http://openstack.org/xmlns/libvirt/nova/1.0"/></metadata>'
)
BOMB = '<!DOCTYPE domain [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><domain><name>&b;</name></domain>'


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ("", "its XML cannot be parsed: no element found"),
        ("<domain><name>", "its XML cannot be parsed: no element found"),
        ("<domain>\0</domain>", "its XML cannot be parsed"),
        ("<domain>\ud800</domain>", "its XML cannot be parsed"),
        (f"<domain>{' ' * 1_000_000}</domain>", "its XML has 1000017 characters, more than 1000000"),
        (BOMB, "its XML declares a document type"),
        ("<a>" * 65 + "</a>" * 65, "its XML is nested more than 64 deep"),
        (TWO_NOVAS, "its XML has 2 elements of Nova, of which none can be believed"),
    ],
    ids=["empty", "cut off", "nul", "surrogate", "huge", "entities", "deep", "two owners"],
)
@pytest_twisted.ensureDeferred
async def test_a_domain_whose_xml_cannot_be_used_costs_itself_only(xml: str, reason: str) -> None:
    pollster = instance.configured(LibvirtOptions())
    with capturedLogs() as events:
        samples = await pollster.poll(cycle_of(plain_domain(xml, uuid="bad"), plain_domain(uuid="good")))
    assert [sample.resource_id for sample in samples] == ["good"]
    assert pollster.skipped.count == 1
    [event] = events
    assert event["uuid"] == "bad"
    assert event["reason"].startswith(reason)


@pytest.mark.parametrize("value", [-1, 2**64 - 1, "1", 1.5, True])
@pytest_twisted.ensureDeferred
async def test_a_statistic_that_is_no_count_costs_its_meter_only(value: object) -> None:
    domains = plain_domain(uuid="bad", **{"balloon.current": value}), plain_domain(uuid="good")
    taken = [(sample.name, sample.resource_id) for sample in await polled(*domains)]
    assert [name for name, uuid in taken if uuid == "good"] == ["instance", "cpu", "vcpus", "memory"]
    assert [name for name, uuid in taken if uuid == "bad"] == ["instance", "cpu", "vcpus"]


@pytest_twisted.ensureDeferred
async def test_what_is_skipped_is_told_once_until_the_reason_changes_and_counted_always() -> None:
    pollster = memory.configured(LibvirtOptions())
    missing = Domain("bad", "bad", PLAIN_XML, without(PLAIN_STATS, "balloon.current"))
    negative = plain_domain(uuid="bad", **{"balloon.current": -1})
    well = plain_domain(uuid="bad")
    with capturedLogs() as events:
        for domain in (missing, missing, negative, well, missing):
            await pollster.poll(cycle_of(domain))
    assert [event["reason"] for event in events] == [
        "libvirt does not give balloon.current",
        "balloon.current should be a whole number from 0 to 2**63 - 1, not -1",
        "libvirt does not give balloon.current",
    ]
    assert pollster.skipped.count == 4


def test_pollsters_that_are_configured_count_for_themselves() -> None:
    assert cpu.configured(LibvirtOptions()).skipped is not cpu.skipped
