"""A channel: methods and their replies, the messages that arrive on it, and why it closed.

What txAMQP 0.8.2 does, and what this module does instead:

- Each content frame passes through several Deferreds: here each channel assembles its contents as frames arrive.
- A frame that cannot be encoded stops the writer for ever while heartbeats continue: here everything is encoded before
  it is written, so that the caller gets the exception.
- Callers that wait on a channel when it closes wait for ever: here :attr:`Channel.lost` fires and pending replies fail.

tests/integration/test_amqp_traps.py has a test for each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.python.failure import Failure
from txamqp.client import TwistedEvent
from txamqp.connection import Method
from txamqp.protocol import AMQChannel

from meter.daemon.services import within
from meter.interfaces import Unavailable
from meter.tls import tls_reason

ACCESS_REFUSED = 403
NOT_FOUND = 404
PRECONDITION_FAILED = 406

# Names of message properties. txAMQP only logs a name that the protocol does not have, and drops it: the 0-8 spelling
# "delivery mode" would make every message transient.
CONTENT_TYPE = "content-type"
CONTENT_ENCODING = "content-encoding"
DELIVERY_MODE = "delivery-mode"
HEADERS = "headers"
MESSAGE_ID = "message-id"

PERSISTENT = 2


class ChannelLost(Unavailable):
    """A channel or its connection is closed; ``code`` is the broker's reply code, ``None`` where it sent none."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


@dataclass(slots=True)
class Content:
    """A received message. ``body`` is truncated where ``size``, the bytes sent, exceeds the limit of the client."""

    properties: dict[str, Any]
    size: int
    body: bytes

    @property
    def complete(self) -> bool:
        """Whether ``body`` was not truncated."""
        return len(self.body) == self.size


class ReceivedMessage:
    """A method that the broker has sent, with its arguments as attributes, and its ``content`` if it has one.

    txAMQP's own ``Message`` looks for an argument in two lists each time that it is read, which took a tenth of the time of a delivery.
    """

    def __init__(self, method: Any, arguments: Sequence[Any], content: Content | None = None) -> None:
        self.__dict__.update(zip(_argument_names(method), arguments, strict=True))
        self.method = method
        self.content = content

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)  # for type checkers: the attributes depend on the method


@lru_cache(maxsize=256)
def _argument_names(method: Any) -> tuple[str, ...]:
    """Return the names of the arguments of ``method``, as txAMQP has them in Python."""
    names = {id(field): name for name, field in method.fields.bypyname.items()}
    return tuple(names[id(field)] for field in method.fields)


class ContentAssembler:
    """Assembles a content from its header and body frames."""

    __slots__ = ("_pieces", "header", "kept_bytes", "method", "seen_bytes", "wanted_bytes")

    def __init__(self, method: Any) -> None:
        self.method = method
        self.header: Any = None
        self.wanted_bytes = 0
        self.kept_bytes = 0
        self.seen_bytes = 0
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        """Append a body frame; bytes beyond ``wanted_bytes`` are discarded."""
        self.seen_bytes += len(piece)
        if self.kept_bytes < self.wanted_bytes:
            kept = piece[: self.wanted_bytes - self.kept_bytes]
            self.kept_bytes += len(kept)
            self._pieces.append(kept)

    def content(self) -> Content:
        """Return the assembled content."""
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        return Content(self.header.properties, self.header.size, body)


def _ignore(*_: Any) -> None:
    """Ignore a method that this channel has no callback for."""


class Channel(AMQChannel):
    """A channel of a :class:`~meter.bus.amqp.client.Client`; its methods are AMQP's own: ``await channel.basic_qos(prefetch_count=10)``.

    A method with a reply returns a Deferred of the reply, which fails with :class:`ChannelLost`; any other method
    returns ``None``. The attributes ``on_...`` are callbacks for methods that the broker sends. ``wanted_bytes`` returns
    how many bytes to keep of a body that begins to arrive; the rest is discarded.
    """

    def __init__(self, id: int, outgoing: object, client: Any) -> None:
        # AMQChannel.__init__ is not called: it makes queues that are not needed and that import the global reactor.
        self.id = id
        self.client = client
        self.closed = False
        self.lost = TwistedEvent()
        self.close_reason = ChannelLost("the channel is open")
        self.on_delivery: Callable[[Any], object] = _ignore
        self.on_ack: Callable[[Any], object] = _ignore
        self.on_nack: Callable[[Any], object] = _ignore
        self.on_return: Callable[[Any], object] = _ignore
        self.on_cancel: Callable[[Any], object] = _ignore
        self.on_unblocked: Callable[[], object] = _ignore
        self.wanted_bytes: Callable[[int], int] = lambda size: int(client.wanted_bytes(size))
        self._replies: deque[Deferred[Any]] = deque()
        self._incoming: ContentAssembler | None = None

    def invoke(self, method: Any, arguments: tuple[Any, ...], content: Any = None) -> Deferred[Any] | None:
        """Send ``method``; every method that txAMQP generates from the protocol calls this.

        Raises :class:`ChannelLost` on a closed channel, and ``ValueError`` or ``TypeError`` for arguments that cannot be
        encoded; then nothing was sent.
        """
        if self.closed:
            raise self.close_reason.with_traceback(None)
        self.client.transport.writeSequence(self.client.frames(self.id, method, arguments, content))
        if not method.responses:
            return None
        reply: Deferred[Any] = Deferred()
        self._replies.append(reply)
        return reply

    def dispatch(self, frame: Any, work: object = None) -> None:
        """Process a frame from the broker: a method, or the header of a content."""
        payload = frame.payload
        if isinstance(payload, Method):
            if not payload.method.content:
                self._dispatch_message(ReceivedMessage(payload.method, payload.args))
                return
            self._incoming = ContentAssembler(payload)
            return
        incoming = self._incoming
        if incoming is None:
            raise ValueError(f"a content frame without its method on channel {self.id}")
        incoming.header = payload
        incoming.wanted_bytes = self.wanted_bytes(payload.size)
        if not payload.size:
            self._content_arrived(incoming)

    def add_body(self, piece: bytes) -> None:
        """Process the content of a body frame from the broker."""
        incoming = self._incoming
        if incoming is None:
            raise ValueError(f"a content frame without its method on channel {self.id}")
        incoming.add(piece)
        if incoming.seen_bytes >= incoming.header.size:
            self._content_arrived(incoming)

    def _content_arrived(self, incoming: ContentAssembler) -> None:
        self._incoming = None
        self._dispatch_message(ReceivedMessage(incoming.method.method, incoming.method.args, incoming.content()))

    def _dispatch_message(self, message: Any) -> None:
        if message.method.response:
            self._replies.popleft().callback(message)
        else:
            self.client.delegate.dispatch(self, message)

    async def close(self, seconds: float) -> None:
        """Close this channel with ``channel.close``; return after ``seconds`` at the latest."""
        if self.closed:
            return
        try:
            await within(self.client.clock, seconds, self.channel_close(reply_code=200, reply_text="done"))
        except (Unavailable, DeferredTimeout):
            pass
        finally:
            self.do_close(ChannelLost("the channel was closed by this side"))

    def abort(self, reason: str) -> None:
        """Close this channel without waiting for ``channel.close-ok``."""
        if not self.closed:
            self.channel_close(reply_code=200, reply_text="done").addErrback(_ignore)
            self.do_close(ChannelLost(reason))

    def do_close(self, reason: Any) -> None:
        """Mark this channel as closed and fail what waits on it; txAMQP calls this when the broker closes it."""
        if self.closed:
            return
        self.closed = True
        self.close_reason = channel_lost(reason)
        self.client.channels.pop(self.id, None)
        while self._replies:
            self._replies.popleft().errback(self.close_reason)
        self.lost.fire()


def channel_lost(reason: Any) -> ChannelLost:
    """Return the exception for ``reason``, which closed a channel or a connection."""
    if isinstance(reason, ChannelLost):
        return reason
    if isinstance(reason, ReceivedMessage):
        return ChannelLost(f"the broker replied {reason.reply_code} {reason.reply_text}", reason.reply_code)
    error = reason.value if isinstance(reason, Failure) else reason
    return ChannelLost(tls_reason(error) or f"the connection was lost: {error}")
