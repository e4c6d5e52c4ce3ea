"""Limits on validations: how many tokens Keystone is asked about, for each client address and in total."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import ExitStack
from contextlib import contextmanager
from dataclasses import dataclass

from cachetools import TTLCache
from twisted.internet.interfaces import IReactorTime

from meter.api.budget import MAX_ADDRESSES
from meter.api.budget import AddressBudgets
from meter.api.budget import Budget
from meter.api.errors import TryLater
from meter.api.fair_share import Places

KNOWN_SECONDS = 3600.0
"""How long an address that has sent a valid token is known."""

UNKNOWN = "client addresses without a valid token in the last hour"
WAITING = "requests that wait for the validation of a token"
REFUSED = "tokens"


@dataclass(frozen=True, slots=True)
class ValidationLimits:
    """Limits on validations.

    At most ``max_in_progress`` requests wait for one, ``max_in_progress_per_address`` from one client address. Addresses
    that have sent no valid token within an hour have at most half of them in total.

    Refused tokens are paid from a budget for each address: ``max_refusals`` of them at once, and after that as many again
    within ``refusal_seconds``, since it is refilled continuously. All addresses that are not known have another budget
    together, ``unknown_addresses`` times as large.
    """

    max_in_progress: int = 100
    max_in_progress_per_address: int = 25
    max_refusals: int = 20
    refusal_seconds: float = 20.0
    unknown_addresses: int = 20


class ValidationLimiter:
    """Admits requests to validation by ``limits``; what it refuses is :class:`TryLater` 429 or 503.

    ``what`` and ``refused`` are words of its errors: for what waits, and for what was not valid.
    """

    def __init__(
        self,
        clock: IReactorTime,
        limits: ValidationLimits | None = None,
        *,
        what: str = WAITING,
        refused: str = REFUSED,
    ) -> None:
        limits = limits or ValidationLimits()
        self._refused = refused
        self._places = Places(
            limits.max_in_progress, limits.max_in_progress_per_address, what=what, owner="one client address"
        )
        self._unknown_places = Places(max(1, limits.max_in_progress // 2), what=what, everybody=f"all {UNKNOWN}")
        self._unknown = Budget(clock, limits.max_refusals * limits.unknown_addresses, limits.refusal_seconds)
        self._budgets = AddressBudgets(clock, limits.max_refusals, limits.refusal_seconds)
        self._known: TTLCache[str, None] = TTLCache(MAX_ADDRESSES, KNOWN_SECONDS, clock.seconds)

    @contextmanager
    def waiting(self, address: str) -> Iterator[None]:
        """Hold the place of a request from ``address`` that waits for a validation, its own or that of another request."""
        with ExitStack() as held:
            held.enter_context(self._places.take(address))
            if address not in self._known:
                held.enter_context(self._unknown_places.take(address))
            yield

    def spend(self, address: str) -> Sequence[Budget]:
        """Pay for a validation in case the token is refused; :class:`TryLater` 429 if a budget is exhausted.

        Returns what :meth:`refund` takes back.
        """
        payers = {"this client address": self._budgets.of(address)}
        if address not in self._known:
            payers[UNKNOWN] = self._unknown
        payer, wait = max(
            ((payer, budget.wait_seconds()) for payer, budget in payers.items()), key=lambda each: each[1]
        )
        if wait > 0:
            text = f"Too many {self._refused} from {payer} were not valid, or given up during the validation"
            raise TryLater(429, text, math.ceil(wait))
        for budget in payers.values():
            budget.spend()
        return tuple(payers.values())

    def refund(self, paid: Sequence[Budget]) -> None:
        """Take back what was paid for a token that was not refused."""
        for budget in paid:
            budget.refund()

    def accepted(self, address: str, paid: Sequence[Budget]) -> None:
        """Take back what was paid for a token that turned out to be valid, and remember the address."""
        self.refund(paid)
        self._known[address] = None
