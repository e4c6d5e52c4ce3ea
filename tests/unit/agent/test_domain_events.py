"""Domains with an event are polled at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from meter.agent.domain_events import MAX_WAITING
from meter.agent.domain_events import DomainEventPoller
from meter.agent.domain_events import SingleDomainHypervisor
from meter.agent.polling import CycleResult
from meter.interfaces import Domain
from meter.interfaces import IDomainPollster
from meter.interfaces import IHypervisor
from meter.testing import FakeHypervisor
from tests.hygiene import LoggedErrors

STARTED = Domain("u", "web", "<domain/>", {"state.state": 1}, event="started (booted)")
STOPPED = replace(STARTED, stats={"state.state": 5}, event="stopped (destroyed)")


class Polling:
    """Notes what is polled; each poll takes until it is let go."""

    def __init__(self) -> None:
        self.polled: list[Any] = []
        self.holding: Deferred[None] | None = None

    async def poll_off_schedule(self, interface: Any, providers: Any) -> CycleResult:
        assert interface is IDomainPollster
        [domain] = await providers[IHypervisor].domains()
        self.polled.append(domain.event)
        if self.holding is not None:
            await self.holding
        return CycleResult(1, 1, (), 0.0)


@pytest.fixture
def polling() -> Polling:
    return Polling()


@pytest.fixture
def hypervisor() -> FakeHypervisor:
    return FakeHypervisor()


@pytest.fixture
def changes(hypervisor: FakeHypervisor, polling: Polling) -> DomainEventPoller:
    changes = DomainEventPoller(hypervisor, polling)  # type: ignore[arg-type]
    changes.startService()
    return changes


def test_single_domain_hypervisor_provides_its_interface() -> None:
    assert verifyObject(IHypervisor, SingleDomainHypervisor("qemu:///system", STARTED))


def test_events_are_polled_in_order_one_after_another(
    changes: DomainEventPoller, hypervisor: FakeHypervisor, polling: Polling
) -> None:
    polling.holding = Deferred()
    hypervisor.change(STARTED)
    hypervisor.change(STOPPED)
    assert polling.polled == ["started (booted)"]
    polling.holding.callback(None)
    assert polling.polled == ["started (booted)", "stopped (destroyed)"]
    hypervisor.change(STARTED)
    assert len(polling.polled) == 3


def test_stop_waits_for_pending_events_and_takes_no_more(
    changes: DomainEventPoller, hypervisor: FakeHypervisor, polling: Polling
) -> None:
    polling.holding = Deferred()
    hypervisor.change(STARTED)
    hypervisor.change(STOPPED)
    stopped = changes.stopService()
    hypervisor.change(STARTED)
    assert stopped is not None
    assert not stopped.called
    polling.holding.callback(None)
    assert stopped.called
    assert len(polling.polled) == 2


def test_events_beyond_the_limit_are_dropped_and_counted(
    changes: DomainEventPoller, hypervisor: FakeHypervisor, polling: Polling, logged_errors: LoggedErrors
) -> None:
    polling.holding = Deferred()
    for _ in range(MAX_WAITING + 3):
        hypervisor.change(STARTED)
    assert changes.dropped == 2
    assert len(logged_errors.flush()) == 1
    holding, polling.holding = polling.holding, Deferred()
    holding.callback(None)
    for _ in range(MAX_WAITING + 3):
        hypervisor.change(STARTED)
    assert len(logged_errors.flush()) == 0, "it is still the same flood"
    holding, polling.holding = polling.holding, None
    holding.callback(None)
    polling.holding = Deferred()
    for _ in range(MAX_WAITING + 3):
        hypervisor.change(STARTED)
    assert len(logged_errors.flush()) == 1
    polling.holding.callback(None)


def test_poll_that_fails_is_not_the_end(
    changes: DomainEventPoller, hypervisor: FakeHypervisor, polling: Polling, logged_errors: LoggedErrors
) -> None:
    polling.holding = Deferred()
    hypervisor.change(STARTED)
    hypervisor.change(STOPPED)
    holding, polling.holding = polling.holding, None
    holding.errback(RuntimeError("no luck"))
    assert len(polling.polled) == 2
    assert len(logged_errors.flush(RuntimeError)) == 1
