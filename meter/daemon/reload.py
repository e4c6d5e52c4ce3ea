"""Reads the configuration again while the daemon runs: what can change is changed, and what cannot is told."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import Literal
from typing import Protocol

from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from meter.settings import Config
from meter.settings.differences import Setting
from meter.settings.differences import changed_settings
from meter.settings.differences import named
from meter.settings.differences import settings_of
from meter.settings.differences import shown_change
from meter.settings.differences import with_settings
from meter.settings.problems import ConfigError

Result = Literal["ok", "partial", "invalid"]
"""*partial*: some settings were refused by the part that they are for, and keep their former values."""

RESULTS: Sequence[Result] = ("ok", "partial", "invalid")

Apply = Callable[[Config], Awaitable[None] | None]
"""Changes a part; raises ``ValueError`` with the reason if it cannot, and has changed nothing then."""


class IReloadMetrics(Protocol):
    """Counts reloads."""

    def reloaded(self, result: Result) -> None:
        """Count a reload."""

    def waiting(self, settings: int) -> None:
        """Set the number of settings that wait for a restart."""


@dataclass(frozen=True, slots=True)
class Reloadable:
    """Settings that a part can change together while it runs. A setting that ends with ``*`` stands for all that begin so."""

    settings: tuple[str, ...]
    apply: Apply

    def has(self, setting: Setting) -> bool:
        """Return whether ``setting`` is one of these."""
        name = ".".join(setting)
        return any(name == each or (each.endswith("*") and name.startswith(each[:-1])) for each in self.settings)


class Reload:
    """The settings that are in force in a daemon, and the parts that take other values while they run.

    ``load`` reads the configuration again and raises :class:`~meter.settings.problems.ConfigError`. Settings for which ``concerns`` is false are
    of other daemons. ``config`` is what is in force. ``in_force`` is called when that has changed, ``refresh`` at every reload: it
    reads again what is in files of its own.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config],
        *,
        metrics: IReloadMetrics,
        concerns: Callable[[Setting], bool] = lambda _: True,
        in_force: Callable[[Config], object] = lambda _: None,
    ) -> None:
        self.config = config
        self._load = load
        self._metrics = metrics
        self._concerns = concerns
        self._in_force = in_force
        self._parts: list[Reloadable] = []
        self._refresh: list[Callable[[], Awaitable[None] | None]] = []
        self._checks: list[Callable[[Config], str]] = []
        self._told: dict[Setting, Any] = {}
        self._running: Deferred[None] | None = None
        self._again = False
        self._ended = False

    def add(self, settings: Sequence[str], apply: Apply) -> None:
        """Let ``apply`` change these settings, as ``polling.interval_seconds`` or ``signing.*``."""
        self._parts.append(Reloadable(tuple(settings), apply))

    def add_refresh(self, refresh: Callable[[], Awaitable[None] | None]) -> None:
        """Call ``refresh`` at every reload."""
        self._refresh.append(refresh)

    def add_check(self, check: Callable[[Config], str]) -> None:
        """Call ``check`` at every reload: it returns what is wrong with settings that wait for a restart, empty if nothing is."""
        self._checks.append(check)

    @property
    def settings(self) -> list[str]:
        """The settings that parts of this daemon can change, as they were added."""
        return [each for part in self._parts for each in part.settings]

    def request(self) -> None:
        """Reload now, or once more when the reload in progress has ended."""
        if self._ended:
            self._log.info("the configuration is not reloaded: the daemon stops")
        elif self._running is not None:
            self._again = True
        else:
            self._running = Deferred.fromCoroutine(self._run())
            if self._running.called:
                self._running = None

    def end(self) -> None:
        """Reload no more: the daemon stops."""
        self._ended = True
        if self._running is not None:
            self._running.cancel()

    async def _run(self) -> None:
        try:
            while not self._ended:
                self._again = False
                try:
                    await self.reload()
                except CancelledError:
                    return
                except Exception:
                    self._log.failure("the configuration could not be reloaded")
                if not self._again:
                    return
        finally:
            self._running = None

    async def reload(self) -> Result:
        """Read the configuration again, and give each part its changed settings."""
        try:
            new = self._load()
        except ConfigError as refused:
            self._log.error(
                "the configuration was not reloaded, what was in force stays so: {problems}",
                problems="; ".join(refused.problems),
            )
            self._metrics.reloaded("invalid")
            return "invalid"
        self._log.info("reloading the configuration")
        present, wanted = settings_of(self.config), settings_of(new)
        changed = [each for each in changed_settings(present, wanted) if self._concerns(each)]
        complete = True
        for part in self._parts:
            mine = [each for each in changed if part.has(each)]
            if mine:
                complete &= await self._change(part, mine, present, wanted)
        self._tell_waiting(changed, present, wanted)
        for check in self._checks:
            if problem := check(new):
                self._log.error("mend before the restart: {problem}", problem=problem)
        for refresh in self._refresh:
            try:
                await _done(refresh())
            except CancelledError:
                raise
            except Exception:
                self._log.failure("files could not be read again")
        result: Result = "ok" if complete else "partial"
        self._metrics.reloaded(result)
        return result

    async def _change(
        self, part: Reloadable, mine: Sequence[Setting], present: Mapping[Setting, Any], wanted: Mapping[Setting, Any]
    ) -> bool:
        config = with_settings(self.config, {each: wanted.get(each) for each in mine})
        names = ", ".join(map(named, mine))
        try:
            await _done(part.apply(config))
        except (ConfigError, ValueError) as error:
            self._log.error(
                "not reloaded: {settings}, the former values stay in force: {reason}", settings=names, reason=error
            )
            return False
        except CancelledError:
            raise
        except Exception:
            self._log.failure("not reloaded: {settings}, restart the daemon", settings=names)
            return False
        self.config = config
        self._in_force(config)
        for each in mine:
            shown = shown_change(each, present.get(each), wanted.get(each))
            self._log.info(
                "reloaded {setting}{change}", setting=named(each), change=f": {shown}" if shown else " (not shown)"
            )
        return True

    def _tell_waiting(
        self, changed: Sequence[Setting], present: Mapping[Setting, Any], wanted: Mapping[Setting, Any]
    ) -> None:
        """Log which settings wait for a restart; each once, until it changes again."""
        waiting = [each for each in changed if not any(part.has(each) for part in self._parts)]
        for each in waiting:
            value = wanted.get(each)
            if each in self._told and self._told[each] == value:
                continue
            shown = shown_change(each, present.get(each), value)
            self._log.warn(
                "{setting} has changed and takes effect after a restart{change}",
                setting=named(each),
                change=f": {shown}" if shown else "",
            )
        for each in self._told.keys() - set(waiting):
            self._log.info("{setting} has the value again that is in force", setting=named(each))
        self._told = {each: wanted.get(each) for each in waiting}
        self._metrics.waiting(len(waiting))


async def _done(work: Awaitable[None] | None) -> None:
    if work is not None:
        await work
