"""A connection that is kept up for ever, and channels that are kept open on it."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger

from meter.bus.amqp.client import Client
from meter.bus.amqp.client import ClientFactory
from meter.daemon.services import Backoff
from meter.daemon.services import sleep
from meter.daemon.services import within
from meter.interfaces import Unavailable

HANDSHAKE_SECONDS = 30.0
"""How long the broker may take to let us in. (How long connecting may take is the endpoint's business.)"""

PREPARE_SECONDS = 60.0
"""How long the broker may take to open a channel and declare what is used on it; a quorum queue takes seconds."""

LONGEST_PAUSE_SECONDS = 10.0
"""How long a broker that is back may stay unnoticed. Being refused costs next to nothing, and the pauses are jittered."""

LEAVE_SECONDS = 2.0
"""How long the broker may take to say goodbye."""


class Connection(Service):
    """Keeps one connection to the broker: connects in the background when started, and again whenever it is lost.

    ``client`` is the live :class:`~meter.bus.amqp.client.Client` or ``None``; ``reason`` says why it is ``None``, or what
    it is connected to. (Twisted's ``ClientService`` is not used: its ``prepareConnection`` leaves sockets open when the
    handshake fails, and without it every handshake needs a second loop around it.)
    """

    _log = Logger()

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        make_client: Callable[[], Client],
        *,
        clock: IReactorTime,
        peer: str,
        purpose: str,
        backoff: Backoff | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._factory = ClientFactory(make_client)
        self._clock = clock
        self._peer = peer
        self._purpose = purpose
        self._backoff = backoff or Backoff(most=LONGEST_PAUSE_SECONDS)
        self._waiting: list[Deferred[Client]] = []
        self._keeping: Deferred[None] | None = None
        self.client: Client | None = None
        self.reason = "not started"

    def startService(self) -> None:
        """Begin to connect; returns at once."""
        super().startService()
        self.reason = f"connecting to {self._peer}"
        self._keeping = Deferred.fromCoroutine(self._keep())

    def stopService(self) -> Deferred[None] | None:
        """Fire when the connection is closed."""
        super().stopService()
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
        return keeping

    def connected(self) -> Deferred[Client]:
        """Fire with the live client, now or once there is one."""
        waiting: Deferred[Client] = Deferred(lambda d: self._waiting.remove(d) if d in self._waiting else None)
        if self.client is None:
            self._waiting.append(waiting)
        else:
            waiting.callback(self.client)
        return waiting

    async def _keep(self) -> None:
        while self.running:
            try:
                await self._connect_and_stay()
            except Exception as error:
                if self.running:
                    self._tell(f"{self._peer}: {error}")
            self.client = None
            if self.running:
                await _pause(self._clock, self._backoff)
        self.reason = "stopped"

    async def _connect_and_stay(self) -> None:
        client: Any = await self._endpoint.connect(self._factory)
        try:
            await within(self._clock, HANDSHAKE_SECONDS, client.enter())
            self._backoff.reset()
            self.client = client
            self.reason = f"connected to {client.broker} at {self._peer}"
            self._log.info("{purpose}: {reason}", purpose=self._purpose, reason=self.reason)
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(client)
            await client.disconnected.wait()
        except DeferredTimeout:
            raise Unavailable(f"the broker did not let us in within {HANDSHAKE_SECONDS:g} s") from None
        finally:
            self.client = None
            await client.leave(LEAVE_SECONDS)
        raise client.why

    def _tell(self, reason: str) -> None:
        """Log why there is no connection, once as long as it stays the same."""
        if reason != self.reason:
            self._log.warn("{purpose}: not connected, trying again: {reason}", purpose=self._purpose, reason=reason)
        self.reason = reason


class ChannelService(Service):
    """Keeps one channel open: ``prepare`` gets each new one before it is offered as ``channel``.

    ``channel`` is ``None`` in between, and ``reason`` says why.
    """

    _log = Logger()

    def __init__(
        self,
        connection: Connection,
        prepare: Callable[[Any], Awaitable[None]],
        *,
        clock: IReactorTime,
        purpose: str,
        backoff: Backoff | None = None,
    ) -> None:
        self._connection = connection
        self._prepare = prepare
        self._clock = clock
        self._purpose = purpose
        self._backoff = backoff or Backoff(most=LONGEST_PAUSE_SECONDS)
        self._keeping: Deferred[None] | None = None
        self.channel: Any = None
        self._reason = ""

    @property
    def reason(self) -> str:
        """Why there is no channel: the connection's reason, if there is no connection."""
        client = self._connection.client
        if client is None:
            return self._connection.reason
        if client.closed:
            return str(client.why)
        return self._reason or f"a channel for {self._purpose} is being opened"

    def startService(self) -> None:
        """Begin; returns at once."""
        super().startService()
        self._keeping = Deferred.fromCoroutine(self._keep())

    def stopService(self) -> Deferred[None] | None:
        """Fire when the channel is closed."""
        super().stopService()
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
        return keeping

    async def _keep(self) -> None:
        while self.running:
            try:
                client = await self._connection.connected()
                await self._open_and_stay(client)
            except Exception as error:
                if self.running:
                    self._tell(str(error))
            if self.running:
                await _pause(self._clock, self._backoff)

    async def _open_and_stay(self, client: Client) -> None:
        channel = await within(self._clock, PREPARE_SECONDS, client.open_channel())
        try:
            await within(self._clock, PREPARE_SECONDS, _coroutine(self._prepare(channel)))
            self._backoff.reset()
            self._reason = ""
            self.channel = channel
            await channel.lost.wait()
        except DeferredTimeout:
            # It answers heartbeats and nothing else: another connection may reach a better part of it.
            client.abort(f"the broker did not prepare a channel for {self._purpose} within {PREPARE_SECONDS:g} s")
        finally:
            self.channel = None
            await channel.leave(LEAVE_SECONDS)
        raise channel.why

    def _tell(self, reason: str) -> None:
        """Log why the channel is lost, once as long as it stays the same; a lost connection speaks for itself."""
        if self._connection.client is not None and reason != self._reason:
            self._log.warn("{purpose}: no channel, trying again: {reason}", purpose=self._purpose, reason=reason)
        self._reason = reason


async def _coroutine(work: Awaitable[None]) -> None:
    await work


async def _pause(clock: IReactorTime, backoff: Backoff) -> None:
    """Wait, unless stopping cancels it. The pause also lets the reactor finish with what was lost."""
    try:
        await sleep(clock, backoff.next())
    except CancelledError:
        return
