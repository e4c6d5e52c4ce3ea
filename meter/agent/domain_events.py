"""Changes of domains on their way to samples: one that starts or stops is polled then, not only when its turn comes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
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

MOST_WAITING = 1000
"""Changes that wait while a cycle is under way. More are let go: how a domain is now, the next cycle tells."""


@implementer(IHypervisor)
class SingleDomainHypervisor:
    """A hypervisor that has one domain, as it was at some moment."""

    def __init__(self, uri: str, domain: Domain) -> None:
        self.uri = uri
        self._domain = domain

    async def domains(self) -> Sequence[Domain]:
        """Return the one."""
        return [self._domain]

    def absence(self, uuid: str) -> Absence:
        """Nothing is known of others."""
        return Absence("unreadable")

    def observe(self, receive: Callable[[Domain], object]) -> None:
        """Nothing happens to a moment."""


class DomainEventPoller(Service):
    """Has ``polling`` poll each domain that ``hypervisor`` tells to have changed, one after another.

    Stopping waits for those that are there already. ``dropped`` counts those that were too many.
    """

    name = "changes of domains"
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
        """Take a domain to which something has happened."""
        if not self.running:
            return
        if len(self._waiting) >= MOST_WAITING:
            if not self._overflowing:
                self._log.error("LOST changes of domains: more than {most} wait to be polled", most=MOST_WAITING)
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
                self._log.failure("{domain} was {change} and could not be polled", domain=domain.name, change=domain.event)  # fmt: skip
            else:
                self._log.info("domain {domain} {change}: {samples} samples", domain=domain.name, change=domain.event, samples=report.samples)  # fmt: skip
        self._work = None
        self._overflowing = False

    def stopService(self) -> Deferred[None] | None:
        """Fire when what was told is polled."""
        super().stopService()
        return self._work
