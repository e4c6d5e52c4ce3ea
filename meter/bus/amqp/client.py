"""One AMQP connection: txAMQP's client with its hot path and its failures put right.

What txAMQP 0.8.2 does, and what is done here instead:

- Every frame runs through a lock and several Deferreds, restarts two timers, and has the receive buffer copied: here
  frames are handled as they come, and one timer beats.
- A closed channel is handed out again under its number: here channels get fresh numbers.
- Its handshake names no capabilities: RabbitMQ would say neither that a queue is gone, nor that publishing is blocked,
  nor that a password is wrong.
- Whatever the broker may send and the library does not expect closes the connection with an ``AttributeError``.

tests/integration/test_amqp_traps.py has a test for each.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from txamqp.client import TwistedDelegate
from txamqp.connection import Body
from txamqp.connection import Frame
from txamqp.connection import Header
from txamqp.connection import Method
from txamqp.protocol import AMQClient

import meter
from meter.bus.amqp.channel import Channel
from meter.bus.amqp.channel import ChannelLost
from meter.bus.amqp.channel import channel_lost
from meter.bus.amqp.frames import PROTOCOL
from meter.bus.amqp.frames import packed
from meter.bus.amqp.frames import unpacked
from meter.bus.amqp.url import BrokerAddress
from meter.daemon.services import within
from meter.interfaces import Unavailable

FRAME_OVERHEAD_BYTES = 8
LARGEST_FRAME_BYTES = 128 * 1024
MOST_CHANNELS = 2047

CAPABILITIES = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}

_SIZE = struct.Struct("!I")


class _Conversation(TwistedDelegate):
    """Answers what the broker says of its own accord; its methods are named by the protocol."""

    def connection_start(self, channel: Channel, message: Any) -> None:
        client = self.client
        product = message.server_properties
        client.broker = f"{product.get('product', 'broker')} {product.get('version', '')}".strip()
        channel.connection_start_ok(
            client_properties={
                "product": "Meter",
                "version": meter.__version__,
                "platform": "Python, Twisted",
                "connection_name": client.connection_name,
                "capabilities": CAPABILITIES,
            },
            mechanism="PLAIN",
            response=f"\0{client.address.user}\0{client.address.password}",
            locale="en_US",
        )

    def connection_tune(self, channel: Channel, message: Any) -> None:
        client = self.client
        # 0 is "no limit" here; txAMQP would subtract from it and send pieces of -8 bytes.
        client.MAX_LENGTH = min(message.frame_max or LARGEST_FRAME_BYTES, LARGEST_FRAME_BYTES)
        client.most_channels = min(message.channel_max or MOST_CHANNELS, MOST_CHANNELS)
        channel.connection_tune_ok(client.most_channels, client.MAX_LENGTH, client.heartbeat_seconds)
        client.started.fire()

    def connection_blocked(self, channel: Channel, message: Any) -> None:
        self.client.block(message.reason)

    def connection_unblocked(self, channel: Channel, message: Any) -> None:
        self.client.block(None)

    def basic_deliver(self, channel: Channel, message: Any) -> None:
        channel.on_delivery(message)

    def basic_ack(self, channel: Channel, message: Any) -> None:
        channel.on_ack(message)

    def basic_nack(self, channel: Channel, message: Any) -> None:
        channel.on_nack(message)

    def basic_return_(self, channel: Channel, message: Any) -> None:
        channel.on_return(message)

    def basic_cancel(self, channel: Channel, message: Any) -> None:
        channel.on_cancel(message)

    def close(self, reason: Any) -> None:
        self.client.started.fail_if_not_fired(channel_lost(reason))
        self.client.transport.loseConnection()


class Client(AMQClient):
    """A connection to the broker. ``blocked`` is the broker's reason for taking no publications now, or ``None``."""

    channelClass = Channel  # noqa: N815 (txAMQP reads it)
    _log = Logger()

    def __init__(
        self,
        address: BrokerAddress,
        *,
        clock: IReactorTime,
        connection_name: str,
        heartbeat_seconds: int,
        largest_body_bytes: int,
        kept_bytes: int,
    ) -> None:
        # No heartbeat for the library: it would start and stop two timers for every frame.
        super().__init__(_Conversation(), address.vhost, PROTOCOL, heartbeat=0, clock=clock)
        self.address = address
        self.connection_name = connection_name
        self.heartbeat_seconds = heartbeat_seconds
        self.broker = "broker"
        self.blocked: str | None = None
        self.most_channels = MOST_CHANNELS
        self.why = ChannelLost("the connection is open")
        self._largest_body_bytes = largest_body_bytes
        self._kept_bytes = kept_bytes
        self._received = bytearray()
        self._heard_at = clock.seconds()
        self._heart = LoopingCall(self._beat)
        self._heart.clock = clock
        self._newest_channel = 0

    # --- life ------------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Greet the broker; txAMQP's own greeting is of an older protocol."""
        self.channels[0] = self.channelFactory(0, None, self)
        self.transport.write(b"AMQP\x00\x00\x09\x01")

    async def enter(self) -> None:
        """Return once the broker has let us into the virtual host; :class:`ChannelLost` says why it did not."""
        await self.started.wait()
        self._heart.start(self.heartbeat_seconds, now=False).addErrback(self._heart_failed)
        await self.channels[0].connection_open(self.vhost)

    async def leave(self, seconds: float) -> None:
        """Close this connection politely, or after ``seconds`` without manners; return when it is gone."""
        try:
            if not self.closed:
                goodbye = self.channels[0].connection_close(reply_code=200, reply_text="done")
                await within(self.clock, seconds, goodbye)
            self.transport.loseConnection()
            await within(self.clock, seconds, self.disconnected.wait())
        except (Unavailable, DeferredTimeout):
            pass
        finally:
            self.transport.abortConnection()
        await self.disconnected.wait()

    def abort(self, reason: str) -> None:
        """Give this connection up at once."""
        self.do_close(ChannelLost(reason))
        self.transport.abortConnection()

    def do_close(self, reason: Any) -> None:
        """Take note that this connection is closed, and close its channels."""
        # First of all, so that nobody who is told now opens another channel here.
        self.closed = True
        self.why = channel_lost(reason)
        for channel in list(self.channels.values()):
            channel.do_close(self.why)
        self.delegate.close(self.why)

    def connectionLost(self, reason: Failure) -> None:
        """Tell everybody who waits."""
        if self._heart.running:
            self._heart.stop()
        if not self.closed:
            self.do_close(reason)
        self.disconnected.fire()

    def block(self, reason: str | None) -> None:
        """Take note that the broker takes no publications, because of ``reason``, or takes them again."""
        self.blocked = reason
        if reason is None:
            for channel in list(self.channels.values()):
                channel.on_unblocked()

    def _beat(self) -> None:
        silent = self.clock.seconds() - self._heard_at
        if silent > self.MAX_UNSEEN_HEARTBEAT * self.heartbeat_seconds:
            self.abort(f"the broker was silent for {silent:.0f} s")
        else:
            self.send_heartbeat()

    def _heart_failed(self, failure: Failure) -> None:
        self._log.failure("the heartbeat to {broker} failed", failure, broker=str(self.address))
        self.abort("the heartbeat failed")

    # --- channels --------------------------------------------------------------------------------------------------

    async def open_channel(self) -> Any:
        """Return a new :class:`Channel`, open, under a number that no other has."""
        for _ in range(self.most_channels):
            self._newest_channel = self._newest_channel % self.most_channels + 1
            if self._newest_channel not in self.channels:
                break
        else:
            raise Unavailable(f"all {self.most_channels} channels of {self.address} are open")
        if self.closed:
            raise self.why.with_traceback(None)
        channel = self.channelFactory(self._newest_channel, None, self)
        self.channels[channel.id] = channel
        await channel.channel_open()
        return channel

    @asynccontextmanager
    async def temporary_channel(self, seconds: float) -> AsyncIterator[Any]:
        """Provide a channel for questions whose refusal closes it, closed within ``seconds`` afterwards."""
        channel = await self.open_channel()
        try:
            yield channel
        finally:
            await channel.leave(seconds)

    # --- frames ----------------------------------------------------------------------------------------------------

    def frames(self, channel: int, method: Any, arguments: tuple[Any, ...], content: Any = None) -> bytes:
        """Return ``method``, and the ``content`` that belongs to it, as bytes for the broker."""
        pieces = [packed(Frame(channel, Method(method, *arguments)))]
        if method.content:
            body = content.body
            header = packed(Frame(channel, Header(method.klass, 0, len(body), **content.properties)))
            if len(header) > self.MAX_LENGTH:
                raise ValueError(f"the headers of a message take {len(header)} bytes of at most {self.MAX_LENGTH}")
            pieces.append(header)
            step = self.MAX_LENGTH - FRAME_OVERHEAD_BYTES
            pieces += [packed(Frame(channel, Body(body[start : start + step]))) for start in range(0, len(body), step)]
        return b"".join(pieces)

    def send_frame(self, frame: Frame) -> None:
        """Send ``frame``; the library does so with heartbeats."""
        self.transport.write(packed(frame))

    def dataReceived(self, data: bytes) -> None:
        """Take what the broker sent; what cannot be understood ends the connection with a line in the log."""
        self._heard_at = self.clock.seconds()
        try:
            self._take_frames(data)
        except Exception:
            self._log.failure("{broker} sent what cannot be understood", broker=str(self.address))
            self.abort("the broker sent what cannot be understood")

    def _take_frames(self, data: bytes) -> None:
        received = self._received
        received += data
        start = 0
        while len(received) >= start + FRAME_OVERHEAD_BYTES and not self.closed:
            end = start + FRAME_OVERHEAD_BYTES + _SIZE.unpack_from(received, start + 3)[0]
            if end - start > LARGEST_FRAME_BYTES:
                raise ValueError(f"a frame of {end - start} bytes, where {LARGEST_FRAME_BYTES} were agreed")
            if len(received) < end:
                break
            frame = unpacked(bytes(received[start:end]))
            start = end
            # A channel that this side has closed may still be spoken to.
            channel = self.channels.get(frame.channel)
            if channel is not None and frame.payload.type != Frame.HEARTBEAT:
                channel.dispatch(frame)
        del received[:start]

    def wanted_bytes(self, size: int) -> int:
        """Return how much of a body of ``size`` bytes is kept: all, or the beginning of one that is too large."""
        return size if size <= self._largest_body_bytes else self._kept_bytes


class ClientFactory(Factory):
    """Makes clients with the given settings."""

    noisy = False

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make

    def buildProtocol(self, address: object) -> Any:
        """Return the client of a new TCP connection."""
        return self._make()
