"""The objects that plugins receive: the context of the daemon, and the polling cycle."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
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
    """What plugins may use; ``providers`` maps an interface to its provider in this daemon."""

    daemon: str
    config: Any
    clock: IReactorTime
    providers: Mapping[Any, Any] = field(default_factory=dict)
    _daemon_cache: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def provider(self, interface: Any) -> Any:
        """Return the provider of ``interface``; ``LookupError`` when this daemon has none."""
        try:
            return self.providers[interface]
        except KeyError:
            raise LookupError(f"{self.daemon} has no {interface.__name__}") from None

    def daemon_cache(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the value for ``key``, made by ``make()`` at the first call."""
        if key not in self._daemon_cache:
            self._daemon_cache[key] = make()
        return self._daemon_cache[key]

    def with_providers(self, providers: Mapping[Any, Any]) -> PluginContext:
        """Return a context with the same daemon cache, in which ``providers`` replace some of the providers."""
        return PluginContext(self.daemon, self.config, self.clock, {**self.providers, **providers}, self._daemon_cache)


@implementer(ICycle)
class Cycle:
    """One polling cycle, with a cache that its pollsters share."""

    def __init__(self, context: PluginContext, *, trial: bool = False) -> None:
        self._context = context
        self.trial = trial
        self._cycle_cache: dict[Hashable, _SharedWork] = {}
        self.daemon = context.daemon
        self.config = context.config
        self.clock = context.clock
        self.timestamp = datetime.fromtimestamp(wall_seconds(context.clock), UTC)

    def provider(self, interface: Any) -> Any:
        """Return the daemon's provider of ``interface``; ``LookupError`` when it has none."""
        return self._context.provider(interface)

    def daemon_cache(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the value for ``key``, made by ``make()`` at the first call in this daemon."""
        return self._context.daemon_cache(key, make)

    async def cycle_cache(self, key: Hashable, make: Callable[[], Awaitable[Any]]) -> Any:
        """Return the result for ``key``, or raise its exception; ``make`` is awaited once per cycle."""
        if key not in self._cycle_cache:
            self._cycle_cache[key] = _SharedWork(make())
        return await self._cycle_cache[key].outcome()


class _SharedWork:
    """Work that several callers wait for. Cancelling one caller does not affect the others."""

    def __init__(self, work: Awaitable[Any]) -> None:
        self._outcome: tuple[Any] | None = None
        self._waiting: list[Deferred[Any]] = []

        async def run() -> Any:
            return await work

        Deferred.fromCoroutine(run()).addBoth(self._finish)

    def _finish(self, outcome: Any) -> None:
        self._outcome = (outcome,)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(outcome)  # a Failure makes it fail

    def outcome(self) -> Deferred[Any]:
        each: Deferred[Any] = Deferred(lambda d: self._waiting.remove(d))
        if self._outcome is None:
            self._waiting.append(each)
        else:
            each.callback(self._outcome[0])
        return each
