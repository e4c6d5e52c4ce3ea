"""One AMQP connection and its channels: txAMQP's client with its hot paths and its failures put right.

What txAMQP 0.8.2 does, and what is done here instead:

- Every frame runs through several Deferreds and a lock, and the receive buffer is copied for each frame: frames are
  handled as they come, contents are put together by the channel they came on.
- A frame that cannot be encoded ends its writer for ever while heartbeats go on: everything is encoded before it is
  handed over, so that the caller gets the exception.
- A closed channel is handed out again under its number, and who waits on it waits for ever: channels get fresh
  numbers, :attr:`Channel.lost` fires and pending answers fail.
- Its handshake names no capabilities: RabbitMQ would say neither that a queue is gone, nor that publishing is blocked,
  nor that a password is wrong.
- Whatever a broker may send and the library does not expect closes the connection with an ``AttributeError``.

tests/integration/test_amqp_traps.py has a test for each.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import AsyncIterator
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from txamqp.client import TwistedDelegate
from txamqp.client import TwistedEvent
from txamqp.connection import Frame
from txamqp.connection import Header
from txamqp.connection import Method
from txamqp.message import Message
from txamqp.protocol import AMQChannel
from txamqp.protocol import AMQClient

import meter
from meter.amqp.repairs import PROTOCOL
from meter.amqp.repairs import Body
from meter.amqp.url import BrokerAddress
from meter.interfaces import Unavailable
from meter.services import within

ACCESS_REFUSED = 403
NOT_FOUND = 404
PRECONDITION_FAILED = 406

# Names of message properties. txAMQP drops a name that the protocol does not have with no more than a log line: the
# 0-8 spelling "delivery mode" would make every message transient.
CONTENT_TYPE = "content-type"
CONTENT_ENCODING = "content-encoding"
DELIVERY_MODE = "delivery-mode"
HEADERS = "headers"
MESSAGE_ID = "message-id"

PERSISTENT = 2

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


class ChannelLost(Unavailable):
    """A channel or its connection is closed; ``code`` is the broker's reply code, ``None`` where it said nothing."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


@dataclass(slots=True)
class Content:
    """A message as it arrived: ``body`` has its first bytes only where all ``size`` of them would be too many."""

    properties: dict[str, Any]
    size: int
    body: bytes

    @property
    def whole(self) -> bool:
        """Whether ``body`` is all of it."""
        return len(self.body) == self.size


class _Arriving:
    """A content whose frames are arriving."""

    __slots__ = ("_pieces", "header", "kept_bytes", "method", "seen_bytes", "wanted_bytes")

    def __init__(self, method: Any) -> None:
        self.method = method
        self.header: Any = None
        self.wanted_bytes = 0
        self.kept_bytes = 0
        self.seen_bytes = 0
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        self.seen_bytes += len(piece)
        if self.kept_bytes < self.wanted_bytes:
            kept = piece[: self.wanted_bytes - self.kept_bytes]
            self.kept_bytes += len(kept)
            self._pieces.append(kept)

    def content(self) -> Content:
        return Content(self.header.properties, self.header.size, b"".join(self._pieces))


def _ignored(*_: Any) -> None:
    """Ignore what nobody on this channel wants to know."""


class Channel(AMQChannel):
    """A channel of a :class:`Client`; its methods are AMQP's own: ``await channel.basic_qos(prefetch_count=10)``.

    A method that the broker answers returns a Deferred of the answer, which fails with :class:`ChannelLost`; any other
    returns ``None``. The attributes that begin with ``on_`` are called with the broker's messages of that kind.
    """

    def __init__(self, id: int, outgoing: object, client: Client) -> None:
        # Not the library's own constructor: its queues are not needed, and they look for the global reactor.
        self.id = id
        self.client = client
        self.closed = False
        self.lost = TwistedEvent()
        self.why = ChannelLost("the channel is open")
        self.on_delivery: Callable[[Any], object] = _ignored
        self.on_ack: Callable[[Any], object] = _ignored
        self.on_nack: Callable[[Any], object] = _ignored
        self.on_return: Callable[[Any], object] = _ignored
        self.on_cancel: Callable[[Any], object] = _ignored
        self.on_unblocked: Callable[[], object] = _ignored
        self._answers: deque[Deferred[Any]] = deque()
        self._arriving: _Arriving | None = None

    def invoke(self, method: Any, arguments: tuple[Any, ...], content: Any = None) -> Deferred[Any] | None:
        """Send ``method``; called by all the methods that txAMQP makes from the protocol.

        Raises :class:`ChannelLost` on a closed channel, and ``ValueError`` or ``TypeError`` for what cannot be encoded:
        then nothing was sent.
        """
        if self.closed:
            raise self.why.with_traceback(None)
        self.client.transport.write(self.client.frames(self.id, method, arguments, content))
        if not method.responses:
            return None
        answer: Deferred[Any] = Deferred()
        self._answers.append(answer)
        return answer

    def dispatch(self, frame: Any, work: object = None) -> None:
        """Take a frame from the broker."""
        payload = frame.payload
        if isinstance(payload, Method):
            if not payload.method.content:
                self._take(Message(payload.method, payload.args))
                return
            self._arriving = _Arriving(payload)
            return
        arriving = self._arriving
        if arriving is None:
            raise ValueError(f"a piece of a message without its beginning on channel {self.id}")
        if isinstance(payload, Header):
            arriving.header = payload
            arriving.wanted_bytes = self.client.wanted_bytes(payload.size)
        else:
            arriving.add(payload.content)
        if arriving.seen_bytes >= arriving.header.size:
            self._arriving = None
            self._take(Message(arriving.method.method, arriving.method.args, arriving.content()))

    def _take(self, message: Any) -> None:
        if message.method.response:
            self._answers.popleft().callback(message)
        else:
            self.client.delegate.dispatch(self, message)

    async def leave(self, seconds: float) -> None:
        """Close this channel politely; return after ``seconds`` at the latest."""
        if self.closed:
            return
        try:
            await within(self.client.clock, seconds, self.channel_close(reply_code=200, reply_text="done"))
        except (Unavailable, DeferredTimeout):
            pass
        finally:
            self.do_close(ChannelLost("the channel was closed by this side"))

    def give_up(self, reason: str) -> None:
        """Close this channel at once, without waiting for the broker's answer."""
        if not self.closed:
            self.channel_close(reply_code=200, reply_text="done").addErrback(_ignored)
            self.do_close(ChannelLost(reason))

    def do_close(self, reason: Any) -> None:
        """Take note that this channel is closed: by the broker's message, a failure or our own decision."""
        if self.closed:
            return
        self.closed = True
        self.why = channel_lost(reason)
        self.client.channels.pop(self.id, None)
        while self._answers:
            self._answers.popleft().errback(self.why)
        self.lost.fire()


def channel_lost(reason: Any) -> ChannelLost:
    """Return the exception that says what closed a channel or a connection."""
    if isinstance(reason, ChannelLost):
        return reason
    if isinstance(reason, Message):
        return ChannelLost(f"the broker answered {reason.reply_code} {reason.reply_text}", reason.reply_code)
    error = reason.value if isinstance(reason, Failure) else reason
    return ChannelLost(f"the connection was lost: {error}")


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
    async def scratch_channel(self, seconds: float) -> AsyncIterator[Any]:
        """Provide a channel for questions whose refusal closes it, closed within ``seconds`` afterwards."""
        channel = await self.open_channel()
        try:
            yield channel
        finally:
            await channel.leave(seconds)

    # --- frames ----------------------------------------------------------------------------------------------------

    def frames(self, channel: int, method: Any, arguments: tuple[Any, ...], content: Any = None) -> bytes:
        """Return ``method``, and the ``content`` that belongs to it, as bytes for the broker."""
        pieces = [self._pack_frame(Frame(channel, Method(method, *arguments)))]
        if method.content:
            body = content.body
            header = self._pack_frame(Frame(channel, Header(method.klass, 0, len(body), **content.properties)))
            if len(header) > self.MAX_LENGTH:
                raise ValueError(f"the headers of a message take {len(header)} bytes of at most {self.MAX_LENGTH}")
            pieces.append(header)
            step = self.MAX_LENGTH - FRAME_OVERHEAD_BYTES
            pieces += [
                self._pack_frame(Frame(channel, Body(body[start : start + step])))
                for start in range(0, len(body), step)
            ]
        return b"".join(pieces)

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
            frame = self._unpack_frame(bytes(received[start:end]))
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
