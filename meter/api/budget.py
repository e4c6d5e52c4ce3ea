"""Budgets that are refilled with time, and what happens to clients that exhaust theirs."""

from __future__ import annotations

from cachetools import LRUCache
from twisted.internet.interfaces import IReactorTime

from meter.daemon.services import sleep

MAX_ADDRESSES = 10_000
"""Client addresses whose budgets are remembered; the least recently used are forgotten."""

DELAYED_STATUSES = frozenset({401, 429})
"""Statuses that are delayed for clients that get many of them."""

MAX_REFUSALS = 200
"""Refusals in a burst that are answered at once, for one client address."""

REFUSAL_SECONDS = 40.0
"""Time in which so many more are answered at once: five a second after the burst."""

DELAY_SECONDS = 1.0
"""Delay of further refusals."""

MAX_DELAYED = 200
"""Refusals that are delayed at the same time; more are answered at once."""


class Budget:
    """A budget of ``size``, which is refilled continuously, from empty to full within ``seconds``.

    It limits a burst to ``size`` and the rate after it to ``size / seconds``: within ``seconds``, up to twice ``size`` can be
    spent.
    """

    def __init__(self, clock: IReactorTime, size: int, seconds: float) -> None:
        self._clock = clock
        self._size = size
        self._rate = size / seconds
        self._left = float(size)
        self._at = clock.seconds()

    def wait_seconds(self) -> float:
        """Return the time until one can be spent, 0 if it can be now."""
        now = self._clock.seconds()
        self._left = min(self._size, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        return max(0.0, (1 - self._left) / self._rate)

    def spend(self) -> None:
        """Spend one."""
        self._left -= 1

    def refund(self) -> None:
        """Take back one that was spent."""
        self._left = min(self._size, self._left + 1)


class AddressBudgets:
    """A :class:`Budget` for each client address."""

    def __init__(self, clock: IReactorTime, size: int, seconds: float) -> None:
        self._clock = clock
        self._size = size
        self._seconds = seconds
        self._budgets: LRUCache[str, Budget] = LRUCache(MAX_ADDRESSES)

    def of(self, address: str) -> Budget:
        """Return the budget of ``address``, a full one if it is not remembered."""
        budget = self._budgets.get(address)
        if budget is None:
            budget = self._budgets[address] = Budget(self._clock, self._size, self._seconds)
        return budget


class RefusalDelay:
    """Delays the refusals of clients that repeat refused requests without waiting, so that they cost less."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._budgets = AddressBudgets(clock, MAX_REFUSALS, REFUSAL_SECONDS)
        self._delayed = 0

    async def wait(self, address: str) -> None:
        """Return when a refusal may be sent to ``address``."""
        budget = self._budgets.of(address)
        if not budget.wait_seconds():
            budget.spend()
            return
        if self._delayed >= MAX_DELAYED:
            return
        self._delayed += 1
        try:
            await sleep(self._clock, DELAY_SECONDS)
        finally:
            self._delayed -= 1
