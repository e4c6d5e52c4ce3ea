"""A small cloud and its past, for tests that look at pages: hosts whose agents polled their guests, prices, names and a gap.

The agents are real ones on clocks of their own, over hypervisors that a script drives; what they publish is published again to a real
broker, so that samples and cycle reports take the whole way. The numbers are the same each time, the times end now.
"""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from xml.sax.saxutils import escape
from xml.sax.saxutils import quoteattr

from twisted.internet.task import Clock

from meter.interfaces import Domain
from meter.interfaces import IHypervisor
from meter.interfaces import Publication
from meter.pollsters import libvirt
from meter.settings import ComputeSection
from meter.signing_keys import Keyring
from meter.testing import FakeHypervisor
from tests.reporting_agent import ReportingAgent

POLLSTERS = (libvirt.instance, libvirt.cpu, libvirt.vcpus, libvirt.memory, libvirt.disk, libvirt.network)
GIB = 1024**3

WEB = "6ab2e31cf7ba4c7d8ba5f3b4b7a8f1f0"
LAB = "b1f0c7d2a94e4a62a0d7e5b9c3812f6d"
ARCHIVE = "0c9e8d7b6a5f4e3d2c1b0a9f8e7d6c5b"
PROJECTS = {WEB: "Web shop", LAB: "Research laboratory", ARCHIVE: "Archive"}

FLAVORS = {"m1.small": (1, 2), "m1.medium": (2, 4), "m1.large": (4, 8)}
"""Virtual CPUs and GiB of memory."""

HOSTILE_NAMES = (
    "<script>alert(document.domain)</script>",
    '"><img src=x onerror=alert(1)>',
    "خادم الفوترة \u202e1.gnp",
    "服务器-" + 60 * "非常长的名字",
    "x" * 300,
    "{{ 7 * 7 }} ${7*7} <%= 7 %> \\u0000 '; DROP TABLE sample; --",
)
"""Display names that a page must show as they are."""

PRICES = f"""
[[book]]
name = "standard"
currency = "EUR"
timezone = "Europe/Paris"
issuer = "Example Cloud Ltd, Paris"
region = "paris-1"
grace_days = 5
default = true

[[sku]]
id = "instance"
name = "Instance"
service = "Virtual Machines"
category = "Compute"
usage = "exists"
resource_kind = "instance"
by = ["flavor"]
unit = "Hours"
tax_category = "standard"

[[sku]]
id = "egress"
name = "Outgoing traffic"
service = "Network"
category = "Networking"
usage = "increase"
meter = "network.outgoing.bytes"
factor = "1/1000000000"
unit = "GB"
tax_category = "standard"

[[sku]]
id = "cpu"
name = "Processor time"
service = "Virtual Machines"
category = "Compute"
usage = "increase"
meter = "cpu"
factor = "1/3600000000000"
unit = "Hours"
tax_category = "standard"

[[price]]
sku = "instance"
match = {{flavor = "m1.small"}}
price = "0.0125"

[[price]]
sku = "instance"
match = {{flavor = "m1.medium"}}
price = "0.0250"

[[price]]
sku = "egress"
mode = "graduated"
free = 10
tiers = [{{up_to = 1000, price = "0.02"}}, {{price = "0.01"}}]

[[price]]
sku = "cpu"
price = "0.001"

[[account]]
id = "acme"
name = "Acme Corporation"
projects = ["{WEB}", "{LAB}"]
billing_address = "Acme Corporation, 2 Example Street, Lyon"
reference = "PO 4711"

[[price]]
sku = "instance"
account = "acme"
match = {{flavor = "m1.small"}}
list = "0.0125"
price = "0.0100"

[[discount]]
id = "acme-10"
description = "10 % on instances"
account = "acme"
percent = "10"
skus = ["instance"]

[[fixed_charge]]
id = "acme-support"
description = "Support, 8 hours on 5 days"
service = "Support"
account = "acme"
amount = "25"
recurring = true
tax_category = "standard"

[[tax]]
category = "standard"
name = "VAT 20 %"
percent = "20"
default = true

[[budget]]
id = "acme-month"
name = "Acme, all services"
account = "acme"
amount = "80"
used_percent = [50, 80, 100]
forecast_percent = [100]
"""
"""A price directory with agreed prices, tiers, a discount, a tax and a budget; ``m1.large`` has no price."""


def names_file(path: Path) -> Path:
    """Write the names of the projects to ``path``, for ``[identities] file``."""
    path.write_text(
        "".join(f'[[identity]]\nid = "{id}"\nname = "{name}"\nsince = 2026-01-01\n' for id, name in PROJECTS.items())
    )
    return path


@dataclass
class Guest:
    """A guest; it runs from ``since`` on, until ``until``."""

    id: str
    name: str
    project: str
    flavor: str
    load: float
    since: datetime
    until: datetime | None

    def domain(self, at: datetime) -> Domain | None:
        """Return the domain as it is polled ``at`` a time."""
        if at < self.since or (self.until is not None and at >= self.until):
            return None
        seconds = (at - self.since).total_seconds()
        cpus, memory = FLAVORS[self.flavor]
        # More at noon than at night: the integral of load * (1 + sin)
        busy = self.load * (seconds + 86400 / math.tau * 0.8 * (1 - math.cos(math.tau * seconds / 86400)))
        used = 0.35 + 0.25 * math.sin(seconds / 40000) + 0.1 * self.load
        stats: dict[str, int | float | str | bool] = {
            "state.state": 1,
            "state.reason": 1,
            "cpu.time": round(busy * cpus * 1e9),
            "balloon.current": memory * 1024**2,
            "balloon.maximum": memory * 1024**2,
            "balloon.rss": round(memory * 1024**2 * used),
            "balloon.unused": round(memory * 1024**2 * (1 - used)),
            "balloon.available": memory * 1024**2,
            "balloon.usable": round(memory * 1024**2 * (1 - used)),
            "vcpu.current": cpus,
            "vcpu.maximum": cpus,
            "net.count": 1,
            "net.0.name": f"tap{self.id[:8]}",
            "block.count": 1,
            "block.0.name": "vda",
            "block.0.path": f"/var/lib/nova/instances/{self.id}/disk",
            "block.0.allocation": 4 * GIB,
            "block.0.capacity": 20 * GIB,
            "block.0.physical": 5 * GIB,
        }
        for number in range(cpus):
            stats |= {f"vcpu.{number}.state": 1, f"vcpu.{number}.time": round(busy * 1e9), f"vcpu.{number}.wait": 0}
        for name, rate in (("rd.reqs", 3), ("rd.bytes", 48_000), ("wr.reqs", 5), ("wr.bytes", 90_000)):
            stats[f"block.0.{name}"] = round(busy * rate)
        for name, rate in (("rx.bytes", 21_000), ("tx.bytes", 34_000), ("rx.pkts", 31), ("tx.pkts", 38)):
            stats[f"net.0.{name}"] = round(busy * rate)
            stats |= {f"net.0.{way}.{what}": 0 for way in ("rx", "tx") for what in ("errs", "drop")}
        return Domain(uuid=self.id, name=f"instance-{self.id[:8]}", xml=self._xml(), stats=stats, run=1, read_at=at)

    def _xml(self) -> str:
        cpus, memory = FLAVORS[self.flavor]
        return f"""<domain type='kvm'><name>instance-{self.id[:8]}</name><uuid>{self.id}</uuid><metadata>
<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1"><nova:name>{escape(self.name)}</nova:name>
<nova:flavor name={quoteattr(self.flavor)}><nova:memory>{memory * 1024}</nova:memory><nova:disk>20</nova:disk>
<nova:ephemeral>0</nova:ephemeral><nova:vcpus>{cpus}</nova:vcpus></nova:flavor>
<nova:owner><nova:user uuid="{uuid.uuid5(uuid.NAMESPACE_DNS, self.project).hex}">u</nova:user>
<nova:project uuid="{self.project}">p</nova:project></nova:owner></nova:instance></metadata>
<devices><disk type='file' device='disk'><source file='/var/lib/nova/instances/{self.id}/disk'/><target dev='vda' bus='virtio'/></disk>
<interface type='bridge'><mac address='fa:16:3e:{self.id[0:2]}:{self.id[2:4]}:{self.id[4:6]}'/><target dev='tap{self.id[:8]}'/></interface>
</devices></domain>"""


@dataclass(frozen=True)
class DemoCloud:
    """What is to be published, and what is in it: some ids to open."""

    publications: Sequence[Publication]
    guests: Sequence[Guest]
    hosts: Sequence[str]


def demo_cloud(
    directory: Path, keys: Keyring, now: datetime, *, days: int, hosts: int = 3, hostile: bool = False
) -> DemoCloud:
    """Return the past ``days`` of a cloud, until ``now``; ``directory`` is for spools of the agents.

    Agents polled every 6 hours at first, every hour in the last ten days, and every 5 minutes in the last six hours. The last of
    ``hosts`` was not polled for five hours yesterday.
    """
    chance = random.Random(18)
    begin = now - timedelta(days=days)
    guests: list[Guest] = []
    publications: list[Publication] = []
    names = [f"host{number}" for number in range(1, hosts + 1)]
    for host in names:
        own = list(_guests(chance, begin, now, host))
        if hostile and host == names[0]:
            own += [_guest(chance, name, LAB, "m1.small", begin) for name in HOSTILE_NAMES]
        guests += own
        gap = (now - timedelta(hours=26), now - timedelta(hours=21)) if host == names[-1] else None
        publications += _polled(directory / host, keys, host, own, begin, now, gap)
    return DemoCloud(publications, guests, names)


def _guests(chance: random.Random, begin: datetime, now: datetime, host: str) -> Iterator[Guest]:
    for number, flavor in enumerate(
        ("m1.small", "m1.small", "m1.medium", "m1.large" if host == "host2" else "m1.small")
    ):
        project = (WEB, WEB, LAB, ARCHIVE)[number]
        role = {WEB: "web", LAB: "lab", ARCHIVE: "archive"}[project]
        yield _guest(chance, f"{role}-{host[4:]}{number}", project, flavor, begin)
    short = _guest(chance, f"job-{host[4:]}", LAB, "m1.medium", now - timedelta(days=2.2))
    short.until = now - timedelta(hours=9)
    yield short


def _guest(chance: random.Random, name: str, project: str, flavor: str, begin: datetime) -> Guest:
    id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    return Guest(id, name, project, flavor, chance.uniform(0.1, 0.6), begin, None)


def _polled(
    directory: Path,
    keys: Keyring,
    host: str,
    guests: Sequence[Guest],
    begin: datetime,
    now: datetime,
    gap: tuple[datetime, datetime] | None,
) -> Iterator[Publication]:
    """Yield what the agent of a host published in three lives, one for each interval."""
    # Each life begins when the one before would have polled: in the middle of an interval, the last cycle would be a short one, not expected.
    hourly, dense = _rounded(now - timedelta(days=10), 21600), _rounded(now - timedelta(hours=6), 3600)
    starts = [begin, max(begin, hourly), max(begin, dense), now]
    for life, interval in enumerate((21600, 3600, 300)):
        at, end = _rounded(starts[life], interval), starts[life + 1]
        if at >= end:
            continue
        clock = Clock()
        clock.advance(at.timestamp())
        hypervisor = FakeHypervisor(uri="qemu:///system")
        folder = directory / str(life)
        folder.mkdir(parents=True)
        agent = ReportingAgent(
            folder,
            *POLLSTERS,
            providers={IHypervisor: hypervisor},
            clock=clock,
            boot=str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{host}/{life}/{begin}")),
            keys=keys,
            host=host,
            interval=float(interval),
            config=_Config(host),
            max_bytes=2_000_000_000,
            max_age_seconds=2 * (now - begin).total_seconds(),
            batch_samples=100,
        )
        while at < end:
            if gap is None or not gap[0] <= at < gap[1]:
                hypervisor.running = [domain for each in guests if (domain := each.domain(at)) is not None]
                clock.advance(max(0.0, at.timestamp() - clock.seconds()))
                agent.run(agent.polling.cycle())
            at += timedelta(seconds=interval)
        agent.send()
        agent.close()
        yield from agent.bus.published


def _rounded(at: datetime, interval: int) -> datetime:
    return datetime.fromtimestamp(math.ceil(at.timestamp() / interval) * interval, UTC)


class _Config:
    def __init__(self, host: str) -> None:
        self.compute = ComputeSection(host=host)
