"""Limits on validations: how many tokens Keystone is asked about, for each client address and in total."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cachetools import LRUCache
from cachetools import TTLCache
from twisted.internet.interfaces import IReactorTime

from meter.api.errors import ApiError
from meter.api.fair_share import AllTaken
from meter.api.fair_share import Places
from meter.api.fair_share import ShareTaken

MAX_ADDRESSES = 10_000
"""Client addresses that are remembered: those with refused tokens, and those with valid ones."""

KNOWN_SECONDS = 3600.0
"""How long an address that has sent a valid token is known."""

RETRY_AFTER_SECONDS = 5


@dataclass(frozen=True, slots=True)
class ValidationLimits:
    """Limits on validations.

    At most ``max_in_progress`` requests wait for one, ``max_in_progress_per_address`` from one client address. Addresses
    that have sent no valid token within an hour have at most half of them in total.

    Refused tokens are paid from a budget, which valid ones do not use: ``max_refusals`` at once, refilled within
    ``refusal_seconds``, for each address, and twenty times as many for all addresses that are not known.
    """

    max_in_progress: int = 100
    max_in_progress_per_address: int = 25
    max_refusals: int = 20
    refusal_seconds: float = 20.0
    unknown_addresses: int = 20


class _Budget:
    """A budget of ``size``, which is refilled continuously, from empty to full within ``seconds``."""

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


class ValidationLimiter:
    """Admits requests to validation by ``limits``; what it refuses is :class:`ApiError` 429 or 503 with ``Retry-After``."""

    def __init__(self, clock: IReactorTime, limits: ValidationLimits | None = None) -> None:
        self._clock = clock
        self._limits = limits = limits or ValidationLimits()
        self._places = Places(limits.max_in_progress, limits.max_in_progress_per_address)
        self._unknown_places = Places(max(1, limits.max_in_progress // 2), limits.max_in_progress_per_address)
        self._unknown = _Budget(clock, limits.max_refusals * limits.unknown_addresses, limits.refusal_seconds)
        self._budgets: LRUCache[str, _Budget] = LRUCache(MAX_ADDRESSES)
        self._known: TTLCache[str, None] = TTLCache(MAX_ADDRESSES, KNOWN_SECONDS, clock.seconds)

    @contextmanager
    def waiting(self, address: str) -> Iterator[None]:
        """Hold the place of a request from ``address`` that waits for a validation, its own or that of another request."""
        places = self._places if address in self._known else self._unknown_places
        retry = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        try:
            place = places.take(address)
            place.__enter__()
        except ShareTaken:
            text = f"{places.per_owner} tokens from this client address are being validated: try again later."
            raise ApiError(429, text, retry) from None
        except AllTaken:
            raise ApiError(503, f"{places.total} tokens are being validated: try again later.", retry) from None
        try:
            yield
        finally:
            place.__exit__(None, None, None)

    def spend(self, address: str) -> None:
        """Pay for a validation in case the token is refused; :class:`ApiError` 429 if the budget is exhausted."""
        budgets = [self._budget(address)] if address in self._known else [self._budget(address), self._unknown]
        wait = max(budget.wait_seconds() for budget in budgets)
        if wait > 0:
            raise ApiError(
                429,
                "Too many tokens were refused: try again later, with a valid token.",
                {"Retry-After": str(math.ceil(wait))},
            )
        for budget in budgets:
            budget.spend()

    def accepted(self, address: str) -> None:
        """Take back what was paid for a token that turned out to be valid, and remember the address."""
        self._budget(address).refund()
        if address not in self._known:
            self._unknown.refund()
        self._known[address] = None

    def _budget(self, address: str) -> _Budget:
        budget = self._budgets.get(address)
        if budget is None:
            budget = _Budget(self._clock, self._limits.max_refusals, self._limits.refusal_seconds)
            self._budgets[address] = budget
        return budget
