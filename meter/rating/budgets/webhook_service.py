"""The service that delivers webhooks while the collector runs, and says in ``/readyz`` if that does not work."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Protocol

from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from meter.daemon.services import Periodic
from meter.daemon.services import wall_seconds
from meter.interfaces import IDependency
from meter.interfaces import Readiness
from meter.interfaces import Unavailable
from meter.rating.budgets.budget_store import IBudgetStore
from meter.rating.budgets.budget_store import WebhookQueue
from meter.rating.budgets.webhook_delivery import WebhookDelivery
from meter.sample import utc_text

INTERVAL_SECONDS = 30.0
"""How often the store is asked for webhooks that are due; it is also the shortest pause between two attempts."""

MAX_WAIT = timedelta(hours=1)
"""The collector is degraded while a webhook has waited longer than this."""


class IQueueMetrics(Protocol):
    """Shows what waits: :class:`meter.daemon.budget_metrics.WebhookMetrics`."""

    def queued(self, queues: Mapping[str, tuple[int, int]]) -> None:
        """Record how many webhooks wait and have failed, by target."""


class NullQueueMetrics:
    """Metrics that record nothing."""

    def queued(self, queues: Mapping[str, tuple[int, int]]) -> None:
        """Do nothing."""


@implementer(IDependency)
class WebhookService(Periodic):
    """Runs ``delivery`` at intervals. Each collector does: attempts are claimed in ``store``."""

    _log = Logger()

    def __init__(
        self,
        store: IBudgetStore,
        delivery: WebhookDelivery,
        clock: IReactorTime,
        metrics: IQueueMetrics | None = None,
        *,
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        super().__init__(self.deliver, interval_seconds, clock, name="webhooks", first_after=5.0)
        self._store = store
        self._delivery = delivery
        self._metrics = metrics or NullQueueMetrics()
        self._queues: Sequence[WebhookQueue] = ()

    def stopService(self) -> Deferred[None] | None:
        """Abandon the requests in progress, whose webhooks are sent again later; fire when all has ended."""
        stopped = super().stopService()
        self._delivery.abandon()
        return stopped

    async def deliver(self) -> None:
        """Attempt what is due, and look at what waits; nothing happens while the store is unavailable."""
        try:
            await self._delivery.run(self._now())
            self._queues = await self._store.webhook_queues()
        except Unavailable as error:
            self._log.debug("webhooks cannot be delivered now: {reason}", reason=str(error))
            return
        except CancelledError:  # the service stops
            return
        self._metrics.queued({each.target: (each.waiting, each.failed) for each in self._queues})

    def readiness(self) -> Readiness:
        """Return which targets do not accept their webhooks: without them the collector is degraded."""
        problems = [text for each in self._queues if (text := problem_of(each, self._now()))]
        if problems:
            return Readiness("webhooks", False, "; ".join(problems), needed=False)
        waiting = sum(each.waiting for each in self._queues)
        return Readiness("webhooks", True, f"{waiting} waiting")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(wall_seconds(self._clock), UTC)


def problem_of(queue: WebhookQueue, now: datetime) -> str:
    """Return what an operator has to look at in ``queue``; "" if nothing."""
    texts = []
    if queue.failed:
        texts.append(f"{queue.failed} failed (meter-rate webhooks list)")
    if queue.waiting_since is not None and now - queue.waiting_since > MAX_WAIT:
        texts.append(f"{queue.waiting} waiting since {utc_text(queue.waiting_since)}")
    if not texts:
        return ""
    return f"{queue.target}: {', '.join(texts)}" + (f": {queue.last_error}" if queue.last_error else "")
