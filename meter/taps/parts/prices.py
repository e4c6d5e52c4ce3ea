"""The price directory of a daemon."""

from __future__ import annotations

from pathlib import Path

from meter.rating.book.watched_directory import WatchedPriceDirectory
from meter.taps.daemon import Daemon


def add_prices(daemon: Daemon) -> WatchedPriceDirectory | None:
    """Return the price directory of ``daemon``, one for all its parts; ``None`` if rating is not configured."""
    settings = daemon.config.rating
    if not settings.price_directory:
        return None
    for dependency in daemon.dependencies:
        if isinstance(dependency, WatchedPriceDirectory):
            return dependency
    watched = WatchedPriceDirectory(
        Path(settings.price_directory), daemon.reactor, webhooks=[each.name for each in settings.webhooks]
    )
    daemon.dependencies.append(watched)
    return watched
