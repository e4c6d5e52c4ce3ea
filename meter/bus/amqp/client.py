"""One AMQP connection: a subclass of txAMQP's client, with its hot path and its error handling replaced.

What txAMQP 0.8.2 does, and what this module does instead:

- Each frame takes a lock and several Deferreds, restarts two timers and copies the receive buffer: here frames are
  processed as they arrive, and one timer sends heartbeats.
- A closed channel is returned again for its number: here every channel gets a number that is not in use.
- Its handshake declares no client capabilities: RabbitMQ would report neither a deleted queue, nor that publishing is
  blocked, nor a wrong password.
- A method that the library does not expect closes the connection with an ``AttributeError``: here the delegate has
  every method that RabbitMQ may send.

tests/integration/test_amqp_traps.py has a test for each.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Coroutine
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from txamqp.client import TwistedDelegate
from txamqp.connection import Frame
from txamqp.connection import Header
from txamqp.connection import Method
from txamqp.protocol import AMQClient

import meter
from meter.bus.amqp.channel import Channel
from meter.bus.amqp.channel import ChannelLost
from meter.bus.amqp.channel import channel_lost
from meter.bus.amqp.frames import BODY
from meter.bus.amqp.frames import FRAME_BEGIN
from meter.bus.amqp.frames import FRAME_END
from meter.bus.amqp.frames import PROTOCOL
from meter.bus.amqp.frames import body_frame
from meter.bus.amqp.frames import decode_frame
from meter.bus.amqp.frames import encode_frame
from meter.bus.amqp.url import BrokerAddress
from meter.daemon.services import within
from meter.interfaces import Unavailable

FRAME_OVERHEAD_BYTES = 8
MAX_FRAME_BYTES = 128 * 1024
TLS_ALERT = b"\x15\x03"
"""How the answer of a TLS port to AMQP begins; no frame of AMQP does."""

MAX_CHANNELS = 2047

CLOSE_SECONDS = 2.0
"""How long a connection whose handshake has failed may take to close."""

CAPABILITIES = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}


class _Delegate(TwistedDelegate):
    """Handles the methods that the broker sends unsolicited; txAMQP calls it by the names of the protocol."""

    def connection_start(self, channel: Channel, message: Any) -> None:
        client = self.client
        product = message.server_properties
        client.broker = f"{product.get('product', 'broker')} {product.get('version', '')}".strip()
        address = client.address
        external = address.auth_mechanism == "external"
        offered = str(message.mechanisms).split()
        if external and "EXTERNAL" not in offered:
            client.abort(
                "the broker does not offer the mechanism EXTERNAL: enable its plugin rabbitmq_auth_mechanism_ssl, and add EXTERNAL to"
                f" its auth_mechanisms; it offers {', '.join(offered)}"
            )
            return
        channel.connection_start_ok(
            client_properties={
                "product": "Meter",
                "version": meter.__version__,
                "platform": "Python, Twisted",
                "connection_name": client.connection_name,
                "capabilities": CAPABILITIES,
            },
            mechanism="EXTERNAL" if external else "PLAIN",
            response="" if external else f"\0{address.user}\0{address.password}",
            locale="en_US",
        )

    def connection_tune(self, channel: Channel, message: Any) -> None:
        client = self.client
        # 0 means "no limit"; txAMQP would subtract the overhead from it and send frames of -8 bytes.
        client.MAX_LENGTH = min(message.frame_max or MAX_FRAME_BYTES, MAX_FRAME_BYTES)
        client.max_channels = min(message.channel_max or MAX_CHANNELS, MAX_CHANNELS)
        channel.connection_tune_ok(client.max_channels, client.MAX_LENGTH, client.heartbeat_seconds)
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
    """A connection to the broker. ``blocked`` is the broker's reason for blocking publishing, or ``None``."""

    channelClass = Channel  # noqa: N815 (txAMQP reads it)
    _log = Logger()

    def __init__(
        self,
        address: BrokerAddress,
        *,
        clock: IReactorTime,
        connection_name: str,
        heartbeat_seconds: int,
        max_body_bytes: int,
        kept_bytes: int,
    ) -> None:
        # heartbeat=0: the library would restart two timers for every frame.
        super().__init__(_Delegate(), address.vhost, PROTOCOL, heartbeat=0, clock=clock)
        self.address = address
        self.connection_name = connection_name
        self.heartbeat_seconds = heartbeat_seconds
        self.broker = "broker"
        self.blocked: str | None = None
        self.max_channels = MAX_CHANNELS
        self.close_reason = ChannelLost("the connection is open")
        self._max_body_bytes = max_body_bytes
        self._kept_bytes = kept_bytes
        self._received = b""
        self._last_received = clock.seconds()
        self._heartbeat = LoopingCall(self._send_heartbeat_or_abort)
        self._heartbeat.clock = clock
        self._last_channel = 0

    # --- lifecycle -------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Send the protocol header of AMQP 0-9-1; txAMQP would send an older one."""
        self.channels[0] = self.channelFactory(0, None, self)
        self.transport.write(b"AMQP\x00\x00\x09\x01")

    async def open(self) -> None:
        """Complete the handshake and open the virtual host; :class:`ChannelLost` says why the broker refused."""
        await self.started.wait()
        self._heartbeat.start(self.heartbeat_seconds, now=False).addErrback(self._heartbeat_failed)
        await self.channels[0].connection_open(self.vhost)

    async def close(self, seconds: float) -> None:
        """Close this connection with ``connection.close``, or abort it after ``seconds``; return when it is closed."""
        try:
            if not self.closed:
                closed = self.channels[0].connection_close(reply_code=200, reply_text="done")
                await within(self.clock, seconds, closed)
            self.transport.loseConnection()
            await within(self.clock, seconds, self.disconnected.wait())
        except (Unavailable, DeferredTimeout):
            pass
        finally:
            self.transport.abortConnection()
        await self.disconnected.wait()

    def abort(self, reason: str) -> None:
        """Close this connection at once, without a handshake."""
        self.do_close(ChannelLost(reason))
        self.transport.abortConnection()

    def do_close(self, reason: Any) -> None:
        """Mark this connection as closed, and close its channels; txAMQP calls this when the broker closes it."""
        # First, so that callbacks that run now cannot open another channel here.
        self.closed = True
        self.close_reason = channel_lost(reason)
        for channel in list(self.channels.values()):
            channel.do_close(self.close_reason)
        self.delegate.close(self.close_reason)

    def connectionLost(self, reason: Failure) -> None:
        """Fail everything that waits on this connection."""
        if self._heartbeat.running:
            self._heartbeat.stop()
        if not self.closed:
            speaks_tls = self._received.startswith(TLS_ALERT)
            self.do_close(ChannelLost("the port speaks TLS: use amqps:// in [bus] url") if speaks_tls else reason)
        self.disconnected.fire()

    def block(self, reason: str | None) -> None:
        """Set the reason why the broker blocks publishing, or ``None`` when it accepts publications again."""
        self.blocked = reason
        if reason is None:
            for channel in list(self.channels.values()):
                channel.on_unblocked()

    def _send_heartbeat_or_abort(self) -> None:
        silent = self.clock.seconds() - self._last_received
        if silent > self.MAX_UNSEEN_HEARTBEAT * self.heartbeat_seconds:
            self.abort(f"the broker was silent for {silent:.0f} s")
        else:
            self.send_heartbeat()

    def _heartbeat_failed(self, failure: Failure) -> None:
        self._log.failure("the heartbeat to {broker} failed", failure, broker=str(self.address))
        self.abort("the heartbeat failed")

    # --- channels --------------------------------------------------------------------------------------------------

    async def open_channel(self) -> Any:
        """Return a new, open :class:`Channel` with a number that is not in use."""
        for _ in range(self.max_channels):
            self._last_channel = self._last_channel % self.max_channels + 1
            if self._last_channel not in self.channels:
                break
        else:
            raise Unavailable(f"all {self.max_channels} channels of {self.address} are open")
        if self.closed:
            raise self.close_reason.with_traceback(None)
        channel = self.channelFactory(self._last_channel, None, self)
        self.channels[channel.id] = channel
        await channel.channel_open()
        return channel

    @asynccontextmanager
    async def temporary_channel(self, seconds: float) -> AsyncIterator[Any]:
        """Provide a channel for methods whose refusal closes it; it is closed within ``seconds`` afterwards."""
        channel = await self.open_channel()
        try:
            yield channel
        finally:
            await channel.close(seconds)

    # --- frames ----------------------------------------------------------------------------------------------------

    def frames(self, channel: int, method: Any, arguments: tuple[Any, ...], content: Any = None) -> list[bytes]:
        """Return the frames of ``method`` and of its ``content`` as bytes, in pieces: a body is not copied."""
        pieces = [encode_frame(Frame(channel, Method(method, *arguments)))]
        if method.content:
            body = content.body
            header = encode_frame(Frame(channel, Header(method.klass, 0, len(body), **content.properties)))
            if len(header) > self.MAX_LENGTH:
                raise ValueError(f"the headers of a message have {len(header)} bytes; the limit is {self.MAX_LENGTH}")
            pieces.append(header)
            step = self.MAX_LENGTH - FRAME_OVERHEAD_BYTES
            for start in range(0, len(body), step):
                pieces += body_frame(channel, body[start : start + step])
        return pieces

    def send_frame(self, frame: Frame) -> None:
        """Send ``frame``; the library calls this for heartbeats."""
        self.transport.write(encode_frame(frame))

    def dataReceived(self, data: bytes) -> None:
        """Process bytes from the broker; bytes that are not valid AMQP are logged and abort the connection."""
        self._last_received = self.clock.seconds()
        try:
            self._process_frames(data)
        except Exception:
            self._log.failure("{broker} sent invalid AMQP", broker=str(self.address))
            self.abort("the broker sent invalid AMQP")

    def _process_frames(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        start = 0
        while len(data) >= start + FRAME_OVERHEAD_BYTES and not self.closed:
            kind, number, size = FRAME_BEGIN.unpack_from(data, start)
            end = start + FRAME_OVERHEAD_BYTES + size
            if end - start > MAX_FRAME_BYTES:
                raise ValueError(f"a frame has {end - start} bytes; the limit is {MAX_FRAME_BYTES}")
            if len(data) < end:
                break
            # The broker may still send frames for a channel that this side has closed.
            channel = self.channels.get(number)
            if kind == BODY and data[end - 1] == FRAME_END:  # the largest are copied once
                if channel is not None:
                    channel.add_body(data[start + FRAME_BEGIN.size : end - 1])
            else:
                frame = decode_frame(data[start:end])
                if channel is not None and frame.payload.type != Frame.HEARTBEAT:
                    channel.dispatch(frame)
            start = end
        self._received = data[start:]

    def wanted_bytes(self, size: int) -> int:
        """Return how many bytes of a body of ``size`` bytes to keep: all, or the first of a body that is too large."""
        return size if size <= self._max_body_bytes else self._kept_bytes


class ClientFactory(Factory):
    """Makes a client for each connection."""

    noisy = False

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make

    def buildProtocol(self, address: object) -> Any:
        """Return the client of a new TCP connection."""
        return self._make()


async def open_client(
    endpoint: IStreamClientEndpoint,
    make: Callable[[], Client],
    limit: Callable[[Coroutine[Any, Any, None]], Awaitable[object]] = lambda handshake: handshake,
) -> Client:
    """Return the client that ``make`` makes, connected to ``endpoint``, after a handshake within ``limit``; closed if that fails."""
    client: Client = await endpoint.connect(ClientFactory(make))  # type: ignore[assignment]  # IProtocol
    try:
        await limit(client.open())
    except BaseException:
        await client.close(CLOSE_SECONDS)
        raise
    return client
