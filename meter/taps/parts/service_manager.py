"""The part of every daemon that speaks to the service manager which has started it."""

from __future__ import annotations

import os

from meter.daemon.service_manager import service_manager_notifier
from meter.taps.daemon import Daemon


def add_service_manager_notifier(daemon: Daemon) -> None:
    """Tell systemd when the daemon has started and begins to stop, and serve its watchdog.

    It is added before all other parts, so that the watchdog is served until the last of them has stopped.
    """
    if daemon.only_checking:
        return
    notifier = service_manager_notifier(os.environ, daemon.dependencies, daemon.reactor)
    if notifier is None:
        return
    daemon.add(notifier)
    # twistd starts all services before it runs the reactor.
    daemon.reactor.addSystemEventTrigger("after", "startup", notifier.started)
    daemon.reactor.addSystemEventTrigger("before", "shutdown", notifier.stopping)
