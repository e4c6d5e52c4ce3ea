"""What the broker is told of deliveries that are done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from meter.bus.amqp.ack_batcher import Answers
from meter.bus.amqp.channel import ChannelLost


class Channel:
    """A channel that keeps what it is told."""

    def __init__(self):
        self.told = []
        self.why = None

    def basic_ack(self, delivery_tag, multiple=False):
        self._say("all up to" if multiple else "ack", delivery_tag)

    def basic_nack(self, delivery_tag, requeue):
        assert requeue
        self._say("again", delivery_tag)

    def _say(self, *words):
        if self.why is not None:
            raise self.why
        self.told.append(words)


@pytest.fixture
def channel():
    return Channel()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def answers(channel, clock):
    answers = Answers(channel, clock)
    for tag in range(1, 7):
        answers.came(tag)
    return answers


def test_a_run_that_is_done_in_one_turn_takes_one_frame(answers, channel, clock):
    for tag in (2, 1, 3):
        answers.done(tag)
    assert not channel.told
    clock.advance(0)
    assert channel.told == [("all up to", 3)]


def test_what_lies_behind_open_work_is_acknowledged_alone(answers, channel, clock):
    for tag in (1, 2, 4, 6):
        answers.done(tag)
    clock.advance(0)
    assert channel.told == [("all up to", 2), ("ack", 4), ("ack", 6)]
    answers.done(3)
    answers.done(5)
    clock.advance(0)
    assert channel.told[3:] == [("all up to", 5)]


def test_one_alone_is_acknowledged_alone(answers, channel, clock):
    answers.done(1)
    clock.advance(0)
    assert channel.told == [("ack", 1)]


def test_what_is_handed_back_is_not_acknowledged_with_those_around_it(answers, channel, clock):
    answers.done(1)
    answers.requeued(2)
    answers.done(3)
    clock.advance(0)
    assert channel.told == [("again", 2), ("all up to", 3)]  # the broker has 2 back already


def test_who_stops_need_not_wait_for_the_end_of_the_turn(answers, channel, clock):
    answers.done(1)
    answers.tell()
    assert channel.told == [("ack", 1)]
    assert not clock.getDelayedCalls()


def test_a_channel_that_is_gone_is_told_nothing(answers, channel, clock):
    channel.why = ChannelLost("the network is away")
    answers.done(1)
    answers.requeued(2)
    clock.advance(0)
    assert channel.told == []


@given(st.permutations(range(1, 13)), st.sets(st.integers(1, 12)), st.sets(st.integers(0, 11)))
def test_in_whatever_order_work_ends_each_delivery_is_answered_once_and_no_open_one_is(order, back, turns):
    channel, clock = Channel(), Clock()
    answers = Answers(channel, clock)
    for tag in range(1, 13):
        answers.came(tag)
    open_, told = set(range(1, 13)), 0
    finalized: set[int] = set()
    for step, tag in enumerate(order):
        answers.requeued(tag) if tag in back else answers.done(tag)
        finalized.add(tag)
        if step in turns:
            clock.advance(0)
        for word, number in channel.told[told:]:
            answered = {each for each in open_ if each <= number} if word == "all up to" else {number} & open_
            assert answered
            assert answered <= finalized
            open_ -= answered
        told = len(channel.told)
    clock.advance(0)
    for word, number in channel.told[told:]:
        open_ -= {each for each in open_ if each <= number} if word == "all up to" else {number}
    assert not open_
