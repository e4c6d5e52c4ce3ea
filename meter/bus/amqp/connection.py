"""A connection that is kept up for ever, and channels that are kept open on it."""

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
from meter.bus.amqp.client import ClientFactory
from meter.daemon.services import Backoff
from meter.daemon.services import within
from meter.daemon.supervised import SupervisedService
from meter.interfaces import Unavailable

HANDSHAKE_SECONDS = 30.0
"""How long the broker may take to let us in. (How long connecting may take is the endpoint's business.)"""

PREPARE_SECONDS = 60.0
"""How long the broker may take to open a channel and declare what is used on it; a quorum queue takes seconds."""

LONGEST_PAUSE_SECONDS = 10.0
"""How long a broker that is back may stay unnoticed. Being refused costs next to nothing, and the pauses are jittered."""

LEAVE_SECONDS = 2.0
"""How long the broker may take to say goodbye."""


class Connection(SupervisedService):
    """Keeps one connection to the broker: connects in the background when started, and again whenever it is lost.

    ``client`` is the live :class:`~meter.bus.amqp.client.Client` or ``None``; ``reason`` says why it is ``None``, or what
    it is connected to. (Twisted's ``ClientService`` is not used: its ``prepareConnection`` leaves sockets open when the
    handshake fails, and without it every handshake needs a second loop around it.)
    """

    _log = Logger()
    on_stop = "cancel"

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
        super().__init__(clock, backoff=backoff or Backoff(most=LONGEST_PAUSE_SECONDS))
        self._endpoint = endpoint
        self._factory = ClientFactory(make_client)
        self._peer = peer
        self._purpose = purpose
        self._waiting: list[Deferred[Client]] = []
        self.client: Client | None = None

    def startService(self) -> None:
        """Begin to connect; returns at once."""
        self._set_state(False, f"connecting to {self._peer}")
        super().startService()

    def connected(self) -> Deferred[Client]:
        """Fire with the live client, now or once there is one."""
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
        """Connect and stay connected; raise the reason when the connection is lost."""
        client: Any = await self._endpoint.connect(self._factory)
        try:
            await within(self._clock, HANDSHAKE_SECONDS, client.enter())
            self._backoff.reset()
            self.client = client
            self._set_state(True, f"connected to {client.broker} at {self._peer}")
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

    def _attempt_failed(self, error: Exception) -> None:
        if self._set_state(False, f"{self._peer}: {error}"):
            self._log.warn(
                "{purpose}: not connected, trying again: {reason}", purpose=self._purpose, reason=self.reason
            )


class ChannelService(SupervisedService):
    """Keeps one channel open: ``prepare`` gets each new one before it is offered as ``channel``.

    ``channel`` is ``None`` in between, and ``reason`` says why.
    """

    _log = Logger()
    on_stop = "cancel"

    def __init__(
        self,
        connection: Connection,
        prepare: Callable[[Any], Awaitable[None]],
        *,
        clock: IReactorTime,
        purpose: str,
        backoff: Backoff | None = None,
    ) -> None:
        super().__init__(clock, backoff=backoff or Backoff(most=LONGEST_PAUSE_SECONDS), reason="")
        self._connection = connection
        self._prepare = prepare
        self._purpose = purpose
        self.channel: Any = None

    @property
    def reason(self) -> str:
        """Why there is no channel: the connection's reason, if there is no connection."""
        client = self._connection.client
        if client is None:
            return self._connection.reason
        if client.closed:
            return str(client.why)
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
            # It answers heartbeats and nothing else: another connection may reach a better part of it.
            client.abort(f"the broker did not prepare a channel for {self._purpose} within {PREPARE_SECONDS:g} s")
        finally:
            self.channel = None
            await channel.leave(LEAVE_SECONDS)
        raise channel.why

    def _attempt_failed(self, error: Exception) -> None:
        is_new = self._set_state(False, str(error))
        if is_new and self._connection.client is not None:  # a lost connection logs its own reason
            self._log.warn("{purpose}: no channel, trying again: {reason}", purpose=self._purpose, reason=self._reason)


async def _coroutine(work: Awaitable[None]) -> None:
    await work
