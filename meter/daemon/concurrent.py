"""Coroutines that run at the same time, for one that waits for all of them."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import FirstError
from twisted.internet.defer import gatherResults


async def all_of(*coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    """Return the results of ``coroutines``, which run at the same time; if one fails, its error, and the others are cancelled.

    Whoever is cancelled while waiting cancels all of them.
    """
    running = [Deferred.fromCoroutine(each) for each in coroutines]
    try:
        return list(await gatherResults(running, consumeErrors=True))
    except FirstError as failed:
        failed.subFailure.raiseException()
        raise  # never: it has raised
    finally:
        for each in running:
            each.cancel()  # does nothing to those that have ended
