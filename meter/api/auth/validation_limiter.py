"""Limits on validations: how many tokens Keystone is asked about, for each client address and in total."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cachetools import TTLCache
from twisted.internet.interfaces import IReactorTime

from meter.api.budget import MAX_ADDRESSES
from meter.api.budget import AddressBudgets
from meter.api.budget import Budget
from meter.api.errors import ApiError
from meter.api.fair_share import AllTaken
from meter.api.fair_share import Places
from meter.api.fair_share import ShareTaken

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


class ValidationLimiter:
    """Admits requests to validation by ``limits``; what it refuses is :class:`ApiError` 429 or 503 with ``Retry-After``."""

    def __init__(self, clock: IReactorTime, limits: ValidationLimits | None = None) -> None:
        limits = limits or ValidationLimits()
        self._places = Places(limits.max_in_progress, limits.max_in_progress_per_address)
        self._unknown_places = Places(max(1, limits.max_in_progress // 2), limits.max_in_progress_per_address)
        self._unknown = Budget(clock, limits.max_refusals * limits.unknown_addresses, limits.refusal_seconds)
        self._budgets = AddressBudgets(clock, limits.max_refusals, limits.refusal_seconds)
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
        budgets = [self._budgets.of(address)] if address in self._known else [self._budgets.of(address), self._unknown]
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
        self._budgets.of(address).refund()
        if address not in self._known:
            self._unknown.refund()
        self._known[address] = None
