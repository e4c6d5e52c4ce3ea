"""Acknowledges deliveries in batches: one ``basic.ack`` for the consecutive deliveries of one reactor iteration."""

from __future__ import annotations

from contextlib import suppress
from itertools import takewhile
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.interfaces import IReactorTime

from meter.bus.amqp.channel import ChannelLost


class AckBatcher:
    """Acknowledges the deliveries of one ``channel``, whose delivery tags ascend.

    Deliveries that are processed together, such as notifications whose samples share a batch, finish in the same
    iteration of the reactor. Those before the first unfinished delivery are acknowledged by one frame (``multiple``),
    those after it one by one. Nothing is acknowledged twice. On a channel that is lost nothing is sent: the broker has
    requeued every delivery that was not acknowledged.
    """

    def __init__(self, channel: Any, clock: IReactorTime) -> None:
        self._channel = channel
        self._clock = clock
        self._open: dict[int, None] = {}  # in the order of arrival
        self._done: set[int] = set()
        self._flush_call: IDelayedCall | None = None

    def delivered(self, tag: int) -> None:
        """Register a delivery, which has to be acknowledged or requeued."""
        self._open[tag] = None

    def ack(self, tag: int) -> None:
        """Acknowledge a delivery at the end of this iteration of the reactor."""
        self._done.add(tag)
        if self._flush_call is None:
            self._flush_call = self._clock.callLater(0, self.flush)

    def requeue(self, tag: int) -> None:
        """Return a delivery to its queue, to be delivered again."""
        del self._open[tag]
        with suppress(ChannelLost):
            self._channel.basic_nack(delivery_tag=tag, requeue=True)

    def flush(self) -> None:
        """Send the pending acknowledgements now."""
        flush_call, self._flush_call = self._flush_call, None
        if flush_call is not None and flush_call.active():
            flush_call.cancel()
        run = list(takewhile(self._done.__contains__, self._open))
        single = sorted(self._done.difference(run))
        self._done.clear()
        for tag in (*run, *single):
            del self._open[tag]
        with suppress(ChannelLost):
            if run:
                self._channel.basic_ack(delivery_tag=run[-1], multiple=len(run) > 1)
            for tag in single:
                self._channel.basic_ack(delivery_tag=tag)
