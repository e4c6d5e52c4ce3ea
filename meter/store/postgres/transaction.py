"""A transaction over a session that has only one user at a time, as those of commands do."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from typing import Any
from typing import TypeVar

from meter.store.postgres.pool import Session

T = TypeVar("T")


async def in_transaction(session: Session, work: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Return the result of ``work``, called with ``args``, in a transaction; it is rolled back if anything fails, also if it is cancelled."""
    await session.count("BEGIN")
    try:
        result = await work(*args)
        await session.count("COMMIT")
    except BaseException:
        if not session.closed:
            await session.count("ROLLBACK")
        raise
    return result
