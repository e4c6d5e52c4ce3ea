"""A simulated region: its instances day by day, and the samples that their agents send.

All follows from the seed. A day replaces one instance in twenty by another one of the same owner; an instance is resized at the
age of seven days and migrated at the age of thirteen: its metadata change with both, and its series with the latter, which begins another run of
its counters. The first :data:`PETS` are never replaced.
Samples are the same whether an agent sends them or :class:`benchmarks.region_history.History` makes them in the database: only their
ids, and the signatures of their batches, differ.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any
from uuid import UUID

from meter.bus.batches import batch_publications
from meter.message_ids import PollIds
from meter.outgoing import Signer
from meter.sample import Sample
from meter.signing_keys import keyring

BEGINNING = datetime(2025, 1, 6, tzinfo=UTC)
"""The first day, a Monday. The clock of the database is set: years pass in minutes."""

KEYS = keyring(["a secret of the benchmark"])
METERS = (
    ("cpu_util", "gauge", "%"),
    ("cpu", "cumulative", "ns"),
    ("memory.usage", "gauge", "MiB"),
    ("disk.read.bytes", "cumulative", "B"),
    ("disk.write.bytes", "cumulative", "B"),
    ("disk.read.requests", "cumulative", "request"),
    ("disk.write.requests", "cumulative", "request"),
    ("vcpus", "gauge", "vcpu"),
    ("network.incoming.bytes", "cumulative", "B"),
    ("network.outgoing.bytes", "cumulative", "B"),
)
FLAVORS = ("m1.tiny", "m1.small", "m1.large", "m1.xlarge")
REGIONS = 3
"""Sources: each instance belongs to one of these regions."""

LIFE_DAYS, RESIZED_AT, MIGRATED_AT = 20, 7, 13
PETS = 20
HOST_INSTANCES = 50
VISITORS = 100_000_000
"""The number of the first place of instances that live for one poll, such as those of tests of software."""

INSTANCES_OF_A_PROJECT = 12
MIN_PROJECTS = 20
INTERVAL_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance on a day. ``version`` counts the changes of its metadata."""

    resource_id: str
    project: int
    source: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Region:
    """A region with that many ``instances`` at any time, each with the first ``meters`` of :data:`METERS`.

    Every day ``visitors`` more live for one poll, at midnight.
    """

    seed: int
    instances: int
    meters: int
    visitors: int = 0

    @property
    def projects(self) -> int:
        """The number of projects: all have about as many instances, however large the region is."""
        return max(MIN_PROJECTS, self.instances // INSTANCES_OF_A_PROJECT)

    def slots(self, day: int, visitors: bool) -> Sequence[int]:
        """Return the places of the instances of a day, with or without the ``visitors``."""
        first = VISITORS + day * self.visitors
        return [*range(self.instances), *(range(first, first + self.visitors) if visitors else ())]

    def identity(self, slot: int, day: int) -> tuple[int, int, int]:
        """Return the place, how many instances were there before, and how often the metadata of this one have changed."""
        if slot >= VISITORS:
            return slot, 0, 0
        generation, age = divmod(day + slot, LIFE_DAYS)
        return slot, 0 if slot < PETS else generation, (age >= RESIZED_AT) + (age >= MIGRATED_AT)

    def instance(self, slot: int, day: int) -> Instance:
        """Return what is at the place ``slot`` on a day."""
        slot, generation, version = self.identity(slot, day)
        if slot < PETS:
            resource_id = f"00000000-0000-4000-8000-{slot:012d}"
        else:
            resource_id = str(UUID(hashlib.md5(f"{self.seed}/{slot}/{generation}".encode()).hexdigest()))
        host = f"compute-{slot // HOST_INSTANCES + version // 2}"
        metadata = {
            "display_name": f"instance-{slot}-{generation}",
            "host": host,
            "flavor": {"name": FLAVORS[(slot + min(version, 1)) % len(FLAVORS)], "ram": 512, "disk": 1},
            "image": {"id": "6d1f", "links": [{"rel": "bookmark", "href": "http://nova/images/6d1f"}]},
            "status": "active",
            "_meter": {"run": f"{host}/{slot}-{generation}"},
        }
        return Instance(resource_id, slot % self.projects, f"region-{slot % REGIONS}", metadata)

    def poll_of(self, host: int, slots: Sequence[int], day: int, at: datetime) -> Iterator[Sample]:
        """Yield what the agent of a host with the instances at ``slots`` measures on a day at a time."""
        timestamp = at + timedelta(milliseconds=host * 7 % 240_000)
        number = int((at - BEGINNING).total_seconds()) // INTERVAL_SECONDS
        for slot in slots:
            instance = self.instance(slot, day)
            for n, (name, type_, unit) in enumerate(METERS[: self.meters]):
                yield Sample(
                    name=name,
                    type=type_,
                    unit=unit,
                    volume=number * 1000 + slot if type_ == "cumulative" else (number * 7 + slot + n) % 100,
                    resource_id=instance.resource_id,
                    project_id=f"{instance.project:032x}",
                    user_id=f"user-{instance.project}",
                    source=instance.source,
                    timestamp=timestamp,
                    resource_metadata=instance.metadata,
                )


@dataclass(slots=True)
class Tally:
    """How many samples there are, and a checksum of their ids that does not depend on the order."""

    samples: int = 0
    checksum: int = 0

    def add(self, message_id: str) -> None:
        """Add a sample."""
        self.samples += 1
        self.checksum += int(hashlib.md5(message_id.encode()).hexdigest()[:15], 16)


CHECKSUM = "sum(('x' || left(md5(message_id::text), 15))::bit(60)::bigint)"
"""The checksum of :class:`Tally` as SQL."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What an agent sends at a time: the bodies of its messages, and the ids and time of the samples in them."""

    bodies: list[tuple[bytes, str]]
    ids: list[str]
    timestamp: datetime


class Agents:
    """The agents of a region: they sign what they send. Ids follow from the seed, as all else."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._at = BEGINNING
        self._ids = PollIds(lambda: int(self._at.timestamp() * 1000), random=random.Random(region.seed).randbytes)

    def polls(self, day: int, at: datetime) -> Iterator[Sent]:
        """Yield what each agent sends at a time."""
        self._at = at
        slots = self._region.slots(day, visitors=at.hour == 0)
        for first in range(0, len(slots), HOST_INSTANCES):
            self._ids.begin()
            signer = Signer(KEYS, "openstack", interval_seconds=INTERVAL_SECONDS, new_id=self._ids.next)
            samples = list(
                self._region.poll_of(slots[first] // HOST_INSTANCES, slots[first : first + HOST_INSTANCES], day, at)
            )
            messages = [signer.message(each) for each in samples]
            yield Sent(
                [(each.body, each.routing_key) for each in batch_publications(messages)],
                [message.fields["message_id"] for message in messages],
                samples[0].timestamp,
            )
