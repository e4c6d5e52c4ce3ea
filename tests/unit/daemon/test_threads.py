"""Threads for calls that block."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThread

from meter.daemon.threads import SWITCH_SECONDS
from meter.daemon.threads import CallThread
from meter.daemon.threads import OffReactor


@pytest.fixture
def thread() -> Iterator[CallThread]:
    thread = CallThread(IReactorFromThreads(reactor), "calls of a test")
    yield thread
    thread.finish()


@pytest_twisted.ensureDeferred
async def test_calls_are_made_in_one_thread_in_the_order_given(thread: CallThread) -> None:
    made: list[int] = []
    names = [
        thread.call(lambda number=number: (made.append(number), threading.current_thread().name)) for number in range(3)
    ]
    assert {(await name)[1] for name in names} == {"calls of a test"}
    assert made == [0, 1, 2]


@pytest_twisted.ensureDeferred
async def test_result_arrives_in_the_reactor_thread(thread: CallThread) -> None:
    await thread.call(int)
    assert threading.current_thread() is threading.main_thread()


@pytest_twisted.ensureDeferred
async def test_exception_of_a_call_is_raised_and_the_next_call_is_made(thread: CallThread) -> None:
    with pytest.raises(ZeroDivisionError):
        await thread.call(lambda: 1 / 0)
    assert await thread.call(lambda: 7) == 7


@pytest_twisted.ensureDeferred
async def test_result_of_a_cancelled_call_is_ignored(thread: CallThread) -> None:
    go_on = threading.Event()
    waiting = thread.call(go_on.wait)
    waiting.cancel()
    go_on.set()
    with pytest.raises(CancelledError):
        await waiting
    assert await thread.call(lambda: 7) == 7


@pytest_twisted.ensureDeferred
async def test_finished_thread_ends_when_its_last_call_returns(thread: CallThread) -> None:
    go_on = threading.Event()
    waiting = thread.call(go_on.wait)
    thread.finish()
    assert thread.alive
    go_on.set()
    assert await waiting
    await deferToThread(thread._thread.join, 10)
    assert not thread.alive


def test_thread_does_not_delay_the_end_of_the_process(thread: CallThread) -> None:
    assert thread._thread.daemon


@pytest_twisted.ensureDeferred
async def test_threads_take_turns_often_exactly_while_a_function_computes_off_the_reactor() -> None:
    usual = sys.getswitchinterval()
    one, two = (OffReactor(IReactorFromThreads(reactor), f"off the reactor {n}") for n in range(2))
    first_computes, second_computed = threading.Event(), threading.Event()

    def first() -> float:
        first_computes.set()
        second_computed.wait()
        return sys.getswitchinterval()

    waiting = one(first)
    first_computes.wait()
    assert await two(sys.getswitchinterval) == pytest.approx(SWITCH_SECONDS)
    second_computed.set()
    assert await waiting == pytest.approx(SWITCH_SECONDS)
    with pytest.raises(ZeroDivisionError):
        await one(lambda: 1 / 0)
    assert sys.getswitchinterval() == usual
    for each in (one, two):
        assert each._thread is not None
        each._thread.finish()


@pytest_twisted.ensureDeferred
async def test_off_reactor_is_busy_until_its_last_function_has_ended_also_if_nobody_waits_for_it() -> None:
    off_reactor = OffReactor(IReactorFromThreads(reactor), "off the reactor")
    assert not off_reactor.busy
    go_on = threading.Event()
    forgotten, second = off_reactor(go_on.wait), off_reactor(int)
    forgotten.cancel()
    with pytest.raises(CancelledError):
        await forgotten
    assert off_reactor.busy
    go_on.set()
    await second
    assert not off_reactor.busy
    with pytest.raises(ZeroDivisionError):
        await off_reactor(lambda: 1 / 0)
    assert not off_reactor.busy
    assert off_reactor._thread is not None
    off_reactor._thread.finish()
