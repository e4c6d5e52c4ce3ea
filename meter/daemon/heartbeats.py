"""Heartbeats of a daemon: once a minute it says that it runs, with which version and keys, and how it is.

A heartbeat is not spooled: only the last one counts. While the bus is unavailable none is published.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

import meter
from meter.ceilometer_signature import BadSignature
from meter.daemon.last_error import LastError
from meter.daemon.services import LoopService
from meter.daemon.services import wall_seconds
from meter.daemon.services import within
from meter.heartbeat import HEARTBEAT_SECONDS
from meter.heartbeat import DependencyState
from meter.heartbeat import Heartbeat
from meter.heartbeat import SpoolState
from meter.interfaces import Publication
from meter.interfaces import Readiness
from meter.interfaces import Unavailable
from meter.report import report_publication
from meter.sample import utc_text
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey

FIRST_SECONDS = 2.0
"""When the first heartbeat is made: the bus needs a moment to connect."""

RETRY_SECONDS = 10.0
"""Pause after a heartbeat that could not be published."""

PUBLISH_SECONDS = 20.0
"""How long publishing a heartbeat may take."""

STOP_SECONDS = 2.0
"""How long publishing the last heartbeat, that of a daemon which stops, may take."""

MAX_REASON = 300
"""Maximum length of the reason of a dependency, in characters."""


class Identity(NamedTuple):
    """What does not change while the daemon runs. ``boot`` is a UUID, new at each start."""

    daemon: str
    host: str
    boot: str
    started_at: str
    status_address: str = ""

    @property
    def name(self) -> str:
        """The daemon and its host."""
        return f"{self.daemon}@{self.host}"


class Heartbeats(LoopService):
    """Publishes the heartbeats of a daemon over ``publish``, signed with a key of ``keys``.

    ``readinesses`` returns the states of the daemon's dependencies, ``spool`` that of its spool, if it has one; ``key_ids`` the
    present keys, as in a heartbeat. A heartbeat that
    cannot be published is given up; that is logged once, until one is published again. The last one says that the daemon stops.
    """

    _log = Logger()

    def __init__(
        self,
        identity: Identity,
        publish: Callable[[Publication], Awaitable[None]],
        keys: Keyring,
        clock: IReactorTime,
        *,
        readinesses: Callable[[], Sequence[Readiness]],
        last_error: LastError,
        spool: Callable[[], SpoolState | None] = lambda: None,
        key_ids: Callable[[], tuple[tuple[str, str], ...]] = tuple,
    ) -> None:
        super().__init__(clock)
        self.setName("heartbeats")
        self._key_ids = key_ids
        self._identity = identity
        self._publish = publish
        self._keys = keys
        self._readinesses = readinesses
        self._last_error = last_error
        self._spool = spool
        self._sequence = 0
        self._was_published: bool | None = None

    def stopService(self) -> Deferred[None]:
        """Fire when the last heartbeat is published, or could not be."""
        loop = super().stopService()
        return Deferred.fromCoroutine(self._stop(loop))

    async def _stop(self, loop: Deferred[None] | None) -> None:
        if loop is not None:
            loop.cancel()  # what is in progress says less than the heartbeat that follows
            await loop
        await self._beat(stopping=True, seconds=STOP_SECONDS)

    async def _run(self) -> None:
        await self._sleep(FIRST_SECONDS)
        while self.running:
            published = await self._beat(seconds=PUBLISH_SECONDS)
            if self.running:
                await self._sleep(HEARTBEAT_SECONDS if published else RETRY_SECONDS)

    async def _beat(self, *, seconds: float, stopping: bool = False) -> bool:
        """Make and publish a heartbeat; return whether it was published."""
        try:
            content = self.heartbeat(stopping=stopping)
            await within(self._clock, seconds, self._published(content))
        except CancelledError:
            return False  # the daemon stops
        except Exception as error:
            self._tell_failure(error)
            return False
        if self._was_published is False:
            self._log.info("heartbeats are published again")
        self._was_published = True
        return True

    async def _published(self, content: Heartbeat) -> None:
        now = datetime.fromtimestamp(wall_seconds(self._clock), UTC)
        await self._publish(report_publication("heartbeat", content, report_key(self._keys, now, self._identity.name)))

    def _tell_failure(self, error: Exception) -> None:
        """Log the first failure of several: as a state if something is unavailable, else with its traceback."""
        was_published, self._was_published = self._was_published, False
        if was_published is False:
            return
        if isinstance(error, Unavailable | DeferredTimeout):
            # Not as a warning: that the bus is unavailable was logged already, and the first attempt may come too early.
            self._log.info("no heartbeat can be published: {reason}", reason=str(error))
        else:
            self._log.failure("no heartbeat can be published")

    def heartbeat(self, *, stopping: bool = False) -> Heartbeat:
        """Return a heartbeat of this moment, with the next sequence number."""
        self._sequence += 1
        return Heartbeat(
            name=self._identity.name,
            daemon=self._identity.daemon,
            host=self._identity.host,
            boot=self._identity.boot,
            sequence=self._sequence,
            version=meter.__version__,
            started_at=self._identity.started_at,
            clock=utc_text(datetime.fromtimestamp(wall_seconds(self._clock), UTC)),
            status_address=self._identity.status_address,
            key_ids=self._key_ids(),
            last_error=self._last_error.text,
            last_error_at=self._last_error.at,
            dependencies=tuple(
                DependencyState(state.name, state.ready, state.reason[:MAX_REASON]) for state in self._readinesses()
            ),
            spool=self._spool(),
            stopping=stopping,
        )


def report_key(keys: Keyring, now: datetime, name: str = "") -> SigningKey:
    """Return the key that signs a report of the daemon ``name`` (``daemon@host``) at this time.

    It is the first one for all meters and sources, else the first that may report for the daemon.

    Raises :class:`~meter.ceilometer_signature.BadSignature` if there is none.
    """
    usable = [key for key in keys.keys if "meter" in key.schemes and key.covers(now) and key.may_report_for(name)]
    if not usable:
        raise BadSignature("no key of [signing] may sign a report now")
    return min(usable, key=lambda key: bool(key.meters or key.sources))


def free_bytes(directory: Path) -> int | None:
    """Return the bytes that this process may still write to the disk of ``directory``, ``None`` if that cannot be read."""
    try:
        disk = os.statvfs(directory)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize
