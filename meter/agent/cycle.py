"""What a plugin may look at and share: its plugin_context, and the polling cycle it runs in."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from meter.daemon.services import wall_seconds
from meter.interfaces import ICycle
from meter.interfaces import IPluginContext


@implementer(IPluginContext)
@dataclass(frozen=True)
class PluginContext:
    """What plugins may look at and work with; ``providers`` maps an interface to its one provider here."""

    daemon: str
    config: Any
    clock: IReactorTime
    providers: Mapping[Any, Any] = field(default_factory=dict)
    _kept: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def provider(self, interface: Any) -> Any:
        """Return the provider of ``interface``; ``LookupError`` when this daemon has none."""
        try:
            return self.providers[interface]
        except KeyError:
            raise LookupError(f"{self.daemon} has no {interface.__name__}") from None

    def daemon_cache(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what ``make()`` returned when ``key`` was first asked for."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def with_providers(self, providers: Mapping[Any, Any]) -> PluginContext:
        """Return the same plugin_context, what is kept included, with other ``providers`` in place of some."""
        return replace(self, providers={**self.providers, **providers})


@implementer(ICycle)
class Cycle:
    """One polling cycle; what its pollsters share lives as long as it."""

    def __init__(self, context: PluginContext, *, trial: bool = False) -> None:
        self._here = context
        self.trial = trial
        self._shared: dict[Hashable, _SharedWork] = {}
        self.daemon = context.daemon
        self.config = context.config
        self.clock = context.clock
        self.timestamp = datetime.fromtimestamp(wall_seconds(context.clock), UTC)

    def provider(self, interface: Any) -> Any:
        """Return the daemon's provider of ``interface``; ``LookupError`` when it has none."""
        return self._here.provider(interface)

    def daemon_cache(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what ``make()`` returned when ``key`` was first asked for in this daemon."""
        return self._here.daemon_cache(key, make)

    async def cycle_cache(self, key: Hashable, make: Callable[[], Awaitable[Any]]) -> Any:
        """Return what ``make`` gave to the first that asked with ``key`` in this cycle, or raise what it raised."""
        if key not in self._shared:
            self._shared[key] = _SharedWork(make())
        return await self._shared[key].outcome()


class _SharedWork:
    """Work that several wait for. Whoever is given up while waiting takes nothing from the others."""

    def __init__(self, work: Awaitable[Any]) -> None:
        self._finished: tuple[Any] | None = None
        self._waiting: list[Deferred[Any]] = []

        async def run() -> Any:
            return await work

        Deferred.fromCoroutine(run()).addBoth(self._finish)

    def _finish(self, outcome: Any) -> None:
        self._finished = (outcome,)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(outcome)  # a Failure makes it fail

    def outcome(self) -> Deferred[Any]:
        each: Deferred[Any] = Deferred(lambda d: self._waiting.remove(d))
        if self._finished is None:
            self._waiting.append(each)
        else:
            each.callback(self._finished[0])
        return each
