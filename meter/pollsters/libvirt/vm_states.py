"""The state of a domain in Nova's words, which samples of notifications have as well, and in libvirt's."""

from __future__ import annotations

from meter.interfaces import Domain

RUNNING, SHUTTING_DOWN, SHUT_OFF = 1, 4, 5
"""Of libvirt's virDomainState."""

SAVED = 5
"""Of libvirt's virDomainShutoffReason. Nova suspends a server by saving its domain."""

# By libvirt's virDomainState, in its order: Nova's word for the state of a server (vm_state), and for its power state.
STATES = (
    ("building", "pending"),
    ("active", "running"),
    ("active", "running"),
    ("paused", "paused"),
    ("stopped", "shutdown"),
    ("stopped", "shutdown"),
    ("error", "crashed"),
    ("suspended", "suspended"),
)
UNKNOWN = ("unknown", "unknown")


def states_of(domain: Domain) -> tuple[str, str]:
    """Return the vm_state and the power state of ``domain``."""
    state, reason = domain.stats.get("state.state"), domain.stats.get("state.reason")
    if not isinstance(state, int) or not 0 <= state < len(STATES):
        return UNKNOWN
    vm_state, power_state = STATES[state]
    if state == SHUT_OFF and (reason == SAVED or domain.event == "stopped (saved)"):
        vm_state = "suspended"
    return vm_state, power_state
