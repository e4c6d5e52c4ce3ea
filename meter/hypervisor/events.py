"""Events of libvirt: changes of domains, and the loss of a connection."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from meter.hypervisor.library import load_libvirt

KEEP_ALIVE_SECONDS = 5
KEEP_ALIVE_MISSED = 3

RUNNING, PAUSED, SHUTTING_DOWN, SHUT_OFF, CRASHED, SUSPENDED = 1, 3, 4, 5, 6, 7
"""Values of virDomainState."""

# In the order of virDomainEventType: name, resulting state, names of the details.
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
"""Events of a domain that another host runs."""

LEAVING = ("suspended (migrated)", "suspended (post-copy)", "stopped (migrated)")
"""Events on the source host of a migration. If the migration fails, the domain is resumed there."""


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """A change of a domain at ``at``, in seconds since 1970. ``description`` is event and detail: ``started (booted)``.

    ``state`` is the resulting virDomainState, ``None`` where the state has not changed.
    """

    uuid: str
    name: str
    at: float
    description: str
    state: int | None


def lifecycle_event(uuid: str, name: str, at: float, event: int, detail: int) -> LifecycleEvent:
    """Return the event with its names. Events and details of a newer libvirt are shown by number.

    The state is ``None`` for a domain that has migrated away, which is not off, and for one that has not arrived yet:
    both run on another host.
    """
    word, state, details = LIFECYCLE[event] if 0 <= event < len(LIFECYCLE) else (f"event {event}", None, ())
    reason = details[detail] if 0 <= detail < len(details) else f"detail {detail}"
    description = f"{word} ({reason})"
    return LifecycleEvent(uuid, name, at, description, None if description in ELSEWHERE else state)


class EventListener:
    """Registers for the events of one connection. Both callbacks run in the thread of libvirt's event loop.

    ``on_event`` is called with each :class:`LifecycleEvent`, ``on_lost`` with the reason why the connection was lost.
    ``complete`` says whether the driver supports all events.
    """

    def __init__(
        self,
        connection: Any,
        now: Callable[[], float],
        on_event: Callable[[LifecycleEvent], object],
        on_lost: Callable[[str], object],
    ) -> None:
        libvirt = load_libvirt()
        self._connection = connection
        self._registered: list[int] = []
        self._now = now
        self._on_event = on_event
        self._on_lost = on_lost
        with suppress(libvirt.libvirtError):  # the test driver does not support it
            connection.setKeepAlive(KEEP_ALIVE_SECONDS, KEEP_ALIVE_MISSED)
        with suppress(libvirt.libvirtError):
            connection.registerCloseCallback(self._closed, None)
        self.complete = True
        kinds = {
            libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: self._lifecycle,
            libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE: self._definition_changed,
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED: self._definition_changed,
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED: self._definition_changed,
        }
        for kind, callback in kinds.items():
            try:
                self._registered.append(connection.domainEventRegisterAny(None, kind, callback, None))
            except libvirt.libvirtError:
                self.complete = False

    def end(self) -> None:
        """Deregister. libvirt 9.0 does not close a connection with registered callbacks."""
        libvirt = load_libvirt()
        for number in self._registered:
            with suppress(libvirt.libvirtError):
                self._connection.domainEventDeregisterAny(number)
        with suppress(libvirt.libvirtError):
            self._connection.unregisterCloseCallback()

    def _lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _: Any) -> None:
        self._on_event(lifecycle_event(domain.UUIDString(), domain.name(), self._now(), event, detail))

    def _definition_changed(self, _connection: Any, domain: Any, *_: Any) -> None:
        self._on_event(LifecycleEvent(domain.UUIDString(), domain.name(), self._now(), "definition changed", None))

    def _closed(self, _connection: Any, reason: int, _: Any) -> None:
        names = ("error", "end of file", "keep-alive timeout", "closed by this side")
        self._on_lost(names[reason] if 0 <= reason < len(names) else str(reason))
