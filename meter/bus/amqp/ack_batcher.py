"""Answering for deliveries: what is done is acknowledged once in a turn of the reactor, a whole run with one frame."""

from __future__ import annotations

from contextlib import suppress
from itertools import takewhile
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.interfaces import IReactorTime

from meter.bus.amqp.channel import ChannelLost


class Answers:
    """Answers for the deliveries of one ``channel``, which are numbered by their delivery tags in ascending order.

    Work that is done together, such as the notifications whose samples share casts, is done in one turn: the broker is
    told the last tag before the first that is still open, and those behind it one by one. Nothing is answered twice. A
    channel that is gone is told nothing: the broker has taken everything back that is not answered.
    """

    def __init__(self, channel: Any, clock: IReactorTime) -> None:
        self._channel = channel
        self._clock = clock
        self._open: dict[int, None] = {}  # in the order in which they came
        self._done: set[int] = set()
        self._telling: IDelayedCall | None = None

    def came(self, tag: int) -> None:
        """Take note of a delivery that is to be answered for."""
        self._open[tag] = None

    def done(self, tag: int) -> None:
        """Have a delivery acknowledged, at the end of this turn."""
        self._done.add(tag)
        if self._telling is None:
            self._telling = self._clock.callLater(0, self.tell)

    def requeued(self, tag: int) -> None:
        """Have a delivery delivered again."""
        del self._open[tag]
        with suppress(ChannelLost):
            self._channel.basic_nack(delivery_tag=tag, requeue=True)

    def tell(self) -> None:
        """Tell the broker now what is done."""
        telling, self._telling = self._telling, None
        if telling is not None and telling.active():
            telling.cancel()
        run = list(takewhile(self._done.__contains__, self._open))
        alone = sorted(self._done.difference(run))
        self._done.clear()
        for tag in (*run, *alone):
            del self._open[tag]
        with suppress(ChannelLost):
            if run:
                self._channel.basic_ack(delivery_tag=run[-1], multiple=len(run) > 1)
            for tag in alone:
                self._channel.basic_ack(delivery_tag=tag)
