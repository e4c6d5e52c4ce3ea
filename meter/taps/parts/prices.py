"""The price directory of a daemon."""

from __future__ import annotations

from pathlib import Path

from meter.daemon.services import Periodic
from meter.rating.book.price_directory import check_directory
from meter.rating.book.watched_directory import WatchedPriceDirectory
from meter.taps.daemon import Daemon

REFRESH_SECONDS = 10.0
"""How often changed files are looked for."""


def add_prices(daemon: Daemon) -> WatchedPriceDirectory | None:
    """Return the price directory of ``daemon``, one for all its parts; ``None`` if rating is not configured."""
    settings = daemon.config.rating
    if not settings.price_directory:
        return None
    for dependency in daemon.dependencies:
        if isinstance(dependency, WatchedPriceDirectory):
            return dependency
    path, webhooks = Path(settings.price_directory), [each.name for each in settings.webhooks]
    if daemon.only_checking:  # no reason not to start: a running daemon says it in its log and /readyz
        problems = check_directory(path, webhooks).problems
        daemon.warnings += [f"[rating] price_directory: {problem}" for problem in problems]
    watched = WatchedPriceDirectory(path, daemon.reactor, webhooks=webhooks)
    daemon.dependencies.append(watched)
    daemon.reload.add_refresh(watched.refresh)
    daemon.add(Periodic(watched.refresh, REFRESH_SECONDS, daemon.reactor, name="reading of prices"))
    return watched
