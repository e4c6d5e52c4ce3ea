"""In-memory fakes of what plugins and the API use, for the tests of Meter and of your plugins.

:class:`~meter.testing.memory_store.MemoryStore` executes every query of :mod:`meter.query` in plain Python. The other fakes give
a plugin its context without a daemon, a broker or a hypervisor::

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
    """A plugin context with the given ``providers``, a mapping from interface to object, and a clock that tests advance."""

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
        self._daemon_cache: dict[Hashable, Any] = {}

    def daemon_cache(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the value that ``make()`` returned for the first request of ``key``, in this cycle or one before."""
        if key not in self._daemon_cache:
            self._daemon_cache[key] = make()
        return self._daemon_cache[key]

    def provider(self, interface: Any) -> Any:
        """Return the provider of ``interface``; ``LookupError`` names the interface when there is none."""
        try:
            return self._providers[interface]
        except KeyError:
            raise LookupError(f"{self.daemon} has no provider of {interface.__name__}") from None


@implementer(ICycle)
class FakeCycle(FakePluginContext):
    """A polling cycle that starts at ``timestamp``, or now according to the clock."""

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
        """Return the next cycle of the same daemon, which starts now and has the same daemon cache."""
        next_cycle = FakeCycle(self._providers, clock=self.clock, config=self.config, daemon=self.daemon)
        next_cycle._daemon_cache = self._daemon_cache
        return next_cycle

    async def cycle_cache(self, key: Hashable, make: Callable[[], Awaitable[Any]]) -> Any:
        """Return the result of ``await make()``, called once per ``key``; its exception is shared too."""
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
    """A hypervisor that runs the given domains.

    While ``failure`` is set to an exception, :meth:`domains` raises it; ``calls`` counts its calls. ``absences`` has by UUID why
    a domain is not running; other domains are gone.
    """

    def __init__(self, domains: Iterable[Domain] = (), *, uri: str = "test:///fake") -> None:
        self.uri = uri
        self.running = list(domains)
        self.failure: Exception | None = None
        self.calls = 0
        self.absences: dict[str, Absence] = {}
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
