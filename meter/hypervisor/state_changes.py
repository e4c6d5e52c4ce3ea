"""Which lifecycle events of libvirt are a change of state: a start and a resumption cause two events each.

QEMU resumes a domain that libvirt starts, and libvirt tells of both (9.0): *resumed (unpaused)* and 4 ms later *started
(booted)*; where it restores one, *started (restored)* and at once *resumed (from snapshot)*.
"""

from __future__ import annotations

from collections.abc import Iterable

from meter.hypervisor.events import CRASHED
from meter.hypervisor.events import PAUSED
from meter.hypervisor.events import SUSPENDED
from meter.hypervisor.events import Change
from meter.interfaces import Domain

PAUSED_STATES = (PAUSED, CRASHED, SUSPENDED)
"""Those from which a domain can be resumed."""

COMPANIONS = ("resumed (unpaused)", "resumed (from snapshot)")
"""Events that also come beside that of a start."""

ALWAYS_NEW = ("started", "stopped", "resumed")
"""If a domain starts or stops twice in a row, an event in between was missed."""


class StateChanges:
    """Remembers the states of domains and decides which events lead to another state.

    In doubt an event counts as a change: a repeated one costs a poll, a missed one is lost.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._maybe_paused: set[str] = set()
        self._has_read = False

    def is_new(self, change: Change) -> bool:
        """Return whether ``change`` leads to a state that the domain was not in; remember the state."""
        if change.state is None:
            return False
        previous = self._last.get(change.uuid)
        maybe_paused = change.uuid in self._maybe_paused or (previous is None and not self._has_read)
        self._last[change.uuid] = change.state
        if change.state in PAUSED_STATES:
            self._maybe_paused.add(change.uuid)
        else:
            self._maybe_paused.discard(change.uuid)
        if change.words in COMPANIONS:
            return maybe_paused
        return change.words.startswith(ALWAYS_NEW) or change.state != previous

    def read(self, domains: Iterable[Domain]) -> None:
        """Take all domains as a reading found them, which may be older than the last change."""
        states = {domain.uuid: domain.stats.get("state.state") for domain in domains}
        paused = {uuid for uuid, state in states.items() if state in PAUSED_STATES}
        self._last = {uuid: state for uuid, state in self._last.items() if uuid in states}
        self._maybe_paused = paused | {uuid for uuid, state in self._last.items() if state in PAUSED_STATES}
        self._has_read = True
