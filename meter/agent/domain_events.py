"""Lifecycle events of domains: a domain that starts or stops is polled at once, not only in the next cycle."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from meter.agent.polling import Polling
from meter.interfaces import Absence
from meter.interfaces import Domain
from meter.interfaces import IDomainPollster
from meter.interfaces import IHypervisor

MAX_WAITING = 1000
"""Events that wait while a cycle runs. More are dropped: the next cycle measures the current state of the domains."""


@implementer(IHypervisor)
class SingleDomainHypervisor:
    """A snapshot of one domain, as a hypervisor."""

    unreadable: Mapping[str, str] = {}

    def __init__(self, uri: str, domain: Domain) -> None:
        self.uri = uri
        self._domain = domain

    async def domains(self) -> Sequence[Domain]:
        """Return the domain."""
        return [self._domain]

    def absence(self, uuid: str) -> Absence:
        """Return ``unreadable``: a snapshot knows nothing about other domains."""
        return Absence("unreadable")

    def observe(self, receive: Callable[[Domain], object]) -> None:
        """Do nothing: a snapshot never changes."""


class DomainEventPoller(Service):
    """Polls each domain with an event of ``hypervisor``, one after another.

    Stopping waits until the pending events are polled. ``dropped`` counts the events beyond ``MAX_WAITING``.
    """

    name = "domain events"
    _log = Logger()

    def __init__(self, hypervisor: IHypervisor, polling: Polling) -> None:
        self._uri: str = hypervisor.uri
        self._polling = polling
        self._waiting: deque[Domain] = deque()
        self._work: Deferred[None] | None = None
        self._overflowing = False
        self.dropped = 0
        hypervisor.observe(self.receive)

    def receive(self, domain: Domain) -> None:
        """Queue a domain with an event."""
        if not self.running:
            return
        if len(self._waiting) >= MAX_WAITING:
            if not self._overflowing:
                self._log.error("LOST events of domains: more than {most} wait to be polled", most=MAX_WAITING)
            self._overflowing = True
            self.dropped += 1
            return
        self._waiting.append(domain)
        if self._work is None:
            self._work = Deferred.fromCoroutine(self._poll_all())
            if self._work.called:
                self._work = None

    async def _poll_all(self) -> None:
        while self._waiting:
            domain = self._waiting.popleft()
            try:
                report = await self._polling.poll_off_schedule(
                    IDomainPollster, {IHypervisor: SingleDomainHypervisor(self._uri, domain)}
                )
            except Exception:
                self._log.failure("domain {domain} could not be polled after {event}", domain=domain.name, event=domain.event)  # fmt: skip
            else:
                self._log.info("domain {domain}: {event}; polled {samples} samples", domain=domain.name, event=domain.event, samples=report.samples)  # fmt: skip
        self._work = None
        self._overflowing = False

    def stopService(self) -> Deferred[None] | None:
        """Fire when the pending events are polled."""
        super().stopService()
        return self._work
