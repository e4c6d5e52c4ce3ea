"""Delivery of webhooks: signed POST requests to the configured targets, repeated until a target accepts them.

Targets do not wait for each other. Any number of processes may deliver at the same time: each claims the message of its next
attempt. A process that is killed between an attempt and storing its outcome leaves a message that is sent again, with the same id.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any
from typing import Protocol

from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.defer import DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter import __version__
from meter.daemon.services import wall_seconds
from meter.http import ErrorResponse
from meter.http import HttpRequest
from meter.http import HttpResponse
from meter.interfaces import Unavailable
from meter.rating.budgets.budget_store import IBudgetStore
from meter.rating.budgets.budget_store import WaitingWebhook
from meter.rating.budgets.webhook_signature import signature_headers

RETRY_FOR = timedelta(days=3)
"""How long a webhook is attempted."""

FIRST_PAUSE = timedelta(seconds=30)
MAX_PAUSE = timedelta(hours=6)

TIMEOUT_SECONDS = 15.0
MAX_RESPONSE_BYTES = 64 * 1024
"""Limits of one attempt. Nothing in the body of a response matters."""

CLAIM = timedelta(minutes=2)
"""After this time an attempt without an outcome is begun again: its process was killed. It is more than an attempt can last."""

RUN_SECONDS = 30.0
"""After this time a run begins no more attempts: a slow target does not delay the next run, and with it the other targets."""

MAX_ERROR = 300
"""How many characters of an error are stored."""

GONE = 410


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookTarget:
    """A configured target. ``keys`` are those of :func:`~meter.rating.budgets.webhook_signature.webhook_keys`.

    Its ``repr`` has neither them nor the URL, which can have a secret in its path.
    """

    name: str
    url: str = field(repr=False)
    keys: Sequence[bytes] = field(repr=False)
    client: IWebhookClient = field(repr=False)


class IWebhookClient(Protocol):
    """What sends requests: :class:`meter.http.HttpClient`."""

    async def send(self, request: HttpRequest, timeout_seconds: float | None = None) -> HttpResponse:
        """Return the response, whatever its status; raise ``Unavailable`` without one."""


class IWebhookMetrics(Protocol):
    """Counts attempts: :class:`meter.daemon.budget_metrics.WebhookMetrics`."""

    def attempted(self, target: str, outcome: str) -> None:
        """Count an attempt: delivered, retry (it failed and is repeated) or failed (it was the last)."""


class NullWebhookMetrics:
    """Metrics that record nothing."""

    def attempted(self, target: str, outcome: str) -> None:
        """Do nothing."""


class WebhookDelivery:
    """Sends what waits in ``store`` to ``targets``, by name; :class:`~meter.rating.budgets.webhook_service.WebhookService` runs it."""

    name = "webhooks"
    _log = Logger()

    def __init__(
        self,
        store: IBudgetStore,
        targets: Mapping[str, WebhookTarget],
        clock: IReactorTime,
        *,
        metrics: IWebhookMetrics | None = None,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._targets = targets
        self._clock = clock
        self._metrics = metrics or NullWebhookMetrics()
        self._rng = rng
        self._failing: set[str] = set()
        self._run: Deferred[Any] | None = None
        self._abandoned = False

    async def run(self, now: datetime) -> None:
        """Attempt each webhook that is due, up to the first failure of its target; raise ``Unavailable`` while the store is."""
        end = self._clock.seconds() + RUN_SECONDS
        self._abandoned = False
        targets = await self._store.due_targets(now)
        runs = [Deferred.fromCoroutine(self._deliver_to(name, end)) for name in targets]
        self._run = DeferredList(runs, consumeErrors=True)
        try:
            outcomes: list[tuple[bool, Any]] = await self._run
        finally:
            self._run = None
        for succeeded, failure in outcomes:
            if not succeeded:
                failure.raiseException()

    def abandon(self) -> None:
        """End the run in progress: ``run`` raises ``CancelledError``. Requests without a response are repeated later."""
        self._abandoned = True
        if self._run is not None:
            self._run.cancel()

    async def _deliver_to(self, name: str, end: float) -> None:
        while self._clock.seconds() < end and not self._abandoned:
            now = self._now()
            webhook = await self._store.claim(name, now, now + CLAIM)
            if webhook is None or not await self._attempt(webhook):
                return

    async def _attempt(self, webhook: WaitingWebhook) -> bool:
        """Send ``webhook`` once and store the outcome; return whether it was delivered."""
        try:
            await self._send(webhook)
        except Unavailable as error:
            await self._failed(webhook, error)
            return False
        await self._store.delivered(webhook.id)
        self._metrics.attempted(webhook.target, "delivered")
        if webhook.target in self._failing:
            self._failing.discard(webhook.target)
            self._log.info("webhooks are delivered to {target} again", target=webhook.target)
        return True

    async def _send(self, webhook: WaitingWebhook) -> None:
        target = self._targets.get(webhook.target)
        if target is None:
            raise Unavailable(f"[rating] webhooks has no target with the name {webhook.target!r}")
        headers = signature_headers(target.keys, webhook.id, int(wall_seconds(self._clock)), webhook.body)
        headers |= {"content-type": "application/json", "user-agent": f"Meter/{__version__}"}
        request = HttpRequest(method="POST", url=target.url, headers=headers, body=webhook.body)
        try:
            response = await target.client.send(request, TIMEOUT_SECONDS)
            if 300 <= response.status < 400:
                raise Unavailable(
                    f"redirected ({response.status}): redirects are not followed, configure the final URL"
                )
            response.checked()
        except Unavailable as error:
            if self._abandoned:  # Twisted's agent wraps the cancellation
                raise CancelledError from None
            # A URL can have a secret in its path or query.
            error.args = (str(error).replace(str(request), "POST").replace(target.url, "the URL"),)
            raise

    async def _failed(self, webhook: WaitingWebhook, error: Unavailable) -> None:
        now = self._now()
        text = " ".join(str(error).split())
        is_last = now >= webhook.retry_until or (isinstance(error, ErrorResponse) and error.status == GONE)
        next_attempt_at = None if is_last else now + self.pause_after(webhook.attempts, error)
        await self._store.not_delivered(webhook.id, text[:MAX_ERROR], next_attempt_at)
        self._metrics.attempted(webhook.target, "failed" if is_last else "retry")
        if is_last:
            self._log.warn(
                "the webhook {id} to {target} has failed, and is not sent again, after {attempts} attempts: {reason}",
                id=webhook.id,
                target=webhook.target,
                attempts=webhook.attempts,
                reason=text,
            )
        elif webhook.target not in self._failing:
            self._failing.add(webhook.target)
            self._log.warn("webhooks to {target} fail, and are repeated: {reason}", target=webhook.target, reason=text)

    def pause_after(self, attempts: int, error: Unavailable) -> timedelta:
        """Return the pause after so many attempts: twice as long each time, cut by up to half, and at least Retry-After."""
        longest = min(MAX_PAUSE, FIRST_PAUSE * int(2 ** min(attempts - 1, 30)))
        pause: timedelta = longest * (0.5 + self._rng() / 2)
        asked = error.retry_after_seconds if isinstance(error, ErrorResponse) else None
        return pause if asked is None else max(pause, min(MAX_PAUSE, timedelta(seconds=min(asked, 1e6))))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(wall_seconds(self._clock), UTC)
