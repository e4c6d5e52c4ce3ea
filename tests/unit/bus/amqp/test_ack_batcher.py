"""Which acknowledgements the broker receives for finished deliveries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from meter.bus.amqp.ack_batcher import AckBatcher
from meter.bus.amqp.channel import ChannelLost


class Channel:
    """A channel that records what is sent."""

    def __init__(self):
        self.sent = []
        self.close_reason = None

    def basic_ack(self, delivery_tag, multiple=False):
        self._say("all up to" if multiple else "ack", delivery_tag)

    def basic_nack(self, delivery_tag, requeue):
        assert requeue
        self._say("again", delivery_tag)

    def _say(self, *words):
        if self.close_reason is not None:
            raise self.close_reason
        self.sent.append(words)


@pytest.fixture
def channel():
    return Channel()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def acks(channel, clock):
    acks = AckBatcher(channel, clock)
    for tag in range(1, 7):
        acks.delivered(tag)
    return acks


def test_consecutive_deliveries_finished_together_are_acknowledged_with_one_frame(acks, channel, clock):
    for tag in (2, 1, 3):
        acks.ack(tag)
    assert not channel.sent
    clock.advance(0)
    assert channel.sent == [("all up to", 3)]


def test_deliveries_after_an_unfinished_one_are_acknowledged_one_by_one(acks, channel, clock):
    for tag in (1, 2, 4, 6):
        acks.ack(tag)
    clock.advance(0)
    assert channel.sent == [("all up to", 2), ("ack", 4), ("ack", 6)]
    acks.ack(3)
    acks.ack(5)
    clock.advance(0)
    assert channel.sent[3:] == [("all up to", 5)]


def test_single_delivery_is_acknowledged_without_the_multiple_flag(acks, channel, clock):
    acks.ack(1)
    clock.advance(0)
    assert channel.sent == [("ack", 1)]


def test_requeued_delivery_is_not_acknowledged_with_its_neighbours(acks, channel, clock):
    acks.ack(1)
    acks.requeue(2)
    acks.ack(3)
    clock.advance(0)
    assert channel.sent == [("again", 2), ("all up to", 3)]  # the broker has 2 back already


def test_flush_acknowledges_without_waiting_for_the_reactor(acks, channel, clock):
    acks.ack(1)
    acks.flush()
    assert channel.sent == [("ack", 1)]
    assert not clock.getDelayedCalls()


def test_lost_channel_is_sent_nothing(acks, channel, clock):
    channel.close_reason = ChannelLost("the network is away")
    acks.ack(1)
    acks.requeue(2)
    clock.advance(0)
    assert channel.sent == []


@given(st.permutations(range(1, 13)), st.sets(st.integers(1, 12)), st.sets(st.integers(0, 11)))
def test_deliveries_finished_in_any_order_are_acknowledged_once_and_unfinished_ones_never(order, back, turns):
    channel, clock = Channel(), Clock()
    acks = AckBatcher(channel, clock)
    for tag in range(1, 13):
        acks.delivered(tag)
    open_, sent = set(range(1, 13)), 0
    finalized: set[int] = set()
    for step, tag in enumerate(order):
        acks.requeue(tag) if tag in back else acks.ack(tag)
        finalized.add(tag)
        if step in turns:
            clock.advance(0)
        for word, number in channel.sent[sent:]:
            answered = {each for each in open_ if each <= number} if word == "all up to" else {number} & open_
            assert answered
            assert answered <= finalized
            open_ -= answered
        sent = len(channel.sent)
    clock.advance(0)
    for word, number in channel.sent[sent:]:
        open_ -= {each for each in open_ if each <= number} if word == "all up to" else {number}
    assert not open_
