"""The pollsters of libvirt: from the statistics and the XML of domains to samples."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.plugin import getPlugins
from zope.interface.verify import verifyObject

import meter.pollsters
from meter.interfaces import Disabled
from meter.interfaces import Domain
from meter.interfaces import Enabled
from meter.interfaces import IComputePollster
from meter.interfaces import IDomainPollster
from meter.interfaces import IHypervisor
from meter.interfaces import ISkippedSamples
from meter.interfaces import Unavailable
from meter.pollsters.libvirt import cpu
from meter.pollsters.libvirt import disk
from meter.pollsters.libvirt import disk_device
from meter.pollsters.libvirt import instance
from meter.pollsters.libvirt import memory
from meter.pollsters.libvirt import network
from meter.pollsters.libvirt import perf
from meter.pollsters.libvirt import vcpus
from meter.pollsters.libvirt.pollster import PROBE_SECONDS
from meter.pollsters.libvirt.pollster import GuestPollster
from meter.pollsters.libvirt.sources import Subject
from meter.pollsters.libvirt.table import CPU
from meter.pollsters.libvirt.table import FAMILIES
from meter.pollsters.libvirt.table import Row
from meter.sample import RESERVED_METADATA
from meter.sample import Sample
from meter.settings import ComputeSection
from meter.testing import FakeCycle
from meter.testing import FakeHypervisor
from meter.testing import FakePluginContext

DATA = Path(__file__).parents[3] / "data/libvirt"
UUID = "1dc390e9-43cd-451d-9ae7-01c8bbbe4cac"
NOVA_XML = (DATA / "nova-instance.xml").read_text()
NOVA_STATS: dict[str, Any] = {
    name: int(value) if value.isdecimal() else value
    for name, value in re.findall(r"^  (\S+?)=(.*)$", (DATA / "nova-instance.domstats.txt").read_text(), re.MULTILINE)
}
PLAIN_XML = "<domain><name>plain</name><os><type arch='aarch64'>hvm</type></os></domain>"
PLAIN_STATS = {"state.state": 1, "cpu.time": 7, "vcpu.current": 2, "balloon.current": 1536, "balloon.maximum": 2048}

POLLSTERS = (instance, cpu, vcpus, memory, perf, disk, disk_device, network)


class Lab:
    """What ``[compute]`` says in these tests."""

    def __init__(self, **settings: Any) -> None:
        self.compute = ComputeSection(**settings)


def nova_domain(**changes: Any) -> Domain:
    return Domain(UUID, "cloud-00000001", NOVA_XML, {**NOVA_STATS, **changes})


def plain_domain(xml: str = PLAIN_XML, uuid: str = "plain-uuid", **changes: Any) -> Domain:
    return Domain(uuid, "plain", xml, {**PLAIN_STATS, **changes})


def cycle_of(*domains: Domain, **settings: Any) -> FakeCycle:
    return FakeCycle({IHypervisor: FakeHypervisor(domains)}, config=Lab(**settings))


async def polled(*domains: Domain, **settings: Any) -> list[Sample]:
    """Samples of one cycle of all pollsters."""
    cycle = cycle_of(*domains, **settings)
    return [sample for pollster in POLLSTERS for sample in await pollster.poll(cycle)]


async def only(meter: str, domain: Domain, **settings: Any) -> Sample:
    [sample] = [sample for sample in await polled(domain, **settings) if sample.name == meter]
    return sample


def without(stats: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in stats.items() if name not in names}


# --- as plugins


def test_twisted_finds_them() -> None:
    assert {pollster.name for pollster in getPlugins(IComputePollster, meter.pollsters)} >= set(FAMILIES)


@pytest.mark.parametrize("pollster", POLLSTERS, ids=lambda pollster: pollster.name)
def test_pollster_provides_its_interface(pollster: GuestPollster) -> None:
    assert verifyObject(IDomainPollster, pollster)
    assert pollster.meters == tuple(row.meter for row in FAMILIES[pollster.name])


def test_no_meter_is_made_twice() -> None:
    names = [row.meter.name for rows in FAMILIES.values() for row in rows]
    assert len(set(names)) == len(names)


@pytest_twisted.ensureDeferred
async def test_they_work_where_there_is_a_hypervisor() -> None:
    qemu = FakePluginContext({IHypervisor: FakeHypervisor(uri="qemu+unix:///system?socket=/run/x")})
    assert {await pollster.enabled(qemu) for pollster in POLLSTERS} == {Enabled()}
    assert await cpu.enabled(FakePluginContext()) == Disabled("no hypervisor is configured")


@pytest_twisted.ensureDeferred
async def test_each_says_at_start_what_running_domains_lack() -> None:
    told = {"balloon.available": 1, "perf.cmt": 0}
    domains = [plain_domain(uuid="off")]
    domains += [replace(plain_domain(uuid=str(n), **(told if n == 0 else {})), run=n) for n in range(3)]
    context = FakePluginContext({IHypervisor: FakeHypervisor(domains, uri="qemu:///system")})
    answers = {pollster.name: await pollster.enabled(context) for pollster in POLLSTERS}
    remarks = {name: answer.remark for name, answer in answers.items() if isinstance(answer, Enabled) and answer.remark}
    assert remarks == {
        "memory": "2 of 3 running domains lack a balloon driver in the guest that tells",
        "perf": "2 of 3 running domains lack events of the processor, which <perf> in the XML of a domain enables",
    }


def test_a_libvirt_that_does_not_answer_does_not_hold_up_the_start() -> None:
    class Hanging(FakeHypervisor):
        async def domains(self) -> Any:
            return await Deferred()

    away = FakeHypervisor(uri="qemu:///system")
    away.failure = Unavailable("nobody there")
    clock = Clock()
    for hypervisor in (Hanging(uri="qemu:///system"), away):
        answer = Deferred.fromCoroutine(perf.enabled(FakePluginContext({IHypervisor: hypervisor}, clock=clock)))
        clock.advance(PROBE_SECONDS)
        assert answer.result == Enabled()


@pytest.mark.parametrize(
    ("uri", "off"),
    [("test:///default", {"perf", "disk", "disk.device", "network.interface"}), ("lxc:///system", {"perf"})],
)
@pytest_twisted.ensureDeferred
async def test_each_says_why_it_has_nothing_to_do_with_a_driver(uri: str, off: set[str]) -> None:
    context = FakePluginContext({IHypervisor: FakeHypervisor(uri=uri)})
    answers = {pollster.name: await pollster.enabled(context) for pollster in POLLSTERS}
    assert {name for name, answer in answers.items() if isinstance(answer, Disabled)} == off
    assert all(uri.partition(":")[0] in answers[name].reason for name in off)  # type: ignore[union-attr]


@pytest_twisted.ensureDeferred
async def test_a_cycle_asks_libvirt_once() -> None:
    cycle = cycle_of(nova_domain())
    for pollster in POLLSTERS:
        list(await pollster.poll(cycle))
    assert cycle.provider(IHypervisor).calls == 1


@pytest_twisted.ensureDeferred
async def test_a_hypervisor_that_is_away_makes_them_unavailable() -> None:
    cycle = cycle_of()
    cycle.provider(IHypervisor).failure = Unavailable("libvirt is away")
    with pytest.raises(Unavailable, match="libvirt is away"):
        list(await cpu.poll(cycle))


@pytest_twisted.ensureDeferred
async def test_the_timestamp_is_when_libvirt_answered() -> None:
    clock = Clock()
    clock.advance(1000)

    class SlowHypervisor(FakeHypervisor):
        async def domains(self) -> Any:
            clock.advance(3)
            return await super().domains()

    read_at = datetime.fromtimestamp(1002, UTC)
    told = replace(nova_domain(), uuid="told", read_at=read_at)
    cycle = FakeCycle({IHypervisor: SlowHypervisor([nova_domain(), told])}, clock=clock)
    early = list(await instance.poll(cycle))
    clock.advance(60)
    late = list(await vcpus.poll(cycle))
    times = {(sample.resource_id.partition("-vcpu")[0], sample.timestamp) for sample in [*early, *late]}
    assert times == {(UUID, datetime.fromtimestamp(1003, UTC)), ("told", read_at)}


def simple_table(rows: tuple[Row, ...]) -> str:
    """The rows as the README writes them."""
    cells = [("Meter", "Type", "Unit", "Volume", "Off")]
    cells += [
        (row.meter.name, row.meter.type, row.meter.unit, row.origin(), "yes" if row.when_off else "no") for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    rule = "  ".join("=" * width for width in widths)
    header, *lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    ]
    return "\n".join([rule, header, rule, *lines, rule])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_readme_has_the_table(family: str) -> None:
    readme = Path(meter.pollsters.libvirt.__file__).with_name("README.rst").read_text()
    title = f"\n{family}\n{'~' * len(family)}\n"
    assert simple_table(FAMILIES[family]) in readme.partition(title)[2].partition("~~~")[0]


# --- volumes


@pytest_twisted.ensureDeferred
async def test_a_guest_of_nova_is_metered_as_ceilometer_does() -> None:
    theirs = json.loads((DATA / "ceilometer-cpu-sample.json").read_text())
    ours = await only("cpu", nova_domain(), host="compute-07")
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
    # but for the state, which is Nova's word in all samples
    expected = {**theirs["resource_metadata"], "state": "active", "power_state": theirs["resource_metadata"]["state"]}
    assert without(dict(ours.resource_metadata), RESERVED_METADATA) == expected


@pytest_twisted.ensureDeferred
async def test_a_guest_of_nova_gives_what_its_statistics_tell() -> None:
    assert {(sample.name, sample.resource_id.removeprefix(UUID)): sample.volume for sample in await polled(nova_domain())} == {
        ("instance", ""): 1,
        ("instance:m1.tiny", ""): 1,
        ("power.state", ""): 1,
        ("disk.root.size", ""): 1,
        ("disk.ephemeral.size", ""): 0,
        ("cpu", ""): 9_570_000_000,
        ("vcpus", ""): 1,
        ("vcpu.time", "-vcpu0"): 9_570_000_000,
        ("vcpu.wait", "-vcpu0"): 0,
        ("vcpu.delay", "-vcpu0"): 5_909_648_841,
        ("memory", ""): 64.0,
        ("memory.maximum", ""): 64.0,
        ("memory.resident", ""): 45484 / 1024,
        ("disk.read.requests", ""): 1,
        ("disk.read.bytes", ""): 512,
        ("disk.write.requests", ""): 0,
        ("disk.write.bytes", ""): 0,
        ("disk.flush.requests", ""): 0,
        ("disk.capacity", ""): 1_073_741_824,
        ("disk.allocation", ""): 0,
        ("disk.usage", ""): 1_052_672,
        ("disk.device.read.requests", "-vda"): 1,
        ("disk.device.read.bytes", "-vda"): 512,
        ("disk.device.write.requests", "-vda"): 0,
        ("disk.device.write.bytes", "-vda"): 0,
        ("disk.device.read.latency", "-vda"): 1_974_303,
        ("disk.device.write.latency", "-vda"): 0,
        ("disk.device.flush.requests", "-vda"): 0,
        ("disk.device.flush.latency", "-vda"): 0,
        ("disk.device.capacity", "-vda"): 1_073_741_824,
        ("disk.device.allocation", "-vda"): 0,
        ("disk.device.usage", "-vda"): 1_052_672,
    }  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_what_the_balloon_driver_of_a_guest_tells_is_metered_in_mebibytes() -> None:
    told = {"available": 4096, "usable": 1024, "unused": 512, "swap_in": 2048, "swap_out": 0, "disk_caches": 3072}
    counted = {"major_fault": 3, "minor_fault": 5, "hugetlb_pgalloc": 2, "hugetlb_pgfail": 1}
    domain = plain_domain(**{f"balloon.{name}": value for name, value in {**told, **counted}.items()})
    volumes = {sample.name: sample.volume for sample in await polled(domain)}
    assert {name: volume for name, volume in volumes.items() if name.startswith("memory.")} == {
        "memory.maximum": 2.0,
        "memory.available": 4.0,
        "memory.usage": 3.0,
        "memory.caches": 3.0,
        "memory.swap.in": 2.0,
        "memory.swap.out": 0.0,
        "memory.faults.major": 3,
        "memory.faults.minor": 5,
        "memory.hugepages.allocated": 2,
        "memory.hugepages.failed": 1,
    }


@pytest_twisted.ensureDeferred
async def test_the_usage_of_memory_is_what_is_not_unused_where_usable_is_not_told() -> None:
    domain = plain_domain(**{"balloon.available": 4096, "balloon.unused": 1024})
    assert (await only("memory.usage", domain)).volume == 3.0


@pytest_twisted.ensureDeferred
async def test_events_of_the_processor_are_metered_where_they_are_counted() -> None:
    names = ("cmt", "mbmt", "mbml", "cpu_cycles", "instructions", "cache_references", "cache_misses")
    domain = plain_domain(**{f"perf.{name}": number for number, name in enumerate(names)})
    assert {sample.name: sample.volume for sample in await perf.poll(cycle_of(domain))} == {
        "cpu_l3_cache": 0,
        "memory.bandwidth.total": 1,
        "memory.bandwidth.local": 2,
        "perf.cpu.cycles": 3,
        "perf.instructions": 4,
        "perf.cache.references": 5,
        "perf.cache.misses": 6,
    }


@pytest_twisted.ensureDeferred
async def test_what_nobody_asked_for_is_not_left_out() -> None:
    counted = Counted()
    cycle = FakeCycle({IHypervisor: FakeHypervisor([plain_domain()]), ISkippedSamples: counted})
    assert list(await perf.poll(cycle)) == []
    list(await instance.poll(cycle))
    assert counted.counts == {}, "neither events of the processor nor the disks of a flavor"


@pytest_twisted.ensureDeferred
async def test_cpu_is_the_time_of_all_plugged_processors_running_and_waiting() -> None:
    three_of_four = {
        "vcpu.current": 3,
        "vcpu.maximum": 4,
        **{f"vcpu.{number}.time": 100 * number for number in (0, 1, 3)},
        **{f"vcpu.{number}.wait": number for number in (0, 1, 3)},
    }
    assert (await only("cpu", plain_domain(**three_of_four))).volume == 404


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
    sample = await only("cpu", plain_domain(**incomplete))
    assert sample.volume == 7
    assert sample.resource_metadata["cpu_number"] == incomplete["vcpu.current"]


def test_a_pretended_million_of_processors_takes_no_time() -> None:
    pretended = Subject({"vcpu.current": 1, "vcpu.maximum": 2**60}, "", "r", {}, 1)
    assert CPU[0].reading(pretended) is None


@pytest_twisted.ensureDeferred
async def test_a_domain_that_is_shut_off_exists_and_occupies_its_disks() -> None:
    off = {"state.state": 5, "block.count": 1, "block.0.name": "vda", "block.0.physical": 7, "block.0.capacity": 9}
    assert {sample.name: sample.volume for sample in await polled(plain_domain(**off))} == {
        "instance": 1,
        "power.state": 5,
        "disk.capacity": 9,
        "disk.usage": 7,
        "disk.device.capacity": 9,
        "disk.device.usage": 7,
    }


@pytest.mark.parametrize("state", [0, 2, 3, 4, 6, 7])
@pytest_twisted.ensureDeferred
async def test_in_every_other_state_all_is_metered(state: int) -> None:
    running = {sample.name for sample in await polled(nova_domain())}
    assert {sample.name for sample in await polled(nova_domain(**{"state.state": state}))} == running


# --- disks and interfaces

TWO_DISKS = {
    "block.count": 3,
    **{
        f"block.{index}.{name}": value
        for index, disk_name in enumerate(("vda", "vdb"))
        for name, value in {
            "name": disk_name,
            "path": f"/disks/{disk_name}",
            "rd.bytes": 100 * (index + 1),
            "capacity": 5,
            "physical": 10,
            "allocation": 3,
        }.items()
    },
    "block.2.name": "hdc",
    "block.2.rd.bytes": 0,
}


@pytest_twisted.ensureDeferred
async def test_each_disk_is_a_resource_and_their_sum_is_the_domains() -> None:
    samples = await polled(plain_domain(**TWO_DISKS))
    read = {sample.resource_id: sample for sample in samples if sample.name == "disk.device.read.bytes"}
    assert {resource: sample.volume for resource, sample in read.items()} == {
        "plain-uuid-vda": 100,
        "plain-uuid-vdb": 200,
        "plain-uuid-hdc": 0,
    }
    assert read["plain-uuid-vdb"].resource_metadata["disk_name"] == "vdb"
    sums = {
        sample.name: sample.volume
        for sample in samples
        if sample.name.startswith("disk.") and "device" not in sample.name
    }
    assert sums == {"disk.read.bytes": 300, "disk.capacity": 20, "disk.usage": 20, "disk.allocation": 6}  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_there_is_no_sum_while_a_disk_tells_nothing() -> None:
    stats = without({**PLAIN_STATS, **TWO_DISKS}, "block.1.rd.bytes", "block.1.allocation")
    names = {sample.name for sample in await polled(Domain("u", "n", PLAIN_XML, stats))}
    assert {"disk.device.read.bytes", "disk.device.allocation", "disk.capacity"} <= names
    assert not {"disk.read.bytes", "disk.allocation"} & names


TWO_INTERFACES = {
    "net.count": 2,
    **{
        f"net.{index}.{way}.{name}": 10 * index + number
        for index in (0, 1)
        for number, (way, name) in enumerate(
            (way, name) for way in ("rx", "tx") for name in ("bytes", "pkts", "errs", "drop")
        )
    },
    "net.0.name": "tap0",
    "net.1.name": "tap1",
}
INTERFACES_XML = """<domain><name>plain</name><devices>
  <interface type='bridge'>
    <mac address='52:54:00:00:00:01'/><source bridge='br0'/><target dev='tap0'/>
    <virtualport type='openvswitch'><parameters interfaceid='port-1'/></virtualport>
    <filterref filter='clean-traffic'><parameter name='IP' value='10.0.0.7'/></filterref>
  </interface>
  <interface type='user'><mac address='52:54:00:00:00:02'/></interface>
</devices></domain>"""


@pytest_twisted.ensureDeferred
async def test_each_interface_is_a_resource_described_as_ceilometer_does() -> None:
    samples = list(await network.poll(cycle_of(plain_domain(INTERFACES_XML, **TWO_INTERFACES))))
    first = {sample.name: sample for sample in samples if sample.resource_id == "plain-plain-uuid-tap0"}
    second = {sample.name: sample for sample in samples if sample.resource_id == "plain-plain-uuid-tap1"}
    volumes = {
        f"network.{way}.{name}": 4 * (way == "outgoing") + number
        for way in ("incoming", "outgoing")
        for number, name in enumerate(("bytes", "packets", "packets.error", "packets.drop"))
    }
    assert {name: sample.volume for name, sample in first.items()} == volumes
    assert {name: sample.volume for name, sample in second.items()} == {n: 10 + v for n, v in volumes.items()}
    told = first["network.incoming.bytes"].resource_metadata
    assert {key: told[key] for key in ("name", "vnic_name", "mac", "fref", "parameters", "instance_id")} == {
        "name": "tap0",
        "vnic_name": "tap0",
        "mac": "52:54:00:00:00:01",
        "fref": "clean-traffic",
        "parameters": {"ip": "10.0.0.7", "interfaceid": "port-1", "bridge": "br0"},
        "instance_id": "plain-uuid",
    }


@pytest_twisted.ensureDeferred
async def test_an_interface_with_a_filter_of_novas_has_its_name() -> None:
    xml = NOVA_XML.replace(
        "<devices>",
        "<devices><interface type='bridge'><target dev='tap0'/><filterref filter='nova-instance-1'/></interface>",
    )
    domain = Domain(UUID, "n", xml, {**NOVA_STATS, "net.count": 1, "net.0.name": "tap0", "net.0.rx.bytes": 1})
    assert (await only("network.incoming.bytes", domain)).resource_id == "nova-instance-1"


@pytest.mark.parametrize("count", [-1, "3", 2**64 - 1])
@pytest_twisted.ensureDeferred
async def test_a_number_of_devices_that_is_none_costs_the_devices_only(count: object) -> None:
    with capturedLogs():
        samples = await polled(plain_domain(**{**TWO_DISKS, "block.count": count}))
    names = {sample.name for sample in samples}
    assert "cpu" in names
    assert not any(name.startswith("disk.") for name in names)


# --- metadata


@pytest_twisted.ensureDeferred
async def test_the_older_namespace_of_nova_is_read_as_well() -> None:
    older = Domain(UUID, "old", NOVA_XML.replace("nova/1.1", "nova/1.0"), NOVA_STATS)
    assert (await only("instance", older)).project_id == "b6e8cc20ee9c457e83f13218eca89c43"


@pytest_twisted.ensureDeferred
async def test_a_domain_without_nova_has_the_configured_owner_and_the_same_keys() -> None:
    plain = await only("instance", plain_domain(), default_project_id="lab", default_user_id="operator", host="tower")
    assert (plain.project_id, plain.user_id) == ("lab", "operator")
    told = {key: value for key, value in plain.resource_metadata.items() if value is not None}
    assert told.pop("host") != "tower"
    assert told.pop(RESERVED_METADATA)["run"].startswith("tower/")
    assert told == {
        "display_name": "plain",
        "name": "plain",
        "instance_id": "plain-uuid",
        "instance_host": "tower",
        "status": "active",
        "state": "active",
        "power_state": "running",
        "task_state": "",
        "architecture": "aarch64",
        "os_type": "hvm",
        "vcpus": 2,
        "memory_mb": 2,
    }
    novas = await only("instance", nova_domain())
    assert set(novas.resource_metadata) - set(plain.resource_metadata) == {"image_meta"}


@pytest_twisted.ensureDeferred
async def test_the_owner_that_nova_names_is_not_replaced_by_the_configured_one() -> None:
    sample = await only("instance", nova_domain(), default_project_id="lab", default_user_id="operator")
    assert sample.project_id == "b6e8cc20ee9c457e83f13218eca89c43"
    assert sample.user_id == "4cc236f0eb364412abb1024bc6ffbdf3"


@pytest_twisted.ensureDeferred
async def test_without_settings_a_plain_domain_belongs_to_nobody() -> None:
    sample = await only("instance", plain_domain())
    assert (sample.project_id, sample.user_id) == (None, None)


@pytest_twisted.ensureDeferred
async def test_the_ephemeral_disk_counts_as_in_novas_notifications() -> None:
    xml = NOVA_XML.replace("<nova:disk>1<", "<nova:disk>20<").replace("<nova:ephemeral>0<", "<nova:ephemeral>5<")
    metadata = (await only("instance", Domain(UUID, "big", xml, NOVA_STATS))).resource_metadata
    assert {key: metadata[key] for key in ("root_gb", "ephemeral_gb", "disk_gb")} == {
        "root_gb": 20,
        "ephemeral_gb": 5,
        "disk_gb": 25,
    }


@pytest_twisted.ensureDeferred
async def test_a_size_that_is_no_number_is_unknown() -> None:
    xml = NOVA_XML.replace("<nova:vcpus>1<", f"<nova:vcpus>{'9' * 5000}<")
    assert (await only("instance", Domain(UUID, "odd", xml, NOVA_STATS))).resource_metadata["vcpus"] is None


@pytest_twisted.ensureDeferred
async def test_properties_of_the_image_and_extra_specs_are_told() -> None:
    xml = NOVA_XML.replace(
        "<nova:properties/>",
        '<nova:properties><nova:property name="hw_rng_model">virtio</nova:property></nova:properties>',
    ).replace(
        "<nova:extraSpecs/>",
        '<nova:extraSpecs><nova:extraSpec name="hw:cpu_policy">shared</nova:extraSpec></nova:extraSpecs>',
    )
    metadata = (await only("instance", Domain(UUID, "rich", xml, NOVA_STATS))).resource_metadata
    assert metadata["image_meta"]["hw_rng_model"] == "virtio"
    assert metadata["flavor"]["extra_specs"] == {"hw:cpu_policy": "shared"}


@pytest_twisted.ensureDeferred
async def test_a_changed_description_counts_from_the_next_cycle_on_and_a_gone_one_is_forgotten() -> None:
    cycle = cycle_of(nova_domain())
    list(await instance.poll(cycle))
    hypervisor = cycle.provider(IHypervisor)
    hypervisor.running = [Domain(UUID, "renamed", NOVA_XML.replace("qemu-kept-6b031417", "renamed"), NOVA_STATS)]
    second = cycle.following()
    [sample] = [one for one in await instance.poll(second) if one.name == "instance"]
    assert sample.resource_metadata["display_name"] == "renamed"
    hypervisor.running = []
    list(await instance.poll(second.following()))
    assert len(cycle.daemon_cache("libvirt descriptions", list)) == 0


@pytest_twisted.ensureDeferred
async def test_what_has_happened_to_a_domain_is_told_with_its_state() -> None:
    stopped = replace(nova_domain(**{"state.state": 5}), event="stopped (destroyed)")
    sample = await only("power.state", stopped)
    assert (sample.volume, sample.resource_metadata["event"]) == (5, "stopped (destroyed)")


@pytest_twisted.ensureDeferred
async def test_the_last_reading_of_a_domain_has_what_it_counted_and_leaves_its_gauges_to_its_stop() -> None:
    ending = replace(nova_domain(**{"state.state": 4}), event="shutting down (by guest)")
    types = {sample.name: sample.type for sample in await polled(ending)}
    assert {"cpu", "disk.read.bytes"} <= set(types)
    assert "gauge" not in types.values()


@pytest_twisted.ensureDeferred
async def test_a_domain_that_a_cycle_finds_shutting_down_is_metered_in_full() -> None:
    names = {sample.name for sample in await polled(nova_domain(**{"state.state": 4}))}
    assert {"instance", "power.state", "memory", "cpu"} <= names


@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        ({"state.state": 0}, ("building", "pending")),
        ({"state.state": 1}, ("active", "running")),
        ({"state.state": 2}, ("active", "running")),
        ({"state.state": 3}, ("paused", "paused")),
        ({"state.state": 4}, ("stopped", "shutdown")),
        ({"state.state": 5, "state.reason": 1}, ("stopped", "shutdown")),
        ({"state.state": 5, "state.reason": 5}, ("suspended", "shutdown")),
        ({"state.state": 6}, ("error", "crashed")),
        ({"state.state": 7}, ("suspended", "suspended")),
        ({"state.state": 99}, ("unknown", "unknown")),
        ({}, ("unknown", "unknown")),
    ],
)
@pytest_twisted.ensureDeferred
async def test_states_are_novas_words_beside_which_libvirts_stand(
    stats: dict[str, int], expected: tuple[str, str]
) -> None:
    rest = {name: value for name, value in NOVA_STATS.items() if not name.startswith("state.")}
    sample = await only("instance", replace(nova_domain(), stats={**rest, **stats}))
    metadata = sample.resource_metadata
    assert (metadata["state"], metadata["power_state"]) == expected
    assert metadata["status"] == metadata["state"]


@pytest_twisted.ensureDeferred
async def test_a_domain_that_has_just_been_saved_is_suspended() -> None:
    saved = Domain(UUID, "cloud-00000001", NOVA_XML, {"state.state": 5}, event="stopped (saved)")
    assert (await only("instance", saved)).resource_metadata["state"] == "suspended"


# --- bad input

TWO_NOVAS = NOVA_XML.replace(
    "</metadata>", '<n:instance xmlns:n="http://openstack.org/xmlns/libvirt/nova/1.0"/></metadata>'
)
OLD_NAMESPACE = "http://openstack.org/xmlns/libvirt/nova/1.0"


def both_namespaces(**changes: str) -> str:
    """The domain as an older Nova described it as well, with ``changes`` of words in what that one wrote."""
    _, inner = NOVA_XML.split('<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">')
    inner = inner.split("</nova:instance>")[0]
    for word, other in changes.items():
        assert word in inner
        inner = inner.replace(word, other)
    old = f'<nova:instance xmlns:nova="{OLD_NAMESPACE}">{inner}</nova:instance>'
    return NOVA_XML.replace("<metadata>", f"<metadata>{old}")


@pytest_twisted.ensureDeferred
async def test_a_domain_that_two_novas_describe_alike_is_metered_by_the_newer() -> None:
    xml = both_namespaces(**{"qemu-kept-6b031417": "its old name"})
    sample = await only("instance", replace(nova_domain(), xml=xml))
    plain = await only("instance", nova_domain())
    assert (sample.project_id, sample.user_id) == (plain.project_id, plain.user_id)
    differing = {key for key, value in plain.resource_metadata.items() if sample.resource_metadata[key] != value}
    assert differing <= {RESERVED_METADATA}
    assert sample.resource_metadata["display_name"] == "qemu-kept-6b031417"


@pytest.mark.parametrize(
    ("xml", "disagreement"),
    [
        (both_namespaces(b6e8cc20ee9c457e83f13218eca89c43="other"), "owner/project has more than one uuid"),
        (both_namespaces(**{"4cc236f0eb364412abb1024bc6ffbdf3": "other"}), "owner/user has more than one uuid"),
        (both_namespaces(**{"m1.tiny": "m1.large"}), "flavor has more than one name"),
        (both_namespaces(**{"<nova:vcpus>1": "<nova:vcpus>8"}), "flavor/vcpus is there more than once: 1, 8"),
        (
            NOVA_XML.replace("</nova:owner>", '</nova:owner><nova:owner><nova:project uuid="other"/></nova:owner>'),
            "owner/project has more than one uuid",
        ),
        (
            NOVA_XML.replace("<nova:image ", '<nova:flavor name="m1.large"/><nova:image '),
            "flavor has more than one name: m1.large, m1.tiny",
        ),
        (
            NOVA_XML.replace("</nova:owner>", '<nova:user uuid="other">x</nova:user></nova:owner>'),
            "owner/user has more than one uuid",
        ),
    ],
    ids=["project", "user", "flavor", "size", "two owners", "two flavors", "two users"],
)
@pytest_twisted.ensureDeferred
async def test_a_domain_with_two_owners_or_flavors_is_not_metered_and_the_log_names_them(
    xml: str, disagreement: str
) -> None:
    with capturedLogs() as events:
        assert not await polled(replace(nova_domain(), xml=xml))
    [event] = events
    assert disagreement in event["why"]


BOMB = '<!DOCTYPE domain [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><domain><name>&b;</name></domain>'


class Counted:
    """Counts omissions as a daemon does."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}

    def samples_skipped(self, plugin: str, reason: str, count: int = 1) -> None:
        self.counts[plugin, reason] = self.counts.get((plugin, reason), 0) + count


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
        (NOVA_XML.replace("b6e8cc20ee9c457e83f13218eca89c43", "p" * 513), "the id of its owner has more than 512"),
    ],
    ids=["empty", "cut off", "nul", "surrogate", "huge", "entities", "deep", "two owners", "long owner"],
)
@pytest_twisted.ensureDeferred
async def test_a_domain_whose_xml_cannot_be_used_costs_itself_only(xml: str, reason: str) -> None:
    counted = Counted()
    domains = FakeHypervisor([plain_domain(xml, uuid="bad"), plain_domain(uuid="good")])
    cycle = FakeCycle({IHypervisor: domains, ISkippedSamples: counted})
    with capturedLogs() as events:
        samples = [sample for pollster in POLLSTERS for sample in await pollster.poll(cycle)]
    assert {sample.resource_id for sample in samples} == {"good"}
    assert counted.counts["instance", "xml"] == counted.counts["cpu", "xml"] == 1
    [event] = events
    assert event["what"] == "domain bad"
    assert event["why"].startswith(reason)


@pytest.mark.parametrize(
    ("value", "reason"),
    [(-1, "invalid"), (2**64 - 1, "unknown"), ("1", "invalid"), (1.5, "invalid"), (True, "invalid")],
)
@pytest_twisted.ensureDeferred
async def test_a_statistic_that_is_no_count_costs_its_meter_only(value: object, reason: str) -> None:
    counted = Counted()
    domains = FakeHypervisor([plain_domain(uuid="bad", **{"balloon.current": value}), plain_domain(uuid="good")])
    with capturedLogs():
        samples = list(await memory.poll(FakeCycle({IHypervisor: domains, ISkippedSamples: counted})))
    taken = [(sample.name, sample.resource_id) for sample in samples]
    assert taken == [("memory", "good"), ("memory.maximum", "bad"), ("memory.maximum", "good")]
    assert counted.counts["memory", reason] == 1


@pytest_twisted.ensureDeferred
async def test_what_is_left_out_is_told_once_until_the_reason_changes_and_counted_always() -> None:
    missing = Domain("bad", "bad", PLAIN_XML, without(PLAIN_STATS, "balloon.current"))
    negative = plain_domain(uuid="bad", **{"balloon.current": -1})
    well = plain_domain(uuid="bad")
    counted = Counted()
    cycle = FakeCycle({IHypervisor: FakeHypervisor(), ISkippedSamples: counted})
    with capturedLogs() as events:
        for domain in (missing, missing, negative, well, missing):
            cycle.provider(IHypervisor).running = [domain]
            list(await memory.poll(cycle))
            cycle = cycle.following()
    assert [event["why"] for event in events] == [
        "libvirt does not give balloon.current",
        "balloon.current should be a whole number from 0 to 2**63 - 1, not -1",
        "libvirt does not give balloon.current",
    ]
    assert counted.counts["memory", "invalid"] == 1


@pytest_twisted.ensureDeferred
async def test_a_host_full_of_trouble_takes_few_lines() -> None:
    with capturedLogs() as events:
        list(await cpu.poll(cycle_of(*(Domain(str(n), "n", PLAIN_XML, {}) for n in range(200)))))
    assert len(events) == 21
    assert events[-1]["more"] == 580
