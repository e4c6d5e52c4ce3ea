"""Two hours of a small cloud: three instances of two projects on two hosts, with what boards and clients of Prometheus ask for."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from functools import cache
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.message import MeteringMessage
from meter.sample import Sample
from meter.sample import with_reserved
from meter.testing import MemoryStore
from tests.api_client import KEYS
from tests.api_client import RECORDED
from tests.api_client import ApiClient
from tests.signed import received_together

START = datetime(2026, 11, 22, 12, tzinfo=UTC)
INTERVAL = timedelta(minutes=5)
POLLS = 25
END = START + (POLLS - 1) * INTERVAL
"""The time of the last poll."""

NOW = END + timedelta(minutes=1)

INSTANCES: Mapping[str, Mapping[str, Any]] = {
    "vm-1": {"project": "blue", "user": "ann", "name": "web-1", "flavor": "m1.small", "host": "hv-1", "cores": 1},
    "vm-2": {"project": "blue", "user": "ann", "name": "web-2", "flavor": "m1.large", "host": "hv-2", "cores": 4},
    "vm-3": {"project": "red", "user": "bob", "name": 'db "1"', "flavor": "m1.large", "host": "hv-2", "cores": 4},
}
STATES = {"vm-1": [1] * POLLS, "vm-2": [1] * 20 + [3, 3, 5, 6, 7], "vm-3": [1] * 20 + [3, 5, 6, 7, 1]}
"""libvirt's numbers of the states, by poll."""

CPU_SECONDS = {"vm-1": 150, "vm-2": 600, "vm-3": 60}
"""CPU time that is used between two polls."""


def _of_instance(resource_id: str, poll: int) -> Iterator[tuple[str, str, str, str, float]]:
    """Yield meter, type, unit, suffix of the resource id and volume."""
    instance, n = INSTANCES[resource_id], len(resource_id) + int(resource_id[-1])
    yield "instance", "gauge", "instance", "", 1
    yield "power.state", "gauge", "state", "", STATES[resource_id][poll]
    yield "vcpus", "gauge", "vcpu", "", instance["cores"]
    yield "memory", "gauge", "MiB", "", 2048 * instance["cores"]
    yield "memory.usage", "gauge", "MiB", "", 512 * instance["cores"] + poll
    yield "cpu", "cumulative", "ns", "", 10**12 + poll * CPU_SECONDS[resource_id] * 10**9
    yield "disk.device.read.bytes", "cumulative", "B", "-vda", n * 10**6 * poll
    yield "disk.device.write.bytes", "cumulative", "B", "-vda", n * 10**5 * poll
    yield "network.incoming.bytes", "cumulative", "B", "-tap1", n * 10**4 * poll
    yield "network.outgoing.bytes", "cumulative", "B", "-tap1", n * 10**3 * poll


def _others(poll: int) -> Iterator[tuple[str, str, str, str | None, float]]:
    """Yield meter, unit, resource id, project and volume of gauges."""
    yield "volume.size", "GiB", "volume-1", "blue", 10
    yield "volume.size", "GiB", "volume-2", "red", 100
    yield "image.size", "B", "image-1", "blue", 2 * 10**9
    yield "ip.floating", "ip", "ip-1", "blue", 1
    for host in ("hv-1", "hv-2"):
        yield "hypervisor.vcpus", "vcpu", host, None, 16
        yield "hypervisor.vcpus.used", "vcpu", host, None, 1 if host == "hv-1" else 8
        yield "hypervisor.memory", "MiB", host, None, 65536
        yield "hypervisor.memory.used", "MiB", host, None, 2048 if host == "hv-1" else 16384
    for kind, gibibytes in (("total", 1000), ("allocated", 110 + poll), ("free", 890 - poll)):
        yield f"volume.provider.pool.capacity.{kind}", "GiB", "pool-1", None, gibibytes
    yield "meter.reconciliation.misses", "resource", "nova", None, 1
    yield "meter.reconciliation.ghosts", "resource", "nova", None, 0


def _samples(start: datetime) -> Iterator[Sample]:
    for poll in range(POLLS):
        timestamp = start + poll * INTERVAL
        for resource_id, instance in INSTANCES.items():
            metadata = {
                "display_name": instance["name"],
                "flavor": {"name": instance["flavor"]},
                "host": instance["host"],
            }
            for name, kind, unit, suffix, volume in _of_instance(resource_id, poll):
                yield Sample(
                    name=name,
                    type=kind,  # type: ignore[arg-type]
                    unit=unit,
                    volume=volume,
                    resource_id=resource_id + suffix,
                    project_id=instance["project"],
                    user_id=instance["user"],
                    timestamp=timestamp,
                    resource_metadata=with_reserved(metadata, interval=300, run=f"{instance['host']}/1"),
                )
        for name, unit, resource_id, project, volume in _others(poll):
            yield Sample(
                name=name,
                type="gauge",
                unit=unit,
                volume=volume,
                resource_id=resource_id,
                project_id=project,
                user_id=None,
                timestamp=timestamp,
                resource_metadata=with_reserved({"display_name": resource_id}, interval=300),
            )


@cache
def messages(start: datetime = START) -> tuple[MeteringMessage, ...]:
    """Return all messages of the cloud, signed in batches of one meter."""
    by_meter: dict[str, list[Sample]] = {}
    for sample in _samples(start):
        by_meter.setdefault(sample.name, []).append(sample)
    return tuple(
        message
        for samples in by_meter.values()
        for start in range(0, len(samples), 100)
        for message in received_together(samples[start : start + 100], KEYS)
    )


def metered_cloud(start: datetime = START) -> tuple[MemoryStore, Clock]:
    """Return a store with the two hours from ``start``, and a clock that stands a minute after them: by default at :data:`NOW`."""
    clock = Clock()
    clock.advance((NOW - START + start).timestamp())
    store = MemoryStore(clock)
    Deferred.fromCoroutine(store.write(messages(start)))
    return store, clock


class CloudClient(ApiClient):
    """Calls an API over the cloud, whose clock stands at :data:`NOW`."""

    def __init__(self, **collaborators: Any) -> None:
        clock = Clock()
        clock.advance((NOW - RECORDED).total_seconds())
        store = MemoryStore(clock)
        super().__init__(clock=clock, **{"store": store, **collaborators})
        self.store = store
        Deferred.fromCoroutine(store.write(messages()))
