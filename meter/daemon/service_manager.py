"""Tells the service manager of the host (systemd) that a daemon has started, what it waits for, and that its reactor runs.

The protocol is ``sd_notify(3)``: lines of ``NAME=value`` in a datagram to the socket that ``NOTIFY_SOCKET`` names. A daemon that
nobody has given such a socket tells nobody.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.daemon.services import Periodic
from meter.daemon.status import readiness_of
from meter.interfaces import IDependency

STATUS_SECONDS = 5.0
"""How often the status is compared with the one that was sent last."""

MAX_STATUS_CHARACTERS = 1000


class NotifySocket:
    """The socket of the service manager at ``address``, a path or, after an ``@``, an abstract name.

    Sending never waits: a daemon must not hang because its service manager does. What cannot be sent is lost, and logged the
    first time.
    """

    _log = Logger()

    def __init__(self, address: str) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._failed = False

    def send(self, *lines: str) -> bool:
        """Send ``lines``; return whether the service manager's socket has them."""
        try:
            self._socket.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
        except OSError as error:
            if not self._failed:
                self._failed = True
                self._log.warn(
                    "the service manager cannot be told {lines}: {socket}: {error}",
                    lines=" ".join(lines),
                    socket=self._address.replace("\0", "@"),
                    error=str(error),
                )
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class ServiceManagerNotifier(Periodic):
    """Sends ``READY``, ``STATUS``, ``WATCHDOG`` and ``STOPPING`` to ``notify``.

    A daemon is ready for its service manager once all its services have started. A dependency that is away does not delay that: it
    is a state, shown as ``STATUS``, and restarting the daemon would not bring it back. ``WATCHDOG`` is sent by a timer of the
    reactor, at least twice in ``watchdog_seconds``: a reactor that is blocked sends nothing, and the service manager restarts the
    daemon. 0 is no watchdog.
    """

    def __init__(
        self,
        notify: NotifySocket,
        dependencies: Sequence[IDependency],
        clock: IReactorTime,
        *,
        watchdog_seconds: float = 0.0,
    ) -> None:
        interval = min(watchdog_seconds / 2, STATUS_SECONDS) if watchdog_seconds else STATUS_SECONDS
        super().__init__(self._tell, interval, clock, name="service manager", first_after=interval)
        self._notify = notify
        self._dependencies = dependencies
        self._watchdog = ["WATCHDOG=1"] if watchdog_seconds else []
        self._told = ""
        self._stopping = False

    def started(self) -> None:
        """All services of the daemon have started, and its reactor runs."""
        self._send("READY=1", *self._watchdog)

    def stopping(self) -> None:
        """The daemon begins to stop. Its watchdog is served until it has."""
        self._stopping = True
        self._notify.send("STOPPING=1", "STATUS=stopping")

    def stopService(self) -> Deferred[None] | None:
        """Fire when the last message has been sent."""
        ended = super().stopService()
        if ended is None:
            self._notify.close()
        else:
            ended.addBoth(lambda _: self._notify.close())
        return ended

    async def _tell(self) -> None:
        self._send(*self._watchdog)

    def _send(self, *lines: str) -> None:
        """Send ``lines`` and the status, if it has changed."""
        status = status_sentence(self._dependencies)
        changed = not self._stopping and status != self._told
        if changed:
            lines = (*lines, f"STATUS={status}")
        if lines and self._notify.send(*lines) and changed:
            self._told = status


def service_manager_notifier(
    environment: MutableMapping[str, str], dependencies: Sequence[IDependency], clock: IReactorTime
) -> ServiceManagerNotifier | None:
    """Return the service that speaks to the service manager that ``environment`` names, or ``None`` if it names none.

    Its variables are removed, so that servers that the daemon starts do not speak in the name of the daemon.
    """
    address = environment.pop("NOTIFY_SOCKET", "")
    microseconds = environment.pop("WATCHDOG_USEC", "")
    process = environment.pop("WATCHDOG_PID", "")
    if address[:1] not in ("/", "@") or len(address) < 2:
        return None
    watched = microseconds.isdecimal() and process in ("", str(os.getpid()))
    seconds = int(microseconds) / 1e6 if watched else 0.0
    return ServiceManagerNotifier(NotifySocket(address), dependencies, clock, watchdog_seconds=seconds)


def status_sentence(dependencies: Sequence[IDependency]) -> str:
    """Return what ``systemctl status`` shows: that all is ready, or what is not, and why, in one line."""
    away = [state for state in map(readiness_of, dependencies) if not state.ready]
    if not away:
        return "all dependencies are ready"
    word = "not ready" if any(state.needed for state in away) else "degraded"
    reasons = "; ".join(f"{state.name}: {state.reason}" for state in away)
    return " ".join(f"{word}: {reasons}".split())[:MAX_STATUS_CHARACTERS]
