"""Which domains hang: those whose emulator has not answered libvirt for some time.

libvirt answers that (``virsh domcontrol``) without asking the emulator, also while another call waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from twisted.logger import Logger

LOOKING_SECONDS = 0.25
"""The longest time that one search spends on asking about domains."""

MOST_SHOWN = 5

OCCUPIED, ERROR = 2, 3
"""Of libvirt's virDomainControlState: a command waits for the emulator's answer; the emulator cannot be talked to."""


def hanging_domains(connection: Any, least_seconds: float, now: Callable[[], float]) -> dict[str, float]:
    """Return, by name, for how many seconds each domain has not answered, if that is at least ``least_seconds``.

    Runs in libvirt's thread and may block.
    """
    found: dict[str, float] = {}
    end = now() + LOOKING_SECONDS
    for domain in connection.listAllDomains():
        if now() >= end:
            break
        try:
            state, _, milliseconds = domain.controlInfo() if domain.ID() >= 0 else (0, 0, 0)
        except Exception:
            continue  # it has gone, or its driver cannot tell: that costs its name in the log and nothing else
        if state == ERROR or (state == OCCUPIED and milliseconds >= 1000 * least_seconds):
            found[domain.name()] = milliseconds / 1000
    return found


class HangingDomains:
    """The domains that hang now. Logs when a domain begins to hang and when it answers again."""

    _log = Logger()

    def __init__(self) -> None:
        self._names: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self._names)

    def set(self, found: Mapping[str, float]) -> None:
        """Take what a search has found."""
        for name in sorted(found.keys() - self._names):
            self._log.warn(
                "domain {domain} hangs: its emulator has not answered libvirt for {seconds:.0f} s",
                domain=name,
                seconds=found[name],
            )
        for name in sorted(self._names - found.keys()):
            self._log.info("domain {domain} answers again", domain=name)
        self._names = frozenset(found)

    def remark(self) -> str:
        """Return what to add to the state of libvirt: ``; hanging: web-1, web-2``."""
        if not self._names:
            return ""
        more = len(self._names) - MOST_SHOWN
        shown = ", ".join(sorted(self._names)[:MOST_SHOWN])
        return f"; hanging: {shown}{f' and {more} more' if more > 0 else ''}"
