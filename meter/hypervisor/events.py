"""What libvirt tells of its own accord: changes of domains, and that a connection is lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from meter.hypervisor.library import load_libvirt

KEEP_ALIVE_SECONDS = 5
KEEP_ALIVE_MISSED = 3

RUNNING, PAUSED, SHUTTING_DOWN, SHUT_OFF, CRASHED, SUSPENDED = 1, 3, 4, 5, 6, 7
"""Of libvirt's virDomainState."""

# By libvirt's virDomainEventType, in its order: a word, the state that follows, the words of its details.
LIFECYCLE: tuple[tuple[str, int | None, tuple[str, ...]], ...] = (
    ("defined", None, ("added", "updated", "renamed", "from snapshot")),
    ("undefined", None, ("removed", "renamed")),
    ("started", RUNNING, ("booted", "migrated", "restored", "from snapshot", "woken")),
    (
        "suspended",
        PAUSED,
        (
            "paused",
            "migrated",
            "input/output error",
            "watchdog",
            "restored",
            "from snapshot",
            "api error",
            "post-copy",
            "post-copy failed",
        ),
    ),
    ("resumed", RUNNING, ("unpaused", "migrated", "from snapshot", "post-copy", "post-copy failed")),
    ("stopped", SHUT_OFF, ("shut down", "destroyed", "crashed", "migrated", "saved", "failed", "from snapshot")),
    ("shutting down", SHUTTING_DOWN, ("finished", "by guest", "by host")),
    ("suspended by guest", SUSPENDED, ("memory", "disk")),
    ("crashed", CRASHED, ("panicked", "crashloaded")),
)


ELSEWHERE = ("started (migrated)", "suspended (post-copy)", "stopped (migrated)")
"""Reasons of libvirt for a domain that another host runs."""

LEAVING = ("suspended (migrated)", "suspended (post-copy)", "stopped (migrated)")
"""Reason that the source host of a migration gives. If the migration fails, the domain is resumed there."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that has happened to a domain at ``at``, in seconds since 1970.

    ``state`` is the one it is in since, by libvirt's virDomainState; ``None`` where that is not what has changed.
    """

    uuid: str
    name: str
    at: float
    words: str
    state: int | None


def lifecycle_change(uuid: str, name: str, at: float, event: int, detail: int) -> Change:
    """Return what a lifecycle event says; a newer libvirt may know events and details that this one does not.

    A domain that has migrated away is not off: the host it went to says how it is. One that has not arrived yet runs
    elsewhere.
    """
    word, state, details = LIFECYCLE[event] if 0 <= event < len(LIFECYCLE) else (f"event {event}", None, ())
    why = details[detail] if 0 <= detail < len(details) else f"detail {detail}"
    words = f"{word} ({why})"
    return Change(uuid, name, at, words, None if words in ELSEWHERE else state)


class Watch:
    """Listens to one connection. ``tell`` and ``lose`` are called in the thread of libvirt's event loop.

    ``tell`` gets each :class:`Change`, ``lose`` the reason why the connection is no more. ``complete`` says whether the
    driver tells of changes at all.
    """

    def __init__(
        self,
        connection: Any,
        now: Callable[[], float],
        tell: Callable[[Change], object],
        lose: Callable[[str], object],
    ) -> None:
        libvirt = load_libvirt()
        self._connection = connection
        self._registered: list[int] = []
        self._now = now
        self._tell = tell
        self._lose = lose
        with suppress(libvirt.libvirtError):  # the test driver has none
            connection.setKeepAlive(KEEP_ALIVE_SECONDS, KEEP_ALIVE_MISSED)
        with suppress(libvirt.libvirtError):
            connection.registerCloseCallback(self._closed, None)
        self.complete = True
        kinds = {
            libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: self._lifecycle,
            libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE: self._described,
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED: self._described,
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED: self._described,
        }
        for kind, callback in kinds.items():
            try:
                self._registered.append(connection.domainEventRegisterAny(None, kind, callback, None))
            except libvirt.libvirtError:
                self.complete = False

    def end(self) -> None:
        """Listen no more. libvirt 9.0 does not close a connection that someone still listens to."""
        libvirt = load_libvirt()
        for number in self._registered:
            with suppress(libvirt.libvirtError):
                self._connection.domainEventDeregisterAny(number)
        with suppress(libvirt.libvirtError):
            self._connection.unregisterCloseCallback()

    def _lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _: Any) -> None:
        self._tell(lifecycle_change(domain.UUIDString(), domain.name(), self._now(), event, detail))

    def _described(self, _connection: Any, domain: Any, *_: Any) -> None:
        self._tell(Change(domain.UUIDString(), domain.name(), self._now(), "described anew", None))

    def _closed(self, _connection: Any, reason: int, _: Any) -> None:
        reasons = ("error", "end of file", "no sign of life", "closed here")
        self._lose(reasons[reason] if 0 <= reason < len(reasons) else str(reason))
