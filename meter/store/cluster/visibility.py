"""What makes sure that a spread store shows all samples that are committed: every worker answers, and no transaction is in doubt.

A writer is told *committed* when the coordinator has committed. A worker that was cut off just then keeps its rows prepared, and shows
them only after the transaction was recovered. Whoever decides for good what there is, as finalization, retention and queries as of a time
do, makes sure first, after it has waited for the writers.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from typing import Any

from meter.interfaces import Unavailable

Rows = Callable[..., Awaitable[list[tuple[Any, ...]]]]

PREPARED = """
SELECT nodename || ':' || nodeport, success, result FROM run_command_on_workers(
    $$SELECT coalesce(string_agg(gid, ' '), '') FROM pg_prepared_xacts WHERE database = current_database() AND starts_with(gid, 'citus_')$$
)
"""
"""What each worker has prepared and not committed yet."""

COMMITTED = "SELECT gid FROM pg_dist_transaction WHERE gid = ANY(%s)"
"""Those of them that the coordinator has committed. A transaction in progress has no row yet that others see."""

MAY_RECOVER = "SELECT has_function_privilege('recover_prepared_transactions()', 'EXECUTE')"
RECOVER = "SELECT recover_prepared_transactions()"

ATTEMPTS = 5
"""A transaction that is just being committed is in doubt for a moment."""


async def ensure_all_visible(rows: Rows) -> None:
    """Return once all that is committed is visible; ``rows`` executes a statement on the coordinator.

    :class:`Unavailable` while a worker does not answer, or has committed rows that cannot be recovered now.
    """
    in_doubt: list[str] = []
    for attempt in range(ATTEMPTS):
        answers = await rows(PREPARED)
        if away := [f"{name} ({result})" for name, success, result in answers if not success]:
            raise Unavailable(f"not all samples can be seen: the worker {', '.join(away)} does not answer")
        prepared = [gid for _, _, result in answers for gid in result.split()]
        if not prepared:
            return
        in_doubt = [gid for [gid] in await rows(COMMITTED, [prepared])]
        if not in_doubt:
            return
        if attempt and (await rows(MAY_RECOVER))[0][0]:
            await rows(RECOVER)
    raise Unavailable(
        f"not all samples can be seen: transactions in doubt: {len(in_doubt)}; Citus recovers them every citus.recover_2pc_interval"
    )
