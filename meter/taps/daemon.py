"""A daemon while it is composed: its configuration, plugins, metrics and services, in the order of starting."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from twisted.application.service import IService
from twisted.logger import Logger
from zope.interface import implementer

from meter.daemon.certificate_metrics import CertificateMetrics
from meter.daemon.metrics import HealthMetrics
from meter.daemon.metrics import metrics_registry
from meter.daemon.process_lock import ListenLock
from meter.daemon.process_lock import LockFile
from meter.daemon.reload import Reload
from meter.daemon.reload_metrics import ReloadMetrics
from meter.daemon.services import StagedService
from meter.daemon.status import OptionalDependency
from meter.daemon.status import readiness_of
from meter.daemon.threads import OffReactor
from meter.heartbeat import SpoolState
from meter.interfaces import IDependency
from meter.interfaces import IHealth
from meter.interfaces import Readiness
from meter.plugins.activation import Activation
from meter.plugins.registry import CENTRAL
from meter.plugins.registry import LISTENER
from meter.plugins.registry import Decision
from meter.plugins.registry import Kind
from meter.plugins.registry import configure
from meter.plugins.registry import find
from meter.settings import Config
from meter.settings.config_file import has_key
from meter.settings.config_file import keyring
from meter.settings.daemon_sections import concerns
from meter.settings.problems import placed_in_file
from meter.signing_keys import Keyring
from meter.taps.monotonic_clock import use_monotonic_clock

# What only some daemons need is imported where they need it: the API has 15 MiB less without the plugins.
if TYPE_CHECKING:
    from meter.agent.cycle import PluginContext
    from meter.agent.polling import Polling

STOP_SECONDS = 75.0
"""How long all parts of a daemon together may take to stop; less than ``TimeoutStopSec`` in ``etc/systemd``."""

_log = Logger()


@implementer(IHealth)
class Daemon:
    """A daemon under construction: :meth:`add` and :meth:`activate` append services in the order of starting."""

    def __init__(
        self,
        name: str,
        config: Config,
        kinds: Sequence[Kind],
        *,
        only_checking: bool,
        load: Callable[[], Config] | None = None,
    ) -> None:
        from twisted.internet import reactor

        self.name = name
        self.config = config
        self.config_path: str | None = None
        """The file of the configuration; ``None`` if all settings have their defaults."""
        self.reactor: Any = reactor
        use_monotonic_clock(self.reactor)
        self.root = StagedService(self.reactor, max_seconds=STOP_SECONDS)
        self.registry = metrics_registry(name)
        self.boot = str(uuid.uuid4())
        """Identifies this life of the process in heartbeats and cycle reports."""
        self.certificate_ends: dict[str, Callable[[], datetime]] = {}
        """When the certificates of the ports *api* and *status* end, if they speak TLS."""
        self.spool_state: Callable[[], SpoolState | None] = lambda: None
        self.dependencies: list[IDependency] = []
        self.activations: list[Activation] = []
        self.polling: Polling | None = None
        self.count_dead_letter: Callable[[str], object] = lambda _kind: None
        self.locks: list[LockFile | ListenLock] = []
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.only_checking = only_checking
        self._keys: Keyring | None = None
        self.declared_meters: frozenset[str] = frozenset()
        """The meters of all installed plugins, whether this or another daemon runs them; empty if nobody needs them."""
        self.off_reactor = OffReactor(reactor, "large bodies")  # type: ignore[arg-type]
        self.busy: list[Callable[[], bool]] = []
        """Whether each part does what a full garbage collection must not interrupt."""
        self.key_changes: list[Callable[[Config], Awaitable[None]]] = []
        """Called when the signing keys have changed while the daemon runs."""
        self.reload = Reload(
            config,
            load or (lambda: config),
            metrics=ReloadMetrics(self.registry),
            concerns=lambda setting: concerns(name, setting[0]),
            in_force=self._set_config,
        )
        self._kinds = kinds
        self._found: list[Decision] = []
        self._user_defined: list[Decision] = []
        self._plugins = self._configured_plugins(kinds) if self._looks_at_plugins(kinds) else []
        self.health_metrics = HealthMetrics(self.registry)
        CertificateMetrics(self.registry, self.certificate_ends)
        self.health_metrics.count_stop_timeouts(lambda: self.root.timed_out)

    def _looks_at_plugins(self, kinds: Sequence[Kind]) -> bool:
        """Return whether this daemon runs plugins, checks their settings, or must know their meters."""
        config = self.config
        has_settings = config.pollsters or config.listeners or config.plugins.disable
        return bool(kinds or self.only_checking or has_settings or config.api.accept_samples)

    def _configured_plugins(self, kinds: Sequence[Kind]) -> list[Decision]:
        from meter.declarative.notifications import load_user_definitions
        from meter.declarative.notifications import without_redefined_meters
        from meter.declarative.pollster_files import load_user_pollsters

        sections = {"pollsters": self.config.pollsters, "listeners": self.config.listeners}
        own, wrong = load_user_definitions(self.config.notifications.definitions)
        rest, wrong_rest = load_user_pollsters(self.config.central.pollsters_dir)
        self._found, self._user_defined = [*find(), *own, *rest], own
        configured = configure(self._found, sections, self.config.plugins.disable)
        self.problems += configured.problems
        self.warnings += [*configured.warnings, *(wrong if LISTENER in kinds else ())]
        self.warnings += wrong_rest if CENTRAL in kinds else ()
        plugins = without_redefined_meters(configured.decisions, own)
        self.declared_meters = frozenset(
            meter.name for decision in plugins if decision.plugin is not None for meter in decision.plugin.meters
        )
        return [decision for decision in plugins if decision.kind in kinds]

    def _set_config(self, config: Config) -> None:
        self.config = config

    def reconfigured_plugins(self, config: Config) -> list[Decision]:
        """Return the plugins as another configuration has them; those that it does not change are the same objects as before.

        Raises ``ValueError`` if the options of a plugin are wrong. What was read from files of definitions stays.
        """
        from meter.declarative.notifications import without_redefined_meters

        sections = {"pollsters": config.pollsters, "listeners": config.listeners}
        before = {"pollsters": self.config.pollsters, "listeners": self.config.listeners}
        configured = configure(self._found, sections, config.plugins.disable)
        if configured.problems:
            raise ValueError("; ".join(placed_in_file(configured.problems, self.config_path)))
        old = {(each.kind.name, each.name): each for each in self._plugins}
        plugins = []
        for each in without_redefined_meters(configured.decisions, self._user_defined):
            same = old.get((each.kind.name, each.name))
            section = each.kind.section
            if (
                same is not None
                and (same.state, same.reason, same.meters_off) == (each.state, each.reason, each.meters_off)
                and before[section].get(each.name) == sections[section].get(each.name)
            ):
                each = same
            if each.kind in self._kinds:
                plugins.append(each)
        return plugins

    def use_plugins(self, plugins: Sequence[Decision]) -> None:
        """Let :meth:`plugins` return others, as :meth:`reconfigured_plugins` returns them."""
        self._plugins = list(plugins)

    @property
    def state_dir(self) -> Path:
        """Directory of the state that survives a restart."""
        return Path(self.config.meter.state_dir)

    @property
    def uses_keys(self) -> bool:
        """Whether a part of this daemon has asked for the signing keys."""
        return self._keys is not None

    @property
    def keys(self) -> Keyring:
        """The signing keys. ``--check`` does not create the key file that a first start creates."""
        if self._keys is None:
            generates = not self.only_checking and not has_key(self.config)
            self._keys = keyring(self.config, make=not self.only_checking)
            if generates:
                _log.info(
                    "a signing key has been generated in {path}: agents and collectors on other hosts need the same, as key_file of"
                    " [signing]",
                    path=str(self.config.signing_key_file),
                )
        return self._keys

    def add(self, service: IService, *, without: str = "") -> None:
        """Append a service: it starts after those added before it, and stops before them.

        ``without`` marks a service that the daemon's readiness does not depend on, and states, as a clause, what does not
        work while it is not ready.
        """
        service.setServiceParent(self.root)
        if IDependency.providedBy(service):
            self.dependencies.append(OptionalDependency(service, without) if without else service)

    def plugins(self, *kinds: Kind) -> list[Decision]:
        """Return the installed plugins of ``kinds``, configured and not yet activated."""
        return [decision for decision in self._plugins if decision.kind in kinds]

    def decisions(self, *kinds: Kind) -> Iterable[Decision]:
        """Return the activation decisions of ``kinds`` so far."""
        return [each for activation in self.activations for each in activation.decisions if each.kind in kinds]

    def readinesses(self) -> Sequence[Readiness]:
        """Return the present state of each dependency."""
        return [readiness_of(dependency) for dependency in self.dependencies]

    def plugin_context(self, providers: Mapping[Any, Any] | None = None) -> PluginContext:
        """Return the context of this daemon's plugins; ``providers`` maps interfaces to collaborators."""
        from meter.agent.cycle import PluginContext

        return PluginContext(self.name, self.config, self.reactor, {IHealth: self, **(providers or {})})

    def listen_address(self, section: str) -> str:
        """Return the endpoint description of this daemon in ``[status]`` or ``[manhole]``."""
        settings = getattr(self.config, section)
        listen: str = settings.by_daemon.get(self.name, settings.listen)
        return listen

    def activate(self, activation: Activation) -> None:
        """Append the activation of plugins."""
        self.activations.append(activation)
        self.add(activation)
