"""A connection that is opened again whenever it is lost, and channels that are opened again on it."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger

from meter.bus.amqp.client import Client
from meter.bus.amqp.client import open_client
from meter.bus.amqp.hosts import FAILOVER_SECONDS
from meter.bus.amqp.hosts import BrokerHosts
from meter.bus.amqp.url import BrokerAddress
from meter.daemon.services import Backoff
from meter.daemon.services import within
from meter.daemon.start_grace import StartGrace
from meter.daemon.supervised import SupervisedService
from meter.interfaces import Unavailable

HANDSHAKE_SECONDS = 30.0
"""How long the AMQP handshake may take. (The endpoint limits the TCP and TLS connection.)"""

PREPARE_SECONDS = 60.0
"""How long the broker may take to open a channel and declare its exchanges and queues; a quorum queue takes seconds."""

MAX_PAUSE_SECONDS = 10.0
"""Longest pause between two attempts, with jitter. A refused attempt costs very little."""

CLOSE_SECONDS = 2.0
"""How long the broker may take to close a connection or a channel."""


class ConnectionService(SupervisedService):
    """Keeps one connection to one of the hosts of the broker open: connects in the background, and again whenever it is lost.

    ``client`` is the live :class:`~meter.bus.amqp.client.Client` or ``None``; ``reason`` says why it is ``None``, or what
    it is connected to. (Twisted's ``ClientService`` is not used: its ``prepareConnection`` leaves sockets open when the
    handshake fails, and without it every handshake needs a second loop around it.)
    """

    _log = Logger()
    on_stop = "cancel"

    def __init__(
        self,
        hosts: BrokerHosts,
        make_client: Callable[[BrokerAddress], Client],
        *,
        clock: IReactorTime,
        peer: str,
        purpose: str,
        backoff: Backoff | None = None,
    ) -> None:
        super().__init__(clock, backoff=backoff or Backoff(most=MAX_PAUSE_SECONDS))
        self._hosts = hosts
        self._make_client = make_client
        self._handshake_seconds = FAILOVER_SECONDS if hosts.several else HANDSHAKE_SECONDS
        self._peer = peer
        self._purpose = purpose
        self._waiting: list[Deferred[Client]] = []
        self._starting = StartGrace(clock)
        self._told_quietly = False
        self.client: Client | None = None

    def startService(self) -> None:
        """Begin to connect; returns at once."""
        self._set_state(False, f"connecting to {self._peer}")
        self._starting.begin()
        super().startService()

    def connected(self) -> Deferred[Client]:
        """Fire with the live client, now or once the connection is open."""
        waiting: Deferred[Client] = Deferred(lambda d: self._waiting.remove(d) if d in self._waiting else None)
        if self.client is None:
            self._waiting.append(waiting)
        else:
            waiting.callback(self.client)
        return waiting

    async def _run(self) -> None:
        await super()._run()
        self._set_state(False, "stopped")

    async def _attempt(self) -> float:
        """Connect to a host and stay connected; raise the reason when the connection is lost, or no host can be reached."""
        address, client = await self._hosts.first(self._open, wanted=lambda: bool(self.running))
        try:
            self._backoff.reset()
            self._starting.end()
            self._told_quietly = False
            self.client = client
            self._set_state(True, f"connected to {client.broker} at {address}, {address.account}")
            self._log.info("{purpose}: {reason}", purpose=self._purpose, reason=self.reason)
            waiting, self._waiting = self._waiting, []
            for caller in waiting:
                caller.callback(client)
            await client.disconnected.wait()
        finally:
            self.client = None
            await client.close(CLOSE_SECONDS)
        if self._hosts.several:
            raise Unavailable(f"{address.place}: {client.close_reason}")
        raise client.close_reason

    async def _open(self, address: BrokerAddress, endpoint: IStreamClientEndpoint) -> Any:
        """Connect to one host and complete the handshake; return the client."""
        try:
            return await open_client(
                endpoint,
                lambda: self._make_client(address),
                lambda handshake: within(self._clock, self._handshake_seconds, handshake),
            )
        except DeferredTimeout:
            seconds = f"{self._handshake_seconds:g} s"
            raise Unavailable(f"the AMQP handshake was not completed within {seconds}") from None

    def _attempt_failed(self, error: Exception) -> None:
        is_new, starting = self._set_state(False, f"{self._peer}: {error}"), self._starting.active
        if not is_new and (starting or not self._told_quietly):
            return
        self._told_quietly = starting
        if starting:
            self._log.info(
                "{purpose}: not connected yet; retrying: {reason}", purpose=self._purpose, reason=self.reason
            )
        else:
            self._log.warn("{purpose}: not connected; retrying: {reason}", purpose=self._purpose, reason=self.reason)


class ChannelService(SupervisedService):
    """Keeps one channel open: each new one is passed to ``prepare`` before it becomes ``channel``.

    While no channel is open ``channel`` is ``None`` and ``reason`` says why.
    """

    _log = Logger()
    on_stop = "cancel"

    def __init__(
        self,
        connection: ConnectionService,
        prepare: Callable[[Any], Awaitable[None]],
        *,
        clock: IReactorTime,
        purpose: str,
        backoff: Backoff | None = None,
    ) -> None:
        super().__init__(clock, backoff=backoff or Backoff(most=MAX_PAUSE_SECONDS), reason="")
        self._connection = connection
        self._prepare = prepare
        self._purpose = purpose
        self.channel: Any = None

    @property
    def reason(self) -> str:
        """Why no channel is open: the reason of the connection while that is not open."""
        client = self._connection.client
        if client is None:
            return self._connection.reason
        if client.closed:
            return str(client.close_reason)
        return self._reason or f"a channel for {self._purpose} is being opened"

    async def _attempt(self) -> float:
        """Open and prepare a channel, and raise the reason when it is lost."""
        client = await self._connection.connected()
        channel = await within(self._clock, PREPARE_SECONDS, client.open_channel())
        try:
            await within(self._clock, PREPARE_SECONDS, _coroutine(self._prepare(channel)))
            self._backoff.reset()
            self._set_state(True, "")
            self.channel = channel
            await channel.lost.wait()
        except DeferredTimeout:
            # The broker responds to heartbeats only: a new connection may reach another node.
            client.abort(f"the broker did not prepare a channel for {self._purpose} within {PREPARE_SECONDS:g} s")
        finally:
            self.channel = None
            await channel.close(CLOSE_SECONDS)
        raise channel.close_reason

    def _attempt_failed(self, error: Exception) -> None:
        is_new = self._set_state(False, str(error))
        if is_new and self._connection.client is not None:  # a lost connection logs its own reason
            self._log.warn("{purpose}: no channel; retrying: {reason}", purpose=self._purpose, reason=self._reason)


async def _coroutine(work: Awaitable[None]) -> None:
    await work
