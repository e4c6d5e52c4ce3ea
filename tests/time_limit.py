"""A test that waits for something that never comes fails after its time limit, and the others still run.

A limit says nothing about how long a test should take: it is some ten times what the slowest takes on a quiet machine,
because others may be at work on this one. How long things take is for ``benchmarks``.

pytest-timeout 2.4 raises from a signal handler. While a test waits under pytest-twisted 1.14, what is running then is
the reactor's main loop, which logs the exception and waits on; pytest hangs for ever. So the reactor itself ends the
wait, shortly before pytest-timeout would; what blocks the reactor is still ended by the signal.
Shown by ``tests/system/test_time_limit.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Generator
from pathlib import Path
from typing import Any

import greenlet
import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred

UNIT_SECONDS = 120.0
EARLIER_SECONDS = 2.0
"""How long before the limit the reactor acts: pytest must have written its report before the signal comes."""

_timer = pytest.StashKey[Any]()
_running = pytest.StashKey[Deferred[Any]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give unit tests their shorter limit; the general one is in ``pyproject.toml``."""
    unit = Path(__file__).parent / "unit"
    for item in items:
        if unit in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(UNIT_SECONDS))


def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> None:
    """Set the reactor's timer; returning nothing lets pytest-timeout set its own as well."""
    from twisted.internet import reactor

    item.stash[_timer] = reactor.callLater(  # type: ignore[attr-defined]
        max(settings.timeout / 2, settings.timeout - EARLIER_SECONDS),
        _give_up,
        item,
        settings.timeout,
        greenlet.getcurrent(),
    )


def pytest_timeout_cancel_timer(item: pytest.Item) -> None:
    """Clear the reactor's timer."""
    timer = item.stash.get(_timer, None)
    if timer is not None and timer.active():
        timer.cancel()


def _give_up(item: pytest.Item, seconds: float, waiting: greenlet.greenlet) -> None:
    running = item.stash.get(_running, None)
    if running is None:
        # A fixture waits: pytest stands in blockon(), where this is raised.
        waiting.throw(pytest.fail.Exception(f"nothing came within the time limit of {seconds:g} s"))
    else:
        running.cancel()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Keep the Deferred of an ``async def`` test at hand, so that its wait can be cancelled where it stands."""
    test = pyfuncitem.obj
    if getattr(test, "_pytest_twisted_mark", None) != "async_test" or hasattr(test, "hypothesis"):
        return (yield)

    @functools.wraps(test)
    async def cancellable(*args: Any, **kwargs: Any) -> None:
        running = pyfuncitem.stash[_running] = Deferred.fromCoroutine(test(*args, **kwargs))
        try:
            await running
        except CancelledError as error:
            timer = pyfuncitem.stash.get(_timer, None)
            if timer is None or timer.active():
                raise
            raise TimeoutError("the test waited here for longer than its time limit") from error
        finally:
            del pyfuncitem.stash[_running]

    pyfuncitem.obj = cancellable
    try:
        return (yield)
    finally:
        pyfuncitem.obj = test
