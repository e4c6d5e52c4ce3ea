"""A channel: methods and their answers, the messages that arrive on it, and why it closed.

What txAMQP 0.8.2 does, and what is done here instead:

- Contents run through several Deferreds for each frame: here each channel puts its own together as frames come.
- A frame that cannot be encoded ends its writer for ever while heartbeats go on: here everything is encoded before it
  is handed over, so that the caller gets the exception.
- Who waits on a channel that closes waits for ever: here :attr:`Channel.lost` fires and pending answers fail.

tests/integration/test_amqp_traps.py has a test for each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.python.failure import Failure
from txamqp.client import TwistedEvent
from txamqp.connection import Header
from txamqp.connection import Method
from txamqp.message import Message
from txamqp.protocol import AMQChannel

from meter.daemon.services import within
from meter.interfaces import Unavailable

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


class ContentAssembler:
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
        """Append a body frame, of which no more than the wanted bytes are stored."""
        self.seen_bytes += len(piece)
        if self.kept_bytes < self.wanted_bytes:
            kept = piece[: self.wanted_bytes - self.kept_bytes]
            self.kept_bytes += len(kept)
            self._pieces.append(kept)

    def content(self) -> Content:
        """Return the content assembled so far."""
        return Content(self.header.properties, self.header.size, b"".join(self._pieces))


def _ignored(*_: Any) -> None:
    """Ignore what nobody on this channel wants to know."""


class Channel(AMQChannel):
    """A channel of a :class:`~meter.bus.amqp.client.Client`; its methods are AMQP's own: ``await channel.basic_qos(prefetch_count=10)``.

    A method that the broker answers returns a Deferred of the answer, which fails with :class:`ChannelLost`; any other
    returns ``None``. The attributes that begin with ``on_`` are called with the broker's messages of that kind.
    """

    def __init__(self, id: int, outgoing: object, client: Any) -> None:
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
        self._arriving: ContentAssembler | None = None

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
            self._arriving = ContentAssembler(payload)
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
