"""The pollsters of libvirt: from the statistics and the XML of domains to samples."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
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
from meter.pollsters.libvirt.pollster import PROBE_TIMEOUT_SECONDS
from meter.pollsters.libvirt.pollster import GuestPollster
from meter.pollsters.libvirt.sources import Measured
from meter.pollsters.libvirt.table import CPU
from meter.pollsters.libvirt.table import FAMILIES
from meter.pollsters.libvirt.table import MeterRow
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


class ComputeConfig:
    """A configuration with ``[compute]`` only."""

    def __init__(self, **settings: Any) -> None:
        self.compute = ComputeSection(**settings)


def nova_domain(**changes: Any) -> Domain:
    return Domain(UUID, "cloud-00000001", NOVA_XML, {**NOVA_STATS, **changes})


def plain_domain(xml: str = PLAIN_XML, uuid: str = "plain-uuid", **changes: Any) -> Domain:
    return Domain(uuid, "plain", xml, {**PLAIN_STATS, **changes})


def cycle_of(*domains: Domain, **settings: Any) -> FakeCycle:
    return FakeCycle({IHypervisor: FakeHypervisor(domains)}, config=ComputeConfig(**settings))


async def polled(*domains: Domain, **settings: Any) -> list[Sample]:
    """The samples of all pollsters in one cycle."""
    cycle = cycle_of(*domains, **settings)
    return [sample for pollster in POLLSTERS for sample in await pollster.poll(cycle)]


async def only(meter: str, domain: Domain, **settings: Any) -> Sample:
    [sample] = [sample for sample in await polled(domain, **settings) if sample.name == meter]
    return sample


def without(stats: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in stats.items() if name not in names}


# --- as plugins


def test_twisted_finds_all_pollsters() -> None:
    assert {pollster.name for pollster in getPlugins(IComputePollster, meter.pollsters)} >= set(FAMILIES)


@pytest.mark.parametrize("pollster", POLLSTERS, ids=lambda pollster: pollster.name)
def test_pollster_provides_its_interface(pollster: GuestPollster) -> None:
    assert verifyObject(IDomainPollster, pollster)
    assert pollster.meters == tuple(row.meter for row in FAMILIES[pollster.name])


def test_no_two_rows_have_the_same_meter() -> None:
    names = [row.meter.name for rows in FAMILIES.values() for row in rows]
    assert len(set(names)) == len(names)


@pytest_twisted.ensureDeferred
async def test_pollsters_are_enabled_with_a_hypervisor() -> None:
    qemu = FakePluginContext({IHypervisor: FakeHypervisor(uri="qemu+unix:///system?socket=/run/x")})
    assert {await pollster.enabled(qemu) for pollster in POLLSTERS} == {Enabled()}
    assert await cpu.enabled(FakePluginContext()) == Disabled("no hypervisor is configured")


@pytest_twisted.ensureDeferred
async def test_enabled_reports_what_running_domains_lack() -> None:
    extra = {"balloon.available": 1, "perf.cmt": 0}
    domains = [plain_domain(uuid="off")]
    domains += [replace(plain_domain(uuid=str(n), **(extra if n == 0 else {})), run=n) for n in range(3)]
    context = FakePluginContext({IHypervisor: FakeHypervisor(domains, uri="qemu:///system")})
    answers = {pollster.name: await pollster.enabled(context) for pollster in POLLSTERS}
    remarks = {name: answer.remark for name, answer in answers.items() if isinstance(answer, Enabled) and answer.remark}
    assert remarks == {
        "memory": "running domains without the statistics of a balloon driver in the guest: 2 of 3",
        "perf": "running domains without perf events, which <perf> in the XML of a domain enables: 2 of 3",
    }


def test_unresponsive_libvirt_does_not_delay_the_start() -> None:
    class Hanging(FakeHypervisor):
        async def domains(self) -> Any:
            return await Deferred()

    away = FakeHypervisor(uri="qemu:///system")
    away.failure = Unavailable("nobody there")
    clock = Clock()
    for hypervisor in (Hanging(uri="qemu:///system"), away):
        answer = Deferred.fromCoroutine(perf.enabled(FakePluginContext({IHypervisor: hypervisor}, clock=clock)))
        clock.advance(PROBE_TIMEOUT_SECONDS)
        assert answer.result == Enabled()


@pytest.mark.parametrize(
    ("uri", "off"),
    [("test:///default", {"perf", "disk", "disk.device", "network.interface"}), ("lxc:///system", {"perf"})],
)
@pytest_twisted.ensureDeferred
async def test_pollsters_are_disabled_for_drivers_without_their_statistics(uri: str, off: set[str]) -> None:
    context = FakePluginContext({IHypervisor: FakeHypervisor(uri=uri)})
    answers = {pollster.name: await pollster.enabled(context) for pollster in POLLSTERS}
    assert {name for name, answer in answers.items() if isinstance(answer, Disabled)} == off
    assert all(uri.partition(":")[0] in answers[name].reason for name in off)  # type: ignore[union-attr]


@pytest_twisted.ensureDeferred
async def test_cycle_reads_the_domains_once() -> None:
    cycle = cycle_of(nova_domain())
    for pollster in POLLSTERS:
        list(await pollster.poll(cycle))
    assert cycle.provider(IHypervisor).calls == 1


@pytest_twisted.ensureDeferred
async def test_poll_is_unavailable_while_libvirt_is() -> None:
    cycle = cycle_of()
    cycle.provider(IHypervisor).failure = Unavailable("libvirt is away")
    with pytest.raises(Unavailable, match="libvirt is away"):
        list(await cpu.poll(cycle))


@pytest_twisted.ensureDeferred
async def test_timestamp_is_the_time_of_libvirts_response() -> None:
    clock = Clock()
    clock.advance(1000)

    class SlowHypervisor(FakeHypervisor):
        async def domains(self) -> Any:
            clock.advance(3)
            return await super().domains()

    read_at = datetime.fromtimestamp(1002, UTC)
    timed = replace(nova_domain(), uuid="timed", read_at=read_at)
    cycle = FakeCycle({IHypervisor: SlowHypervisor([nova_domain(), timed])}, clock=clock)
    early = list(await instance.poll(cycle))
    clock.advance(60)
    late = list(await vcpus.poll(cycle))
    times = {(sample.resource_id.partition("-vcpu")[0], sample.timestamp) for sample in [*early, *late]}
    assert times == {(UUID, datetime.fromtimestamp(1003, UTC)), ("timed", read_at)}


def simple_table(rows: tuple[MeterRow, ...]) -> str:
    """The rows as a table in the format of the README."""
    cells = [("Meter", "Type", "Unit", "Volume", "Off")]
    cells += [
        (
            row.meter.name,
            row.meter.type,
            row.meter.unit,
            row.formula(),
            "yes" if row.when_off else "0" if row.zero_when_off else "no",
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    rule = "  ".join("=" * width for width in widths)
    header, *lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    ]
    return "\n".join([rule, header, rule, *lines, rule])


@pytest.mark.parametrize("family", FAMILIES)
def test_readme_has_the_table_of_each_family(family: str) -> None:
    readme = Path(meter.pollsters.libvirt.__file__).with_name("README.rst").read_text()
    title = f"\n{family}\n{'~' * len(family)}\n"
    assert simple_table(FAMILIES[family]) in readme.partition(title)[2].partition("~~~")[0]


# --- volumes


@pytest_twisted.ensureDeferred
async def test_nova_guest_has_the_same_sample_as_from_ceilometer() -> None:
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
    # except the state, which is Nova's vm_state in all samples
    expected = {**theirs["resource_metadata"], "state": "active", "power_state": theirs["resource_metadata"]["state"]}
    assert without(dict(ours.resource_metadata), RESERVED_METADATA) == expected


@pytest_twisted.ensureDeferred
async def test_nova_guest_has_the_volumes_of_its_statistics() -> None:
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
async def test_balloon_statistics_are_metered_in_mebibytes() -> None:
    balloon = {"available": 4096, "usable": 1024, "unused": 512, "swap_in": 2048, "swap_out": 0, "disk_caches": 3072}
    counted = {"major_fault": 3, "minor_fault": 5, "hugetlb_pgalloc": 2, "hugetlb_pgfail": 1}
    domain = plain_domain(**{f"balloon.{name}": value for name, value in {**balloon, **counted}.items()})
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
async def test_memory_usage_is_computed_from_unused_without_usable() -> None:
    domain = plain_domain(**{"balloon.available": 4096, "balloon.unused": 1024})
    assert (await only("memory.usage", domain)).volume == 3.0


@pytest_twisted.ensureDeferred
async def test_perf_events_are_metered_if_enabled() -> None:
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
async def test_missing_optional_statistics_are_not_counted_as_skipped() -> None:
    counted = Counted()
    cycle = FakeCycle({IHypervisor: FakeHypervisor([plain_domain()]), ISkippedSamples: counted})
    assert list(await perf.poll(cycle)) == []
    list(await instance.poll(cycle))
    assert counted.counts == {}, "perf events and the disks of a flavor are optional"


@pytest_twisted.ensureDeferred
async def test_cpu_is_the_running_and_waiting_time_of_all_plugged_vcpus() -> None:
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
async def test_cpu_is_libvirts_sum_if_a_vcpu_is_unknown(incomplete: dict[str, int]) -> None:
    sample = await only("cpu", plain_domain(**incomplete))
    assert sample.volume == 7
    assert sample.resource_metadata["cpu_number"] == incomplete["vcpu.current"]


def test_number_of_vcpus_is_bounded() -> None:
    pretended = Measured({"vcpu.current": 1, "vcpu.maximum": 2**60}, "", "r", {}, 1)
    assert CPU[0].read(pretended) is None


@pytest_twisted.ensureDeferred
async def test_shut_off_domain_has_existence_state_and_disk_sizes() -> None:
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
async def test_domain_in_any_other_state_is_metered_in_full(state: int) -> None:
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
async def test_disks_are_resources_and_their_sum_is_the_domains() -> None:
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
async def test_sum_of_disks_is_skipped_if_a_disk_lacks_the_value() -> None:
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
async def test_interfaces_are_resources_with_ceilometers_metadata() -> None:
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
    metadata = first["network.incoming.bytes"].resource_metadata
    assert {key: metadata[key] for key in ("name", "vnic_name", "mac", "fref", "parameters", "instance_id")} == {
        "name": "tap0",
        "vnic_name": "tap0",
        "mac": "52:54:00:00:00:01",
        "fref": "clean-traffic",
        "parameters": {"ip": "10.0.0.7", "interfaceid": "port-1", "bridge": "br0"},
        "instance_id": "plain-uuid",
    }


@pytest_twisted.ensureDeferred
async def test_interface_with_a_nova_filter_has_the_filters_name() -> None:
    xml = NOVA_XML.replace(
        "<devices>",
        "<devices><interface type='bridge'><target dev='tap0'/><filterref filter='nova-instance-1'/></interface>",
    )
    domain = Domain(UUID, "n", xml, {**NOVA_STATS, "net.count": 1, "net.0.name": "tap0", "net.0.rx.bytes": 1})
    assert (await only("network.incoming.bytes", domain)).resource_id == "nova-instance-1"


@pytest.mark.parametrize("count", [-1, "3", 2**64 - 1])
@pytest_twisted.ensureDeferred
async def test_invalid_device_count_affects_only_the_devices(count: object) -> None:
    with capturedLogs():
        samples = await polled(plain_domain(**{**TWO_DISKS, "block.count": count}))
    names = {sample.name for sample in samples}
    assert "cpu" in names
    assert not any(name.startswith("disk.") for name in names)


# --- metadata


@pytest_twisted.ensureDeferred
async def test_older_namespace_of_nova_is_supported() -> None:
    older = Domain(UUID, "old", NOVA_XML.replace("nova/1.1", "nova/1.0"), NOVA_STATS)
    assert (await only("instance", older)).project_id == "b6e8cc20ee9c457e83f13218eca89c43"


@pytest_twisted.ensureDeferred
async def test_domain_without_nova_has_the_configured_owner_and_the_same_keys() -> None:
    plain = await only("instance", plain_domain(), default_project_id="lab", default_user_id="operator", host="tower")
    assert (plain.project_id, plain.user_id) == ("lab", "operator")
    known = {key: value for key, value in plain.resource_metadata.items() if value is not None}
    assert known.pop("host") != "tower"
    assert known.pop(RESERVED_METADATA)["run"].startswith("tower/")
    assert known == {
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
async def test_configured_owner_does_not_replace_novas_owner() -> None:
    sample = await only("instance", nova_domain(), default_project_id="lab", default_user_id="operator")
    assert sample.project_id == "b6e8cc20ee9c457e83f13218eca89c43"
    assert sample.user_id == "4cc236f0eb364412abb1024bc6ffbdf3"


@pytest_twisted.ensureDeferred
async def test_plain_domain_has_no_owner_by_default() -> None:
    sample = await only("instance", plain_domain())
    assert (sample.project_id, sample.user_id) == (None, None)


@pytest_twisted.ensureDeferred
async def test_disk_gb_includes_the_ephemeral_disk() -> None:
    xml = NOVA_XML.replace("<nova:disk>1<", "<nova:disk>20<").replace("<nova:ephemeral>0<", "<nova:ephemeral>5<")
    metadata = (await only("instance", Domain(UUID, "big", xml, NOVA_STATS))).resource_metadata
    assert {key: metadata[key] for key in ("root_gb", "ephemeral_gb", "disk_gb")} == {
        "root_gb": 20,
        "ephemeral_gb": 5,
        "disk_gb": 25,
    }


@pytest_twisted.ensureDeferred
async def test_flavor_size_that_is_not_a_number_is_none() -> None:
    xml = NOVA_XML.replace("<nova:vcpus>1<", f"<nova:vcpus>{'9' * 5000}<")
    assert (await only("instance", Domain(UUID, "odd", xml, NOVA_STATS))).resource_metadata["vcpus"] is None


@pytest_twisted.ensureDeferred
async def test_metadata_have_image_properties_and_extra_specs() -> None:
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
async def test_changed_xml_is_parsed_again_and_deleted_domains_leave_the_cache() -> None:
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
async def test_power_state_has_the_event_in_its_metadata() -> None:
    stopped = replace(nova_domain(**{"state.state": 5}), event="stopped (destroyed)")
    sample = await only("power.state", stopped)
    assert (sample.volume, sample.resource_metadata["event"]) == (5, "stopped (destroyed)")


@pytest_twisted.ensureDeferred
async def test_domain_that_is_shutting_down_by_an_event_has_counters_only() -> None:
    ending = replace(nova_domain(**{"state.state": 4}), event="shutting down (by guest)")
    types = {sample.name: sample.type for sample in await polled(ending)}
    assert {"cpu", "disk.read.bytes"} <= set(types)
    assert "gauge" not in types.values()


@pytest_twisted.ensureDeferred
async def test_domain_found_shutting_down_by_a_cycle_is_metered_in_full() -> None:
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
async def test_metadata_have_novas_vm_state_and_libvirts_power_state(
    stats: dict[str, int], expected: tuple[str, str]
) -> None:
    rest = {name: value for name, value in NOVA_STATS.items() if not name.startswith("state.")}
    sample = await only("instance", replace(nova_domain(), stats={**rest, **stats}))
    metadata = sample.resource_metadata
    assert (metadata["state"], metadata["power_state"]) == expected
    assert metadata["status"] == metadata["state"]


@pytest_twisted.ensureDeferred
async def test_domain_that_was_just_saved_is_suspended() -> None:
    saved = Domain(UUID, "cloud-00000001", NOVA_XML, {"state.state": 5}, event="stopped (saved)")
    assert (await only("instance", saved)).resource_metadata["state"] == "suspended"


# --- bad input

TWO_NOVAS = NOVA_XML.replace(
    "</metadata>", '<n:instance xmlns:n="http://openstack.org/xmlns/libvirt/nova/1.0"/></metadata>'
)
OLD_NAMESPACE = "http://openstack.org/xmlns/libvirt/nova/1.0"


def both_namespaces(**changes: str) -> str:
    """The XML with the element of an older Nova as well, in which ``changes`` are replaced."""
    _, inner = NOVA_XML.split('<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">')
    inner = inner.split("</nova:instance>")[0]
    for word, other in changes.items():
        assert word in inner
        inner = inner.replace(word, other)
    old = f'<nova:instance xmlns:nova="{OLD_NAMESPACE}">{inner}</nova:instance>'
    return NOVA_XML.replace("<metadata>", f"<metadata>{old}")


@pytest_twisted.ensureDeferred
async def test_domain_with_two_agreeing_nova_elements_uses_the_newer() -> None:
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
        (both_namespaces(**{"<nova:vcpus>1": "<nova:vcpus>8"}), "flavor/vcpus has more than one value: 1, 8"),
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
async def test_domain_with_two_owners_or_flavors_is_skipped_and_logged(xml: str, disagreement: str) -> None:
    with capturedLogs() as events:
        assert not await polled(replace(nova_domain(), xml=xml))
    [event] = events
    assert disagreement in event["why"]


BOMB = '<!DOCTYPE domain [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><domain><name>&b;</name></domain>'


class Counted:
    """Counts skipped samples as a daemon does."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}

    def samples_skipped(
        self, plugin: str, reason: str, count: int = 1, resources: Collection[str] = (), projects: Collection[str] = ()
    ) -> None:
        self.counts[plugin, reason] = self.counts.get((plugin, reason), 0) + count

    def resources_ended(self, plugin: str, reason: str, resources: Collection[str]) -> None: ...

    def resources_unknown(self, plugin: str, reason: str) -> None: ...


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ("", "its XML cannot be parsed: no element found"),
        ("<domain><name>", "its XML cannot be parsed: no element found"),
        ("<domain>\0</domain>", "its XML cannot be parsed"),
        ("<domain>\ud800</domain>", "its XML cannot be parsed"),
        (f"<domain>{' ' * 1_000_000}</domain>", "its XML has 1000017 characters, more than 1000000"),
        (BOMB, "its XML declares a document type"),
        ("<a>" * 65 + "</a>" * 65, "its XML is nested more than 64 levels deep"),
        (TWO_NOVAS, "2 elements of Nova in its XML contradict each other"),
        (NOVA_XML.replace("b6e8cc20ee9c457e83f13218eca89c43", "p" * 513), "the id of its owner has more than 512"),
    ],
    ids=["empty", "cut off", "nul", "surrogate", "huge", "entities", "deep", "two owners", "long owner"],
)
@pytest_twisted.ensureDeferred
async def test_domain_with_bad_xml_is_skipped_and_others_are_metered(xml: str, reason: str) -> None:
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
async def test_invalid_statistic_affects_only_its_meter(value: object, reason: str) -> None:
    counted = Counted()
    domains = FakeHypervisor([plain_domain(uuid="bad", **{"balloon.current": value}), plain_domain(uuid="good")])
    with capturedLogs():
        samples = list(await memory.poll(FakeCycle({IHypervisor: domains, ISkippedSamples: counted})))
    taken = [(sample.name, sample.resource_id) for sample in samples]
    assert taken == [("memory", "good"), ("memory.maximum", "bad"), ("memory.maximum", "good")]
    assert counted.counts["memory", reason] == 1


@pytest_twisted.ensureDeferred
async def test_skipped_sample_is_always_counted_and_logged_when_the_reason_changes() -> None:
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
        "libvirt does not provide balloon.current",
        "balloon.current should be an integer from 0 to 2**63 - 1, not -1",
        "libvirt does not provide balloon.current",
    ]
    assert counted.counts["memory", "invalid"] == 1


@pytest_twisted.ensureDeferred
async def test_number_of_log_lines_per_cycle_is_bounded() -> None:
    with capturedLogs() as events:
        list(await cpu.poll(cycle_of(*(Domain(str(n), "n", PLAIN_XML, {}) for n in range(200)))))
    assert len(events) == 21
    assert events[-1]["count"] == 580
