"""Adds the sources of the names of projects, domains and users to a daemon."""

from __future__ import annotations

import socket
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

from meter.agent.identity_polling import RETRY_SECONDS
from meter.agent.identity_polling import IdentityPolling
from meter.agent.leader import LeaderElection
from meter.collector.identity_changes import IdentityChangeReporter
from meter.collector.identity_file import BadIdentityFile
from meter.collector.identity_file import IdentityFile
from meter.collector.identity_file import read_names
from meter.completeness.identities.identity_history import KEYSTONE
from meter.daemon.heartbeats import report_key
from meter.daemon.services import Periodic
from meter.interfaces import IBus
from meter.notification import Notification
from meter.openstack import IOpenStack
from meter.openstack.identities import KeystoneIdentities
from meter.settings.central import CentralSection
from meter.signing_keys import SigningKey
from meter.taps.daemon import Daemon

FILE_SECONDS = 10.0
"""How often it is looked whether the file with names has changed."""


def add_identity_polling(daemon: Daemon, bus: IBus, providers: Mapping[Any, Any], *, leader_group: str = "") -> None:
    """Add the polling of Keystone, if there is one. Of the agents with the same ``leader_group`` only one polls."""
    settings = daemon.config.central
    cloud = providers.get(IOpenStack)
    if cloud is None:
        return
    source = KeystoneIdentities(
        cloud, daemon.reactor, origin=identity_origin(leader_group), users=settings.identity_users
    )
    polling = IdentityPolling(source, bus.publish, _report_key(daemon), daemon.reactor)
    run = polling.poll_once
    if leader_group:
        election = LeaderElection(bus, f"{leader_group}.identities", polling.poll, daemon.reactor)
        daemon.add(election)
        run = election.run_if_leader
    attempt = polling.logging(run, lambda: daemon.config.central.identity_interval_seconds)
    periodic = Periodic(attempt, _attempt_seconds(settings), daemon.reactor, name="identity polling")
    daemon.reload.add(
        ["central.identity_interval_seconds"], lambda config: periodic.set_interval(_attempt_seconds(config.central))
    )
    daemon.add(periodic)


def _attempt_seconds(settings: CentralSection) -> float:
    """Return how often it is looked whether names are to be read."""
    return min(RETRY_SECONDS, settings.identity_interval_seconds)


def identity_origin(leader_group: str) -> str:
    """Return the origin of names of the Keystone that agents of ``leader_group`` poll: another one for each group."""
    default = CentralSection.model_fields["leader_group"].default
    return KEYSTONE if leader_group in ("", default) else f"{KEYSTONE} {leader_group}"


def identity_changes(daemon: Daemon, bus: IBus) -> Callable[[Notification], Awaitable[None]]:
    """Return the function that reports what a notification says about projects, domains and users."""
    kinds = ("project", "domain", "user") if daemon.config.central.identity_users else ("project", "domain")
    return IdentityChangeReporter(bus, _report_key(daemon), daemon.reactor, kinds).report


def add_identity_file(daemon: Daemon, bus: IBus) -> None:
    """Add the reading of the file with names, if there is one."""
    path = daemon.config.identities.file
    if path and daemon.only_checking:
        try:
            read_names(Path(path), datetime.now(UTC))
        except BadIdentityFile as error:
            daemon.problems.append(f"[identities] file: {error}")
    if path:
        file = IdentityFile(path, bus, _report_key(daemon), daemon.reactor, daemon.off_reactor)
        daemon.add(Periodic(file.read_if_changed, FILE_SECONDS, daemon.reactor, name="identity file"))


def _report_key(daemon: Daemon) -> Callable[[datetime], SigningKey]:
    """Return the function that returns the key that signs reports of ``daemon`` at a time."""
    name = f"{daemon.name}@{socket.gethostname()}"
    return lambda now: report_key(daemon.keys, now, name)
