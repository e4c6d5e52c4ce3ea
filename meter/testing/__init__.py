"""In-memory stand-ins for what plugins and the API work with, for Meter's tests and for yours.

:class:`~meter.testing.memory_store.MemoryStore` answers every question of :mod:`meter.query` in plain Python. The others give a
plugin its plugin_context without a daemon, a broker or a hypervisor::

    cycle = FakeCycle({IHypervisor: FakeHypervisor([domain])})
    samples = await MyPollster().poll(cycle)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from typing import Any

from twisted.internet.defer import DeferredLock
from twisted.internet.task import Clock
from zope.interface import implementer

from meter.interfaces import Absence
from meter.interfaces import Domain
from meter.interfaces import ICycle
from meter.interfaces import IHypervisor
from meter.interfaces import IPluginContext
from meter.testing.memory_store import MemoryStore

__all__ = ["FakeCycle", "FakeHypervisor", "FakePluginContext", "MemoryStore"]


@implementer(IPluginContext)
class FakePluginContext:
    """PluginContext that hold the given ``providers``, a mapping from interface to object, and a clock to advance."""

    def __init__(
        self,
        providers: Mapping[Any, Any] | None = None,
        *,
        clock: Clock | None = None,
        config: Any = None,
        daemon: str = "meter-compute",
    ) -> None:
        self.daemon = daemon
        self.config = config
        self.clock: Any = clock or Clock()
        self._providers = dict(providers or {})
        self._kept: dict[Hashable, Any] = {}

    def daemon_cache(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what ``make()`` returned when ``key`` was first asked for, here or in a cycle that follows this one."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def provider(self, interface: Any) -> Any:
        """Return the provider of ``interface``; ``LookupError`` names the interface when there is none."""
        try:
            return self._providers[interface]
        except KeyError:
            raise LookupError(f"{self.daemon} has no provider of {interface.__name__}") from None


@implementer(ICycle)
class FakeCycle(FakePluginContext):
    """One polling cycle; it starts at ``timestamp``, else at the clock's present moment."""

    def __init__(
        self,
        providers: Mapping[Any, Any] | None = None,
        *,
        timestamp: datetime | None = None,
        trial: bool = False,
        **plugin_context: Any,
    ) -> None:
        super().__init__(providers, **plugin_context)
        self.trial = trial
        self.timestamp = timestamp or datetime.fromtimestamp(self.clock.seconds(), UTC)
        self._locks: defaultdict[Hashable, DeferredLock] = defaultdict(DeferredLock)
        self._outcomes: dict[Hashable, tuple[Any, Exception | None]] = {}

    def following(self) -> FakeCycle:
        """Return the next cycle of the same daemon, at the clock's present moment: what is kept is there."""
        following = FakeCycle(self._providers, clock=self.clock, config=self.config, daemon=self.daemon)
        following._kept = self._kept
        return following

    async def cycle_cache(self, key: Hashable, make: Callable[[], Awaitable[Any]]) -> Any:
        """Return ``await make()`` of whoever asked first for ``key``; its failure is shared too."""
        lock = self._locks[key]
        await lock.acquire()
        try:
            if key not in self._outcomes:
                try:
                    self._outcomes[key] = (await make(), None)
                except Exception as error:
                    self._outcomes[key] = (None, error)
        finally:
            lock.release()
        value, failure = self._outcomes[key]
        if failure is not None:
            raise failure
        return value


@implementer(IHypervisor)
class FakeHypervisor:
    """A hypervisor that runs the given domains. Set ``failure`` to an exception to have it raised; ``calls`` counts.

    ``absences`` says by UUID why a domain does not run any more; others are gone.
    """

    def __init__(self, domains: Iterable[Domain] = (), *, uri: str = "test:///fake") -> None:
        self.uri = uri
        self.running = list(domains)
        self.failure: Exception | None = None
        self.calls = 0
        self.absences: dict[str, Absence] = {}
        self._observers: list[Callable[[Domain], object]] = []

    def absence(self, uuid: str) -> Absence:
        """Return what ``absences`` says, else that it is gone."""
        return self.absences.get(uuid, Absence("gone"))

    def observe(self, receive: Callable[[Domain], object]) -> None:
        """Let ``receive`` know of changes."""
        self._observers.append(receive)

    def change(self, domain: Domain) -> None:
        """Tell all observers of ``domain``, whose ``event`` says what has happened to it."""
        for receive in self._observers:
            receive(domain)

    async def domains(self) -> Sequence[Domain]:
        """Return the domains that run now."""
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        return list(self.running)
