"""Diagnostics of every daemon: status pages, metrics, readiness in the log, and a manhole."""

from __future__ import annotations

from twisted.application.service import IService

from meter.daemon.metrics import CONTENT_TYPE
from meter.daemon.metrics import exposition
from meter.daemon.ports import Port
from meter.daemon.reactor_lag import ReactorLag
from meter.daemon.status import readiness_text
from meter.daemon.status import readiness_watch
from meter.daemon.status import status_site
from meter.plugins.registry import CENTRAL
from meter.plugins.registry import COMPUTE
from meter.plugins.registry import LISTENER
from meter.settings.config_file import effective
from meter.taps.daemon import Daemon
from meter.taps.parts.server_tls import server_tls


def add_diagnostics(daemon: Daemon) -> None:
    """Add status pages, metrics and manhole, before all other parts, because they show how those start and stop."""
    status = daemon.listen_address("status")
    if status:
        site = status_site(
            daemon.dependencies,
            lambda: exposition(daemon.registry),
            CONTENT_TYPE,
            daemon.reactor,
            lambda reason: daemon.health_metrics.http_rejected("status", reason),
        )
        advice = "; set another address for this daemon in [status.by_daemon]"
        port = Port(
            status,
            site,
            name="status",
            reactor=daemon.reactor,
            clock=daemon.reactor,
            advice=advice,
            tls=server_tls(daemon, "status"),
        )
        daemon.add(port, without="nobody can read its status pages and metrics")
    settings = daemon.config.manhole
    listen = daemon.listen_address("manhole")
    if listen:
        from meter.daemon.manhole import problems as manhole_problems  # 1.5 MiB with twisted.conch

        wrong = manhole_problems(listen, settings.host_key_file, settings.authorized_keys_file)
        daemon.problems += wrong
        if not wrong:
            daemon.add(_manhole(daemon, listen))
    daemon.add(ReactorLag(daemon.reactor, daemon.health_metrics.lagged))
    daemon.add(readiness_watch(daemon.dependencies, daemon.reactor))


def _manhole(daemon: Daemon, listen: str) -> IService:
    from meter.daemon.manhole import manhole
    from meter.daemon.manhole import namespace

    async def poll_now(name: str) -> object:
        if daemon.polling is None:
            raise LookupError(f"{daemon.name} does not poll")
        return await daemon.polling.poll_now(name)

    return manhole(
        daemon.reactor,
        listen,
        daemon.config.manhole.host_key_file,
        daemon.config.manhole.authorized_keys_file,
        namespace(
            status=lambda: readiness_text(daemon.dependencies),
            config=lambda: effective(daemon.config),
            pollsters=lambda: daemon.decisions(COMPUTE, CENTRAL),
            listeners=lambda: daemon.decisions(LISTENER),
            poll_now=poll_now,
        ),
    )
