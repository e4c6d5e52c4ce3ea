"""Polls the names of projects, domains and users, and publishes them as signed reports.

They are not spooled: each poll lists all names, and reports that no collector has a queue for would hold up the samples behind them.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.ceilometer_signature import BadSignature
from meter.daemon.services import wall_seconds
from meter.identity_report import IdentityKind
from meter.identity_report import IdentityReport
from meter.interfaces import Publication
from meter.interfaces import Unavailable
from meter.report import report_publication
from meter.signing_keys import SigningKey

RETRY_SECONDS = 60.0
"""How often it is looked whether a poll is due: a failed one is repeated after that time."""


class IdentitySource(Protocol):
    """Lists names; implemented by :class:`meter.openstack.identities.KeystoneIdentities`."""

    problems: Mapping[IdentityKind, str]

    def reports(self) -> AsyncIterator[IdentityReport]:
        """Iterate over reports with all names."""


class IdentityPolling:
    """Lists the names of ``source`` and publishes them with ``publish``, signed with the ``key`` of the time.

    :meth:`poll` is :data:`meter.agent.leader.Work`; :meth:`poll_once` does it once in each interval without an election.
    """

    _log = Logger()

    def __init__(
        self,
        source: IdentitySource,
        publish: Callable[[Publication], Awaitable[object]],
        key: Callable[[datetime], SigningKey],
        clock: IReactorTime,
    ) -> None:
        self._source = source
        self._publish = publish
        self._key = key
        self._clock = clock
        self._done: Mapping[float, int] = {}

    async def poll(self, due: frozenset[float]) -> None:
        """Publish all names; raises :class:`Unavailable` if the bus takes one not, or, at the end, if something could not be listed."""
        async for report in self._source.reports():
            now = datetime.fromtimestamp(wall_seconds(self._clock), UTC)
            try:
                publication = report_publication("identities", report, self._key(now))
            except BadSignature as error:
                raise Unavailable(f"the names cannot be signed: {error}") from error
            await self._publish(publication)
        if self._source.problems:
            raise Unavailable("; ".join(f"{kind}s: {reason}" for kind, reason in self._source.problems.items()))

    async def poll_once(self, due: frozenset[float]) -> None:
        """Do :meth:`poll` for the intervals in which it was not done yet."""
        slots = {each: math.floor(wall_seconds(self._clock) / each) for each in due}
        if any(self._done.get(each) != slot for each, slot in slots.items()):
            await self.poll(due)
            self._done = slots

    def logging(
        self, run: Callable[[frozenset[float]], Awaitable[object]], interval: Callable[[], float]
    ) -> Callable[[], Awaitable[None]]:
        """Return a function that calls ``run`` with the present ``interval``, and logs that it has to be repeated."""

        async def attempt() -> None:
            try:
                await run(frozenset({interval()}))
            except Unavailable as error:
                self._log.info(
                    "names of projects, domains and users cannot be read: {reason}; trying again", reason=str(error)
                )

        return attempt
