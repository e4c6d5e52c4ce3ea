"""Reconciliation: ghosts and misses; resources created or deleted within the window are neither."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from meter.bus.batches import batch_publications
from meter.bus.local import LocalBus
from meter.interfaces import Binding
from meter.interfaces import IBus
from meter.interfaces import Publication
from meter.interfaces import Subscription
from meter.interfaces import Unavailable
from meter.openstack import IOpenStack
from meter.outgoing import OutgoingMessage
from meter.pollsters.openstack.reconciliation import ReconciliationOptions
from meter.pollsters.openstack.reconciliation import ReconciliationPollster
from meter.testing import FakeCycle
from tests.openstack_stub import captured_cloud
from tests.openstack_stub import openstack
from tests.openstack_stub import reply

OPTIONS = ReconciliationOptions(every_seconds=86400.0, window_seconds=1000.0, kinds=("instance",), max_ids=2)


class Site:
    """A cloud whose Nova lists given servers, a bus with a collector, and a pollster."""

    def __init__(self, options: ReconciliationOptions = OPTIONS, *, collector: bool = True) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.stub = captured_cloud()
        self.bus = LocalBus(self.clock)
        self.stored: list[bytes] = []
        self.collector = self.bus.subscribe(
            Subscription(queue="meter.metering", bindings=(Binding("metering", "metering.#", ours=True),)), self._store
        )
        if collector:
            self.collector.startService()
        self.pollster = ReconciliationPollster().configured(options)
        self.cycle = FakeCycle({IOpenStack: openstack(self.stub, self.clock), IBus: self.bus}, clock=self.clock)

    async def _store(self, delivery: Any) -> None:
        self.stored.append(delivery.body)

    def lists(self, *servers: str, status: str = "ACTIVE") -> None:
        listed = {"servers": [{"id": each, "tenant_id": "p", "status": status} for each in servers]}
        self.stub.on("GET", "/v2.1/servers/detail", reply(listed))

    async def meters(self, *resources: str, name: str = "instance") -> None:
        messages = [OutgoingMessage({"counter_name": name, "resource_id": each}, None) for each in resources]
        for publication in batch_publications(messages):
            await self.bus.publish(publication)

    async def poll(self, after: float = 0.0) -> dict[str, Any]:
        self.clock.advance(after)
        self.cycle = self.cycle.following()
        return {each.name.rpartition(".")[2]: each for each in await self.pollster.poll(self.cycle)}

    @property
    def observers(self) -> int:
        return sum(each.ephemeral for each in self.bus.subscriptions)


@pytest_twisted.ensureDeferred
async def test_ghosts_and_misses_are_sent_as_samples_and_logged() -> None:
    site = Site()
    site.lists("well", "silent", "gone")
    assert await site.poll() == {}
    site.clock.advance(100)
    await site.meters("well", "gone", "short-lived", *(f"ghost-{number}" for number in range(3)))
    site.lists("well", "silent", "late", "short-lived")
    assert await site.poll(after=300) == {}
    with capturedLogs() as logs:
        found = await site.poll(after=600)
    assert {name: each.volume for name, each in found.items()} == {"ghosts": 3, "misses": 1}
    assert found["ghosts"].resource_id == "reconciliation/instance"
    assert found["ghosts"].resource_metadata == {
        "kind": "instance",
        "ids": ["ghost-0", "ghost-1"],
        "metered": 6,
        "listed": 4,
    }
    assert found["misses"].resource_metadata["ids"] == ["silent"]
    assert [each["ids"] for each in logs if "ids" in each] == [": ghost-0, ghost-1, …", ": silent"]


@pytest_twisted.ensureDeferred
async def test_bus_is_observed_only_within_the_window_once_a_day() -> None:
    site = Site()
    site.lists("well")
    await site.poll()
    assert site.observers == 1
    await site.poll(after=1000)
    assert site.observers == 0
    assert await site.poll(after=80_000) == {}
    assert site.observers == 0
    await site.poll(after=5400)
    assert site.observers == 1
    assert (await site.poll(after=1000))["misses"].volume == 1


@pytest_twisted.ensureDeferred
async def test_inactive_instance_is_not_a_miss() -> None:
    site = Site()
    site.lists("shelved", status="SHELVED_OFFLOADED")
    await site.poll()
    assert (await site.poll(after=1000))["misses"].volume == 0


@pytest_twisted.ensureDeferred
async def test_samples_at_the_beginning_of_the_window_are_ignored() -> None:
    site = Site()
    site.lists()
    await site.poll()
    await site.meters("deleted-just-before")
    assert (await site.poll(after=1000))["ghosts"].volume == 0


@pytest_twisted.ensureDeferred
async def test_agent_that_is_no_longer_polled_stops_observing_and_later_begins_a_new_window() -> None:
    site = Site()
    site.lists("well")
    await site.poll()
    site.clock.advance(2001)
    assert site.observers == 0
    assert await site.poll() == {}
    assert site.observers == 1


@pytest_twisted.ensureDeferred
async def test_more_resources_than_max_resources_are_not_compared() -> None:
    site = Site(OPTIONS.model_copy(update={"max_resources": 2}))
    site.lists("a")
    await site.poll()
    site.clock.advance(100)
    await site.meters("a", "b", "c")
    assert await site.poll(after=1000) == {}


@pytest_twisted.ensureDeferred
async def test_observing_does_not_make_a_sample_routable() -> None:
    site = Site(collector=False)
    site.lists()
    await site.poll()
    with pytest.raises(Unavailable):
        await site.meters("a")


@pytest_twisted.ensureDeferred
async def test_malformed_messages_are_ignored() -> None:
    site = Site(OPTIONS.model_copy(update={"kinds": ("instance", "image")}))
    site.lists("a")
    await site.poll()
    site.clock.advance(100)
    for body in (
        b"",
        b"{}",
        b"[1]",
        b'{"method": "record_metering_data", "args": {"data": [1, {"counter_name": []}]}}',
    ):
        await site.bus.publish(Publication(exchange="metering", routing_key="metering.instance", body=body))
    await site.meters("a")
    kinds = [each.resource_metadata["kind"] for each in await poll_all(site, after=1000)]
    assert kinds == ["instance", "instance", "image", "image"]


async def poll_all(site: Site, after: float) -> list[Any]:
    site.clock.advance(after)
    site.cycle = site.cycle.following()
    return list(await site.pollster.poll(site.cycle))


def test_trial_does_not_subscribe() -> None:
    site = Site()
    site.cycle.trial = True
    found: list[Any] = []
    Deferred.fromCoroutine(site.pollster.poll(site.cycle)).addCallback(found.append)
    assert found == [()]
    assert site.bus.subscriptions == [site.collector]


def intervals(**seconds: float) -> Callable[[str], float]:
    return lambda name: seconds.get(name, 300.0)


@pytest.mark.parametrize(
    ("options", "own", "words"),
    [
        ({"window_seconds": 360.0}, 300.0, []),
        (
            {"window_seconds": 330.0},
            300.0,
            ["at least 360, not 330: 'volume' is polled", "'image' is polled every 300"],
        ),
        ({"window_seconds": 330.0, "kinds": ["instance"]}, 300.0, []),
        ({"window_seconds": 500.0}, 600.0, ["at least 600, not 500: the polls of 'reconciliation'"]),
        ({"every_seconds": 1700.0}, 300.0, ["every_seconds: should be at least window_seconds, 1800, not 1700"]),
    ],
)
def test_window_must_fit_the_intervals_of_the_compared_meters(
    options: dict[str, Any], own: float, words: list[str]
) -> None:
    pollster = ReconciliationPollster(ReconciliationOptions(**options))
    found = pollster.interval_conflicts(intervals(instance=60.0, reconciliation=own))
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))


def test_default_window_fits_all_intervals() -> None:
    pollster = ReconciliationPollster(ReconciliationOptions())
    assert not pollster.interval_conflicts(intervals())
    assert not pollster.interval_conflicts(intervals(image=3600.0))
    assert not pollster.interval_conflicts(intervals(reconciliation=3600.0))
