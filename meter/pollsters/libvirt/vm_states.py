"""The state of a domain as Nova's vm_state and power state, which samples from notifications have too."""

from __future__ import annotations

from meter.interfaces import Domain

RUNNING, SHUTTING_DOWN, SHUT_OFF = 1, 4, 5
"""Values of libvirt's virDomainState."""

SAVED = 5
"""A value of libvirt's virDomainShutoffReason. Nova suspends a server by saving its domain."""

# Nova's vm_state and power state, indexed by libvirt's virDomainState.
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
