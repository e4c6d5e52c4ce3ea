"""Subscriptions of the collector, each with the queue of what waits while there are too many dead letters."""

from __future__ import annotations

from dataclasses import replace

from twisted.application.service import IService

from meter.bus.local import LocalBus
from meter.daemon.services import StagedService
from meter.interfaces import IBus
from meter.interfaces import Receiver
from meter.interfaces import Subscription
from meter.taps.daemon import Daemon


def subscribed(daemon: Daemon, bus: IBus, subscription: Subscription, receive: Receiver) -> IService:
    """Return a service that also consumes what waits while the queue of dead letters is full: one delivery at a time.

    The in-process bus has no queue of dead letters that can be full, and no queues in which something could wait.
    """
    if isinstance(bus, LocalBus):
        return bus.subscribe(subscription, receive)
    waiting = f"{subscription.queue}.waiting"
    both = StagedService(daemon.reactor)
    bus.subscribe(replace(subscription, waiting_queue=waiting), receive).setServiceParent(both)
    bus.subscribe(Subscription(queue=waiting, prefetch=1), receive).setServiceParent(both)
    return both
