"""Coroutines that run at the same time."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred

from meter.daemon.concurrent import all_of


async def awaited(source: Deferred[Any]) -> Any:
    return await source


def running(*sources: Deferred[Any]) -> tuple[list[Any], Deferred[Any]]:
    """Wait for all ``sources``; return where the outcome will be, and what waits."""
    outcome: list[Any] = []
    waiting = Deferred.fromCoroutine(all_of(*map(awaited, sources)))
    waiting.addBoth(outcome.append)
    return outcome, waiting


def test_all_begin_at_once_and_results_have_the_order_of_the_coroutines() -> None:
    first, second = Deferred[Any](), Deferred[Any]()
    outcome, _ = running(first, second)
    second.callback("two")
    assert not outcome
    first.callback("one")
    assert outcome == [["one", "two"]]


def test_the_error_of_one_is_raised_and_cancels_the_others() -> None:
    cancelled: list[Any] = []
    first, second = Deferred[Any](cancelled.append), Deferred[Any]()
    outcome, _ = running(first, second)
    second.errback(ValueError("wrong"))
    [failure] = outcome
    with pytest.raises(ValueError, match="wrong"):
        failure.raiseException()
    assert cancelled == [first]


def test_who_is_cancelled_cancels_all() -> None:
    cancelled: list[Any] = []
    first, second = Deferred[Any](cancelled.append), Deferred[Any](cancelled.append)
    outcome, waiting = running(first, second)
    waiting.cancel()
    assert cancelled == [first, second]
    assert outcome[0].check(CancelledError)
