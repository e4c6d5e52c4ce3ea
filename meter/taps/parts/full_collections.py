"""Full garbage collections of a daemon that answers, or decodes large bodies, at moments when it does neither."""

from __future__ import annotations

from collections.abc import Callable

from meter.daemon.full_collections import FullCollections
from meter.taps.daemon import Daemon


def add_full_collections(daemon: Daemon, busy: Callable[[], bool]) -> None:
    """Add full collections, once for a daemon, that are postponed while ``busy`` of any of its parts returns true."""
    daemon.busy.append(busy)
    if len(daemon.busy) == 1:
        daemon.add(FullCollections(daemon.reactor, lambda: any(each() for each in daemon.busy)))
