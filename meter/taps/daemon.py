"""What every daemon has: options, configuration, plugins, metrics, status pages and a manhole."""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from typing import NoReturn

from twisted.application.service import IService
from twisted.python import usage
from zope.interface import implementer

from meter.agent.cycle import PluginContext
from meter.agent.destination import encoded
from meter.agent.leader import LeaderElection
from meter.agent.outbox import Outbox
from meter.agent.polling import CycleReport
from meter.agent.polling import Polling
from meter.agent.scheduler import AlignedSchedule
from meter.agent.spool import Spool
from meter.daemon.manhole import manhole
from meter.daemon.manhole import namespace
from meter.daemon.manhole import problems as manhole_problems
from meter.daemon.metrics import CONTENT_TYPE
from meter.daemon.metrics import HealthMetrics
from meter.daemon.metrics import PollingMetrics
from meter.daemon.metrics import PublishingMetrics
from meter.daemon.metrics import ReactorLag
from meter.daemon.metrics import exposition
from meter.daemon.metrics import metrics_registry
from meter.daemon.ports import Port
from meter.daemon.process_lock import ListenLock
from meter.daemon.process_lock import LockFile
from meter.daemon.process_lock import Taken
from meter.daemon.services import StagedService
from meter.daemon.status import Dispensable
from meter.daemon.status import readiness_of
from meter.daemon.status import readiness_text
from meter.daemon.status import readiness_watch
from meter.daemon.status import status_site
from meter.daemon.threads import CallThread
from meter.declarative.notifications import load_user_definitions
from meter.declarative.notifications import without_redefined_meters
from meter.declarative.rest import load_user_pollsters
from meter.interfaces import IBus
from meter.interfaces import IDependency
from meter.interfaces import IHealth
from meter.interfaces import ISkippedSamples
from meter.interfaces import Readiness
from meter.plugins.activation import Activation
from meter.plugins.registry import CENTRAL
from meter.plugins.registry import COMPUTE
from meter.plugins.registry import LISTENER
from meter.plugins.registry import Decision
from meter.plugins.registry import Kind
from meter.plugins.registry import configure
from meter.plugins.registry import decide_now
from meter.plugins.registry import find
from meter.plugins.registry import report
from meter.settings import Config
from meter.settings.config_file import DEFAULT_FILE
from meter.settings.config_file import ConfigError
from meter.settings.config_file import effective
from meter.settings.config_file import keyring
from meter.settings.config_file import load
from meter.settings.config_file import parse
from meter.signature import Keyring
from meter.taps.monotonic_clock import use_monotonic_clock
from meter.taps.process_locks import check_spool
from meter.taps.process_locks import claimed
from meter.taps.process_locks import destination
from meter.taps.signals import exit_on_second_signal

STOP_SECONDS = 75.0
"""How long all parts of a daemon together may take to stop; less than ``TimeoutStopSec`` in ``etc/systemd``."""


class Options(usage.Options):
    """Where the configuration is, and whether only to look at it."""

    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["config", "c", None, f"The configuration, a TOML file. [default: {DEFAULT_FILE}, where it exists]"]
    ]
    optFlags = [  # noqa: N815, RUF012
        ["check", None, "Say all that is wrong with the configuration, show what is in effect, and leave."]
    ]


@implementer(IHealth)
class Daemon:
    """A daemon while it is put together: its parts, in the order in which they start."""

    def __init__(self, name: str, config: Config, kinds: Sequence[Kind], *, only_checking: bool) -> None:
        from twisted.internet import reactor

        self.name = name
        self.config = config
        self.reactor: Any = reactor
        use_monotonic_clock(self.reactor)
        self.root = StagedService(self.reactor, most_seconds=STOP_SECONDS)
        self.registry = metrics_registry(name)
        self.dependencies: list[IDependency] = []
        self.activations: list[Activation] = []
        self.polling: Polling | None = None
        self.locks: list[LockFile | ListenLock] = []
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self._only_checking = only_checking
        self._keys: Keyring | None = None
        self._plugins = self._configured_plugins(kinds)
        self.health_metrics = HealthMetrics(self.registry)
        self.health_metrics.count_stop_timeouts(lambda: self.root.timed_out)

    def _configured_plugins(self, kinds: Sequence[Kind]) -> list[Decision]:
        sections = {"pollsters": self.config.pollsters, "listeners": self.config.listeners}
        own, wrong = load_user_definitions(self.config.notifications.definitions)
        rest, wrong_rest = load_user_pollsters(self.config.central.pollsters_dir)
        configured = configure([*find(), *own, *rest], sections, self.config.plugins.disable)
        self.problems += configured.problems
        self.warnings += [*configured.warnings, *(wrong if LISTENER in kinds else ())]
        self.warnings += wrong_rest if CENTRAL in kinds else ()
        return [decision for decision in without_redefined_meters(configured.decisions, own) if decision.kind in kinds]

    @property
    def state_dir(self) -> Path:
        """Where this daemon keeps what must survive it."""
        return Path(self.config.meter.state_dir)

    @property
    def keys(self) -> Keyring:
        """The signing keys; a check does not make the file that a first start makes."""
        if self._keys is None:
            self._keys = keyring(self.config, make=not self._only_checking)
        return self._keys

    def add(self, service: IService, *, without: str = "") -> None:
        """Add a part that starts after those added before, and stops before them.

        ``without`` says what the daemon cannot do while the part is not ready, where that leaves it ready for the rest.
        """
        service.setServiceParent(self.root)
        if IDependency.providedBy(service):
            self.dependencies.append(Dispensable(service, without) if without else service)

    def plugins(self, *kinds: Kind) -> list[Decision]:
        """Return what is installed of ``kinds``, configured and not yet asked."""
        return [decision for decision in self._plugins if decision.kind in kinds]

    def decisions(self, *kinds: Kind) -> Iterable[Decision]:
        """Return what is decided of ``kinds`` by now."""
        return [each for activation in self.activations for each in activation.decisions if each.kind in kinds]

    def readinesses(self) -> Sequence[Readiness]:
        """Return the present state of each dependency."""
        return [readiness_of(dependency) for dependency in self.dependencies]

    def plugin_context(self, providers: Mapping[Any, Any] | None = None) -> PluginContext:
        """Return what this daemon's plugins may look at, with collaborators by interface."""
        return PluginContext(self.name, self.config, self.reactor, {IHealth: self, **(providers or {})})

    def poll(
        self,
        bus: IBus,
        kinds: Sequence[Kind],
        providers: Mapping[Any, Any] | None = None,
        after_cycle: Callable[[CycleReport], object] = lambda _: None,
        *,
        turn: str = "",
        timeout_seconds: float | None = None,
    ) -> Outbox:
        """Add the outbox and the polling of the pollsters of ``kinds``; return the outbox.

        Agents that share ``turn`` on the bus poll in turns; ``timeout_seconds`` is a pollster's, where it is its own.
        """
        settings = self.config.polling
        thread = CallThread(self.reactor, "spool")
        path = self.state_dir / f"{self.name}.spool"
        spool = Spool(
            path,
            filled_for=self._destination_of(path),
            largest_bytes=self.config.spool.largest_bytes,
            longest_age_seconds=self.config.spool.longest_age_seconds,
            clock=self.reactor,
            run=lambda function, *arguments: thread.call(lambda: function(*arguments)),
        )
        publishing = PublishingMetrics(self.registry)
        publishing.watch_spool(lambda: spool.rows, lambda: spool.bytes, lambda: spool.oldest_seconds)
        outbox = Outbox(
            spool,
            bus,
            self.reactor,
            metrics=publishing,
            batch=self.config.bus.window,
        )
        self.add(outbox)
        metrics = PollingMetrics(self.registry)
        context = self.plugin_context({ISkippedSamples: metrics, IBus: bus, **(providers or {})})
        polling = Polling(
            context,
            outbox.put,
            self.keys,
            source=self.config.meter.source,
            timeout_seconds=timeout_seconds or settings.timeout_seconds,
            batch_samples=settings.batch_samples,
            metrics=metrics,
            after_cycle=after_cycle,
            interval_of=settings.interval_of,
            unit_name=self.config.units.name_of,
        )

        def begin(active: Sequence[Decision]) -> IService:
            polling.pollsters = tuple(active)
            intervals = {each.name: settings.interval_of(each.name) for each in active}

            async def cycle(due: frozenset[float]) -> None:
                await polling.cycle([each for each in active if intervals[each.name] in due])

            agent = StagedService(self.reactor)
            turns = LeaderElection(bus, turn, cycle, self.reactor) if turn else None
            if turns:
                turns.setServiceParent(agent)
            AlignedSchedule(
                turns.take if turns else cycle,
                set(intervals.values()),
                self.reactor,
                name="polling cycle",
                offset_seconds=random.random() * settings.jitter_seconds,
                tell_skipped=metrics.cycles_skipped,
            ).setServiceParent(agent)
            return agent

        candidates = self.plugins(*kinds)
        for pattern in settings.intervals:
            if not any(fnmatchcase(each.name, pattern) for each in candidates):
                self.warnings.append(f"[polling] intervals: {pattern!r} is the name of no pollster")
        self.activate(Activation(candidates, context, begin, name="pollsters"))
        self.polling = polling
        return outbox

    def own(self, directories: Mapping[str, Path], listens: Mapping[str, str]) -> None:
        """Lock ``directories`` and what this daemon listens on; each is given with its setting.

        Nothing has started yet, and nothing will where another process has one of them.
        """
        if self._only_checking:
            return
        everything = {"[status] listen": self._own("status"), **listens}
        for lock in claimed(self.name, {"[meter] state_dir": self.state_dir, **directories}, everything):
            self.locks.append(lock)
            if isinstance(lock, LockFile):
                lock.setServiceParent(self.root)

    def _destination_of(self, spool: Path) -> str:
        """Return the destination of spooled samples; raise :class:`Taken` if ``spool`` holds samples for another one."""
        present = destination(self.config, self.keys)
        if not (self._only_checking or self.config.spool.send_to_new_destination):
            check_spool(spool, present)
        return encoded(present)

    def activate(self, activation: Activation) -> None:
        """Add plugins that are asked at start."""
        self.activations.append(activation)
        self.add(activation)

    def add_diagnostics(self) -> None:
        """Add status pages, metrics and manhole. They come first, so that they also see the others start and stop."""
        status = self._own("status")
        if status:
            site = status_site(self.dependencies, lambda: exposition(self.registry), CONTENT_TYPE, self.reactor)
            advice = "; give this daemon a place of its own in [status.by_daemon]"
            Port(status, site, name="status", reactor=self.reactor, clock=self.reactor, advice=advice).setServiceParent(
                self.root
            )
        settings = self.config.manhole
        listen = self._own("manhole")
        if listen:
            wrong = manhole_problems(listen, settings.host_key_file, settings.authorized_keys_file)
            self.problems += wrong
            if not wrong:
                self.add(self._manhole(listen))
        self.add(ReactorLag(self.reactor, self.health_metrics.lagged))
        self.add(readiness_watch(self.dependencies, self.reactor))

    def _own(self, section: str) -> str:
        """Where this daemon listens, by ``[status]`` or ``[manhole]``."""
        settings = getattr(self.config, section)
        listen: str = settings.by_daemon.get(self.name, settings.listen)
        return listen

    def _manhole(self, listen: str) -> IService:
        async def poll_now(name: str) -> object:
            if self.polling is None:
                raise LookupError(f"{self.name} does not poll")
            return await self.polling.poll_now(name)

        return manhole(
            self.reactor,
            listen,
            self.config.manhole.host_key_file,
            self.config.manhole.authorized_keys_file,
            namespace(
                status=lambda: readiness_text(self.dependencies),
                config=effective(self.config),
                pollsters=lambda: self.decisions(COMPUTE, CENTRAL),
                listeners=lambda: self.decisions(LISTENER),
                poll_now=poll_now,
            ),
        )


Compose = Callable[[Daemon], None]
"""Adds the parts that make a daemon what it is."""


def make(name: str, kinds: Sequence[Kind], options: Mapping[str, Any], compose: Compose) -> IService:
    """Return the service of the daemon ``name``, or leave with everything that is wrong, or after ``--check``."""
    checking = bool(options["check"])
    path = options["config"] or (DEFAULT_FILE if os.path.exists(DEFAULT_FILE) else None)
    try:
        config = load(path, name) if path else parse("", name, "built-in defaults")
        daemon = Daemon(name, config, kinds, only_checking=checking)
        daemon.add_diagnostics()
        if not daemon.problems:
            compose(daemon)
    except ConfigError as error:
        _leave(error.problems)
    except OSError as error:
        _leave([f"[meter] state_dir: {error}"])
    except Taken as error:
        _leave([f"{path or 'built-in defaults'}: {error}"])
    except ValueError as error:
        _leave([str(error)])  # what only the library behind a setting can judge
    daemon.health_metrics.watch(daemon.dependencies)
    if checking:
        _show(daemon)
    if daemon.problems:
        _leave([f"{path or 'built-in defaults'}: {problem}" for problem in daemon.problems])
    for warning in daemon.warnings:
        sys.stderr.write(f"{path or 'built-in defaults'}: {warning}\n")
    exit_on_second_signal(daemon.reactor)
    # What is loaded by now stays: looking it through for reference cycles, again and again, would take 40 ms each time.
    gc.collect()
    gc.freeze()
    return daemon.root


def _show(daemon: Daemon) -> NoReturn:
    """Print what is in effect, then leave: with 0, or with 1 and what is wrong."""
    decisions = [
        each for activation in daemon.activations for each in decide_now(activation.decisions, activation.context)
    ]
    sys.stdout.write(effective(daemon.config))
    sys.stdout.write(f"\n{report(decisions)}\n" if decisions else "\n")
    sys.stdout.flush()
    for warning in daemon.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    _leave(daemon.problems)


def _leave(problems: Sequence[str]) -> NoReturn:
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    sys.exit(1 if problems else 0)
