"""Which lifecycle events of libvirt change the state of a domain: a start and a restore cause two events each.

QEMU resumes a domain that libvirt starts, and libvirt 9.0 reports both: *resumed (unpaused)* and 4 ms later *started
(booted)*; for a restored domain *started (restored)* and at once *resumed (from snapshot)*.
"""

from __future__ import annotations

from collections.abc import Iterable

from meter.hypervisor.events import CRASHED
from meter.hypervisor.events import PAUSED
from meter.hypervisor.events import SUSPENDED
from meter.hypervisor.events import LifecycleEvent
from meter.interfaces import Domain

PAUSED_STATES = (PAUSED, CRASHED, SUSPENDED)
"""States from which a domain can be resumed."""

COMPANION_EVENTS = ("resumed (unpaused)", "resumed (from snapshot)")
"""Events that may also accompany a start."""

ALWAYS_NEW = ("started", "stopped", "resumed")
"""If a domain starts or stops twice in a row, an event in between was missed."""


class StateChanges:
    """Tracks the states of domains and decides which events lead to another state.

    If in doubt, an event counts as a change: a duplicate costs one poll, a missed change would be lost.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._maybe_paused: set[str] = set()
        self._has_read = False

    def is_new(self, event: LifecycleEvent) -> bool:
        """Return whether ``event`` leads to another state than the domain was in; store the state."""
        if event.state is None:
            return False
        previous = self._last.get(event.uuid)
        maybe_paused = event.uuid in self._maybe_paused or (previous is None and not self._has_read)
        self._last[event.uuid] = event.state
        if event.state in PAUSED_STATES:
            self._maybe_paused.add(event.uuid)
        else:
            self._maybe_paused.discard(event.uuid)
        if event.description in COMPANION_EVENTS:
            return maybe_paused
        return event.description.startswith(ALWAYS_NEW) or event.state != previous

    def read(self, domains: Iterable[Domain]) -> None:
        """Update the states from a reading of all domains, which may be older than the last event."""
        states = {domain.uuid: domain.stats.get("state.state") for domain in domains}
        paused = {uuid for uuid, state in states.items() if state in PAUSED_STATES}
        self._last = {uuid: state for uuid, state in self._last.items() if uuid in states}
        self._maybe_paused = paused | {uuid for uuid, state in self._last.items() if state in PAUSED_STATES}
        self._has_read = True
