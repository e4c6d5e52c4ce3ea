"""Fakes for tests of plugins and of the API: in-memory implementations of what they use.

:class:`~meter.testing.memory_store.MemoryStore` answers every query of :mod:`meter.query` in plain Python. The others give
a plugin its context without a daemon, a broker or a hypervisor; cycles are real ones (:mod:`meter.agent.cycle`)::

    cycle = FakeCycle({IHypervisor: FakeHypervisor([domain])})
    samples = await MyPollster().poll(cycle)
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from twisted.internet.task import Clock
from zope.interface import implementer

from meter.agent.cycle import Cycle
from meter.agent.cycle import PluginContext
from meter.interfaces import Absence
from meter.interfaces import Domain
from meter.interfaces import IHypervisor
from meter.testing.memory_store import MemoryStore

__all__ = ["FakeCycle", "FakeHypervisor", "FakePluginContext", "MemoryStore"]


class FakePluginContext(PluginContext):
    """The context of a daemon with the given ``providers``, a mapping from interface to object, and a clock to advance."""

    def __init__(
        self,
        providers: Mapping[Any, Any] | None = None,
        *,
        clock: Clock | None = None,
        config: Any = None,
        daemon: str = "meter-compute",
    ) -> None:
        super().__init__(daemon, config, clock or Clock(), dict(providers or {}))


class FakeCycle(Cycle):
    """A polling cycle in such a context; it starts at ``timestamp``, by default the current time of the clock."""

    clock: Any

    def __init__(
        self,
        providers: Mapping[Any, Any] | None = None,
        *,
        timestamp: datetime | None = None,
        trial: bool = False,
        context: PluginContext | None = None,
        **plugin_context: Any,
    ) -> None:
        super().__init__(context or FakePluginContext(providers, **plugin_context), trial=trial)
        if timestamp is not None:
            self.timestamp = timestamp

    def following(self) -> FakeCycle:
        """Return the next cycle in the same context, with the same daemon cache, at the current time of the clock."""
        return FakeCycle(context=self._context)


@implementer(IHypervisor)
class FakeHypervisor:
    """A hypervisor that runs the given domains.

    While ``failure`` is set to an exception, :meth:`domains` raises it; ``calls`` counts its calls. ``absences`` has by UUID why
    a domain is not running; other domains are gone. ``unreadable`` has why domains could not be read.
    """

    def __init__(self, domains: Iterable[Domain] = (), *, uri: str = "test:///fake") -> None:
        self.uri = uri
        self.running = list(domains)
        self.failure: Exception | None = None
        self.calls = 0
        self.absences: dict[str, Absence] = {}
        self.unreadable: dict[str, str] = {}
        self._observers: list[Callable[[Domain], object]] = []

    def absence(self, uuid: str) -> Absence:
        """Return the absence of the domain ``uuid``: gone, unless ``absences`` has another."""
        return self.absences.get(uuid, Absence("gone"))

    def observe(self, receive: Callable[[Domain], object]) -> None:
        """Call ``receive`` with each changed domain."""
        self._observers.append(receive)

    def change(self, domain: Domain) -> None:
        """Call all observers with ``domain``, whose ``event`` is the change."""
        for receive in self._observers:
            receive(domain)

    async def domains(self) -> Sequence[Domain]:
        """Return the running domains."""
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        return list(self.running)
