"""A budget per service: how often it may be asked, by how many at once, and when it is left alone.

A service that is down, or that asks for a pause, costs nobody else anything: its requests fail at once meanwhile.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.defer import DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from meter.daemon.services import sleep
from meter.http.exchange import HttpClient
from meter.http.exchange import HttpRequest
from meter.http.exchange import HttpResponse
from meter.http.exchange import ResponseTimedOut
from meter.http.interfaces import IHttpClient
from meter.interfaces import Unavailable

TOO_MANY_REQUESTS = 429
NOT_IMPLEMENTED = 501
"""Not implemented: the only status from 500 on that is no failure of the service."""
JITTER = 0.1
"""How much longer than the rate asks for a gap between two requests may be, at random."""

LONGEST_HOLD_SECONDS = 3600.0
"""A service may ask for a longer pause; it is asked again after this."""

LONGEST_WAIT_SECONDS = 5.0
"""A request waits if the service is due to be tried again within this many seconds, or a tenth of ``breaker_seconds``."""


class LeftAlone(Unavailable):
    """A request was not sent, because its service is left alone."""


def _is_failure(answer: HttpResponse) -> bool:
    return answer.status >= 500 and answer.status != NOT_IMPLEMENTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one service may be asked.

    ``requests_per_second`` is never exceeded, whatever the reason of a request. ``attempts`` is how often a question that changes nothing is asked when the answer is a failure of the service.
    After ``breaker_failures`` failures in a row the service is left alone for ``breaker_seconds``, then asked once.
    ``longest_pause_seconds`` is how long a request waits for a service that asks for it (Retry-After).
    """

    requests_per_second: float = 20.0
    in_flight: int = 4
    timeout_seconds: float = 30.0
    attempts: int = 3
    breaker_failures: int = 5
    breaker_seconds: float = 60.0
    longest_pause_seconds: float = 30.0

    def seconds_for(self, requests: int) -> float:
        """Return how long so many requests take on average when nothing but their rate holds them back."""
        return requests * (1 + JITTER / 2) / self.requests_per_second


class IRequestMetrics(Protocol):
    """Takes note of what becomes of requests: :class:`meter.daemon.metrics.RequestMetrics`."""

    def waited(self, service: str, seconds: float) -> None:
        """Take the time that a request waited."""

    def sent(self, service: str) -> None:
        """Note that a request was sent."""

    def ended(self, service: str, outcome: str, seconds: float) -> None:
        """Note how it ended."""

    def held(self, service: str) -> None:
        """Note that a request was not sent."""

    def opened(self, service: str, open_: bool) -> None:
        """Note whether the service is left alone."""


class NullRequestMetrics:
    """Takes note of nothing."""

    def waited(self, service: str, seconds: float) -> None:
        """Ignore it."""

    def sent(self, service: str) -> None:
        """Ignore it."""

    def ended(self, service: str, outcome: str, seconds: float) -> None:
        """Ignore it."""

    def held(self, service: str) -> None:
        """Ignore it."""

    def opened(self, service: str, open_: bool) -> None:
        """Ignore it."""


class Budget:
    """Lets the requests to one service go out within ``limits``."""

    _log = Logger()

    def __init__(
        self,
        service: str,
        http: HttpClient,
        limits: Limits,
        clock: IReactorTime,
        account: IRequestMetrics,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._service = service
        self._http = http
        self._limits = limits
        self._clock = clock
        self._account = account
        self._rng = rng
        self._places = DeferredSemaphore(limits.in_flight)
        self._next_at = 0.0
        self._failures = 0
        self._closed_until = 0.0
        self._why_closed = ""
        self._trying = False
        self._waiting_for_trial: list[Deferred[None]] = []

    async def exchange(self, request: HttpRequest) -> HttpResponse:
        """Return an answer of any status; raise :class:`Unavailable` where there is none, or the service is left alone."""
        attempts = self._limits.attempts if request.method in ("GET", "HEAD") else 1
        for attempt in range(1, attempts + 1):
            try:
                answer = await self._within_budget(request)
            except (LeftAlone, ResponseTimedOut):
                raise  # it has cost enough
            except Unavailable:
                if attempt == attempts:
                    raise
                await sleep(self._clock, self._pause(attempt))
                continue
            if answer.status != TOO_MANY_REQUESTS and not _is_failure(answer):
                return answer
            wish = answer.retry_after_seconds()
            if wish is not None and wish > self._limits.longest_pause_seconds:
                self._leave_alone(wish, f"{request}: {answer.status}, Retry-After: {wish:g} s")
                return answer
            if attempt == attempts:
                return answer
            pause = self._pause(attempt) if wish is None else wish
            self._next_at = max(self._next_at, self._clock.seconds() + pause)  # for everybody who asks this service
        raise AssertionError("the last attempt returns or raises")

    def _pause(self, attempt: int) -> float:
        return (0.5 + self._rng()) * 0.5 * 2.0**attempt

    async def _admitted(self) -> bool:
        """Return when the service may be asked, and whether this request is the one that tries it.

        Raise :class:`LeftAlone` while it is left alone for longer. All others wait until it is known what became of the
        trial, so that a service that works again costs nobody a cycle.
        """
        longest_wait = min(LONGEST_WAIT_SECONDS, self._limits.breaker_seconds / 10)
        while self._closed_until:
            left = self._closed_until - self._clock.seconds()
            if left > longest_wait:
                self._account.held(self._service)
                raise LeftAlone(
                    f"{self._service} is left alone for {math.ceil(left)} s more, because of {self._why_closed}"
                )
            if left > 0:
                await sleep(self._clock, left)
            elif self._trying:
                ended: Deferred[None] = Deferred(self._waiting_for_trial.remove)
                self._waiting_for_trial.append(ended)
                await ended
            else:
                self._trying = True
                return True
        return False

    def _trial_ended(self) -> None:
        self._trying = False
        waiting, self._waiting_for_trial = self._waiting_for_trial, []
        for each in waiting:
            each.callback(None)

    async def _within_budget(self, request: HttpRequest) -> HttpResponse:
        asked_at = self._clock.seconds()
        while True:
            trying = await self._admitted()
            try:
                await self._places.acquire()
                try:
                    await self._turn()
                    if self._closed_until and not trying:
                        continue  # it has broken down while this one waited
                    self._account.waited(self._service, self._clock.seconds() - asked_at)
                    return await self._send(request)
                finally:
                    self._places.release()
            finally:
                if trying:
                    self._trial_ended()

    async def _turn(self) -> None:
        """Wait for a moment that keeps to the rate; the jitter keeps agents out of step with each other and only slows down."""
        now = self._clock.seconds()
        turn = max(now, self._next_at)
        self._next_at = turn + (1 + JITTER * self._rng()) / self._limits.requests_per_second
        if turn > now:
            await sleep(self._clock, turn - now)

    async def _send(self, request: HttpRequest) -> HttpResponse:
        began = self._clock.seconds()
        outcome = "failed"
        self._account.sent(self._service)
        try:
            answer = await self._http.exchange(request, self._limits.timeout_seconds)
            if _is_failure(answer):
                self._failed(f"{request}: {answer.status}")
            else:
                outcome = "ok" if answer.status < 400 else "refused"
                self._works()
            return answer
        except Unavailable as error:
            outcome = "timeout" if isinstance(error, ResponseTimedOut) else "failed"
            self._failed(str(error))
            raise
        finally:
            self._account.ended(self._service, outcome, self._clock.seconds() - began)

    def _works(self) -> None:
        self._failures = 0
        if self._closed_until:
            self._closed_until = 0.0
            self._account.opened(self._service, False)
            self._log.info("{service} is asked again: it works", service=self._service)

    def _failed(self, reason: str) -> None:
        self._failures += 1
        if self._failures >= self._limits.breaker_failures:
            self._leave_alone(self._limits.breaker_seconds, f"{self._failures} failures in a row, the last: {reason}")

    def _leave_alone(self, seconds: float, reason: str) -> None:
        if not self._closed_until:
            self._log.warn("{service} is left alone: {reason}", service=self._service, reason=reason)
            self._account.opened(self._service, True)
        self._closed_until = self._clock.seconds() + min(seconds, LONGEST_HOLD_SECONDS)
        self._why_closed = reason


@implementer(IHttpClient)
class LimitedHttpClient:
    """All that this process asks over HTTP, each service within a budget of its own.

    ``by_service`` has the limits of services that differ from ``limits``.
    """

    def __init__(
        self,
        http: HttpClient,
        clock: IReactorTime,
        *,
        limits: Limits | None = None,
        by_service: Mapping[str, Limits] | None = None,
        account: IRequestMetrics | None = None,
    ) -> None:
        self._http = http
        self._clock = clock
        self._limits = limits or Limits()
        self._by_service = by_service or {}
        self._account = account or NullRequestMetrics()
        self._budgets: dict[str, Budget] = {}

    async def exchange(self, service: str, request: HttpRequest) -> HttpResponse:
        """Return the answer of ``service``, whatever its status; :class:`Unavailable` where there is none."""
        if service not in self._budgets:
            limits = self._limits_of(service)
            self._budgets[service] = Budget(service, self._http, limits, self._clock, self._account)
        return await self._budgets[service].exchange(request)

    def seconds_for(self, service: str, requests: int) -> float:
        """Return how long the budget of ``service`` takes for so many requests."""
        return self._limits_of(service).seconds_for(requests)

    def _limits_of(self, service: str) -> Limits:
        return self._by_service.get(service, self._limits)
