"""Hung domains: those whose emulator has not answered libvirt for some time.

libvirt reports this (``virsh domcontrol``) without a call to the emulator, even while another call waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from twisted.logger import Logger

SEARCH_SECONDS = 0.25
"""Time limit of one search."""

MAX_SHOWN = 5

OCCUPIED, ERROR = 2, 3
"""Values of virDomainControlState: a command waits for the emulator; the emulator cannot be reached."""


def hung_domains(connection: Any, min_seconds: float, now: Callable[[], float]) -> dict[str, float]:
    """Return, by name, how many seconds each hung domain has not answered, if at least ``min_seconds``.

    Runs in libvirt's thread and may block.
    """
    found: dict[str, float] = {}
    end = now() + SEARCH_SECONDS
    for domain in connection.listAllDomains():
        if now() >= end:
            break
        try:
            state, _, milliseconds = domain.controlInfo() if domain.ID() >= 0 else (0, 0, 0)
        except Exception:
            continue  # undefined meanwhile, or not supported by the driver: its name is missing from the log, nothing else
        if state == ERROR or (state == OCCUPIED and milliseconds >= 1000 * min_seconds):
            found[domain.name()] = milliseconds / 1000
    return found


class HungDomains:
    """The domains that hang now. Logs when a domain begins to hang and when it answers again."""

    _log = Logger()

    def __init__(self) -> None:
        self._names: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def set(self, found: Mapping[str, float]) -> None:
        """Replace the hung domains by those that a search has found."""
        for name in sorted(found.keys() - self._names):
            self._log.warn(
                "domain {domain} hangs: its emulator has not answered libvirt for {seconds:.0f} s",
                domain=name,
                seconds=found[name],
            )
        for name in sorted(self._names - found.keys()):
            self._log.info("domain {domain} answers again", domain=name)
        self._names = frozenset(found)

    def readiness_suffix(self) -> str:
        """Return the suffix for the readiness of libvirt: ``; hung domains: web-1, web-2``."""
        if not self._names:
            return ""
        more = len(self._names) - MAX_SHOWN
        shown = ", ".join(sorted(self._names)[:MAX_SHOWN])
        return f"; hung domains: {shown}{f' and {more} more' if more > 0 else ''}"
