"""A rate limiter and a circuit breaker per service.

Requests to a service that is down, or that asks for a long pause, fail at once while its circuit is open; other
services are not affected.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from meter.daemon.locks import Semaphore
from meter.daemon.services import sleep
from meter.http.client import HttpClient
from meter.http.client import HttpRequest
from meter.http.client import HttpResponse
from meter.http.client import ResponseTimedOut
from meter.http.interfaces import IHttpClient
from meter.interfaces import Unavailable

TOO_MANY_REQUESTS = 429
NOT_IMPLEMENTED = 501
"""The only status from 500 on that does not count as a failure of the service."""
JITTER = 0.1
"""The gap between two requests is longer than the rate requires, by a random fraction of up to this much."""

MAX_OPEN_SECONDS = 3600.0
"""How long a circuit stays open at most, whatever Retry-After says."""

MAX_WAIT_FOR_TRIAL_SECONDS = 5.0
"""A request waits if the trial request is due within this time, or within a tenth of ``breaker_seconds`` if less."""


class CircuitOpen(Unavailable):
    """A request that was not sent, because the circuit breaker of its service is open."""


def _is_failure(response: HttpResponse) -> bool:
    return response.status >= 500 and response.status != NOT_IMPLEMENTED


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLimits:
    """The limits of one service.

    - ``requests_per_second`` and ``max_in_flight`` bound all requests, retries included.
    - ``attempts``: how often a GET or HEAD request is sent while the service fails.
    - ``breaker_failures`` consecutive failures open the circuit for ``breaker_seconds``; one trial request follows.
    - ``max_retry_after_seconds``: the longest Retry-After that requests wait for; a longer one opens the circuit.
    """

    requests_per_second: float = 20.0
    max_in_flight: int = 4
    timeout_seconds: float = 30.0
    attempts: int = 3
    breaker_failures: int = 5
    breaker_seconds: float = 60.0
    max_retry_after_seconds: float = 30.0

    def seconds_for(self, requests: int) -> float:
        """Return how many seconds the rate limit needs on average for ``requests`` requests."""
        return requests * (1 + JITTER / 2) / self.requests_per_second


class IRequestMetrics(Protocol):
    """Metrics of requests: :class:`meter.daemon.request_metrics.RequestMetrics`."""

    def throttled(self, service: str, seconds: float) -> None:
        """Add the seconds that a request waited before it was sent."""

    def sent(self, service: str) -> None:
        """Count a request that was sent."""

    def ended(self, service: str, outcome: str, seconds: float) -> None:
        """Count the end of a request that was sent."""

    def rejected(self, service: str) -> None:
        """Count a request that was not sent because the circuit is open."""

    def circuit_changed(self, service: str, is_open: bool) -> None:
        """Record whether the circuit is open."""


class NullRequestMetrics:
    """Metrics that record nothing."""

    def throttled(self, service: str, seconds: float) -> None:
        """Do nothing."""

    def sent(self, service: str) -> None:
        """Do nothing."""

    def ended(self, service: str, outcome: str, seconds: float) -> None:
        """Do nothing."""

    def rejected(self, service: str) -> None:
        """Do nothing."""

    def circuit_changed(self, service: str, is_open: bool) -> None:
        """Do nothing."""


class ServiceLimiter:
    """Sends the requests to one service within ``limits``."""

    _log = Logger()

    def __init__(
        self,
        service: str,
        client: HttpClient,
        limits: ServiceLimits,
        clock: IReactorTime,
        metrics: IRequestMetrics,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._service = service
        self._client = client
        self._limits = limits
        self._clock = clock
        self._metrics = metrics
        self._rng = rng
        self._slots = Semaphore(limits.max_in_flight)
        self._next_at = 0.0
        self._failures = 0
        self._open_until = 0.0
        self._open_reason = ""
        self._half_open = False
        self._waiting_for_trial: list[Deferred[None]] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Return the response, whatever its status; raise :class:`Unavailable`, or :class:`CircuitOpen`."""
        attempts = self._limits.attempts if request.method in ("GET", "HEAD") else 1
        for attempt in range(1, attempts + 1):
            try:
                response = await self._send_within_limits(request)
            except (CircuitOpen, ResponseTimedOut):
                raise  # a retry would cost the caller a second time limit
            except Unavailable:
                if attempt == attempts:
                    raise
                await sleep(self._clock, self._backoff(attempt))
                continue
            if response.status != TOO_MANY_REQUESTS and not _is_failure(response):
                return response
            retry_after = response.retry_after_seconds()
            if retry_after is not None and retry_after > self._limits.max_retry_after_seconds:
                self._open_circuit(retry_after, f"{request}: {response.status}, Retry-After: {retry_after:g} s")
                return response
            if attempt == attempts:
                return response
            pause = self._backoff(attempt) if retry_after is None else retry_after
            self._next_at = max(self._next_at, self._clock.seconds() + pause)  # for all requests to this service
        raise AssertionError("the last attempt returns or raises")

    def _backoff(self, attempt: int) -> float:
        return (0.5 + self._rng()) * 0.5 * 2.0**attempt

    async def _check_circuit(self) -> bool:
        """Return once the circuit lets this request pass; true if it is the trial request of a half-open circuit.

        Raise :class:`CircuitOpen` unless the trial is due soon. Other requests wait for the outcome of the trial, so
        that a service that has recovered fails none of them.
        """
        max_wait = min(MAX_WAIT_FOR_TRIAL_SECONDS, self._limits.breaker_seconds / 10)
        while self._open_until:
            left = self._open_until - self._clock.seconds()
            if left > max_wait:
                self._metrics.rejected(self._service)
                raise CircuitOpen(
                    f"circuit breaker for {self._service} is open for another {math.ceil(left)} s: {self._open_reason}"
                )
            if left > 0:
                await sleep(self._clock, left)
            elif self._half_open:
                trial_ended: Deferred[None] = Deferred(self._waiting_for_trial.remove)
                self._waiting_for_trial.append(trial_ended)
                await trial_ended
            else:
                self._half_open = True
                return True
        return False

    def _end_trial(self) -> None:
        self._half_open = False
        waiting, self._waiting_for_trial = self._waiting_for_trial, []
        for each in waiting:
            each.callback(None)

    async def _send_within_limits(self, request: HttpRequest) -> HttpResponse:
        arrived_at = self._clock.seconds()
        while True:
            is_trial = await self._check_circuit()
            try:
                await self._slots.acquire()
                try:
                    await self._throttle()
                    if self._open_until and not is_trial:
                        continue  # the circuit opened while this request waited
                    self._metrics.throttled(self._service, self._clock.seconds() - arrived_at)
                    return await self._send_once(request)
                finally:
                    self._slots.release()
            finally:
                if is_trial:
                    self._end_trial()

    async def _throttle(self) -> None:
        """Wait until the rate limit permits a request. The jitter only lengthens the gaps, and prevents agents from sending at the same time."""
        now = self._clock.seconds()
        send_at = max(now, self._next_at)
        self._next_at = send_at + (1 + JITTER * self._rng()) / self._limits.requests_per_second
        if send_at > now:
            await sleep(self._clock, send_at - now)

    async def _send_once(self, request: HttpRequest) -> HttpResponse:
        sent_at = self._clock.seconds()
        outcome = "failed"
        self._metrics.sent(self._service)
        try:
            response = await self._client.send(request, self._limits.timeout_seconds)
            if _is_failure(response):
                self._record_failure(f"{request}: {response.status}")
            else:
                outcome = "ok" if response.status < 400 else "refused"
                self._record_success()
            return response
        except Unavailable as error:
            outcome = "timeout" if isinstance(error, ResponseTimedOut) else "failed"
            self._record_failure(str(error))
            raise
        finally:
            self._metrics.ended(self._service, outcome, self._clock.seconds() - sent_at)

    def _record_success(self) -> None:
        self._failures = 0
        if self._open_until:
            self._open_until = 0.0
            self._metrics.circuit_changed(self._service, False)
            self._log.info("circuit breaker for {service} is closed: the service works again", service=self._service)

    def _record_failure(self, reason: str) -> None:
        self._failures += 1
        if self._failures >= self._limits.breaker_failures:
            self._open_circuit(
                self._limits.breaker_seconds, f"{self._failures} consecutive failures, the last: {reason}"
            )

    def _open_circuit(self, seconds: float, reason: str) -> None:
        if not self._open_until:
            self._log.warn("circuit breaker for {service} is open: {reason}", service=self._service, reason=reason)
            self._metrics.circuit_changed(self._service, True)
        self._open_until = self._clock.seconds() + min(seconds, MAX_OPEN_SECONDS)
        self._open_reason = reason


@implementer(IHttpClient)
class LimitedHttpClient:
    """The HTTP client of a daemon: each service has a :class:`ServiceLimiter` of its own.

    ``by_service`` has the limits of services that differ from ``limits``.
    """

    def __init__(
        self,
        client: HttpClient,
        clock: IReactorTime,
        *,
        limits: ServiceLimits | None = None,
        by_service: Mapping[str, ServiceLimits] | None = None,
        metrics: IRequestMetrics | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._limits = limits or ServiceLimits()
        self._by_service = by_service or {}
        self._metrics = metrics or NullRequestMetrics()
        self._limiters: dict[str, ServiceLimiter] = {}

    async def send(self, service: str, request: HttpRequest) -> HttpResponse:
        """Return the response of ``service``, whatever its status; raise :class:`Unavailable`."""
        if service not in self._limiters:
            limits = self._limits_of(service)
            self._limiters[service] = ServiceLimiter(service, self._client, limits, self._clock, self._metrics)
        return await self._limiters[service].send(request)

    def seconds_for(self, service: str, requests: int) -> float:
        """Return how many seconds the rate limit of ``service`` needs for ``requests`` requests."""
        return self._limits_of(service).seconds_for(requests)

    def _limits_of(self, service: str) -> ServiceLimits:
        return self._by_service.get(service, self._limits)
