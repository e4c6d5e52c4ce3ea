"""The collector's ear: notifications from the bus → listeners → signed samples on the bus → acknowledgement.

A notification is let go when every sample made from it is confirmed by the bus, or when it is safe among the dead
letters with the reason. One that no listener wants is counted by event type.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from fnmatch import translate
from functools import lru_cache
from typing import Any
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.defer import DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.python.reflect import safe_str

from meter.bus.batches import BATCH_SAMPLES
from meter.bus.dead_letter_publisher import DeadLetterPublisher
from meter.bus.masking import masked
from meter.collector.batcher import PublicationBatcher
from meter.collector.batcher import Unpublishable
from meter.collector.normalization.ignored_users import requester
from meter.collector.normalization.nova_times import FirstTimes
from meter.collector.normalization.nova_versioned import normalize
from meter.collector.normalization.repeated_actions import one_action
from meter.collector.notification_archive import Archive
from meter.interfaces import Binding
from meter.interfaces import Delivery
from meter.interfaces import IPublisher
from meter.interfaces import Subscription
from meter.interfaces import Topic
from meter.interfaces import Unavailable
from meter.message import BadMessage
from meter.message import Signer
from meter.message import open_envelope
from meter.notification import Notification
from meter.notification import notification as notification_of
from meter.notification import stable_ids
from meter.plugins.registry import Decision
from meter.sample import Sample
from meter.signature import BadSignature
from meter.signature import Keyring

NOTIFICATIONS_QUEUE = "meter.notifications"
"""Our own durable queue, so that nobody else's consumers miss anything."""

LONGEST_EVENT_TYPE = 255
"""Characters; what services send has at most 60."""

KNOWN_EVENT_TYPES = 1024
"""Event types whose listeners are remembered; others are matched again."""

MOST_SAMPLES = 10_000
"""Samples that one listener may make of one notification."""


class NotificationMetrics(Protocol):
    """Where notifications are counted; :mod:`meter.daemon.metrics` has the real one."""

    def notified(self, event_type: str, outcome: str) -> None:
        """Count a notification: ``sampled``, ``empty`` (wanted, but it gave no sample), ``unwanted``, ``ignored`` or ``dead``."""


@dataclass(frozen=True, slots=True)
class _Fault:
    """Why a notification is set aside, and on whose word."""

    kind: str
    reason: str
    listener: str | None = None


def _fault(error: Exception, listener: str) -> _Fault:
    if isinstance(error, Unpublishable):
        return _Fault("unpublishable", str(error))
    if isinstance(error, BadSignature):
        return _Fault("unsignable", str(error), listener)
    if isinstance(error, ValueError):
        return _Fault("misunderstood", safe_str(error), listener)
    return _Fault("listener", f"{type(error).__name__}: {safe_str(error)}", listener)


@dataclass(frozen=True, slots=True)
class _Part:
    """What one listener made of a notification, signed with one key."""

    listener: str
    messages: Sequence[Mapping[str, Any]]
    key_id: str


class NotificationConsumer:
    """Takes notifications: :meth:`receive` is a :data:`meter.interfaces.Receiver`.

    ``listeners`` are decisions of :mod:`meter.plugins.registry` that are active; ``topics`` are heard whoever wants them. A
    listener that raises or returns rubbish has the notification set aside; the samples of the others, and those that it
    yielded before a ``ValueError``, are published all the same. Samples of several notifications are gathered for
    ``batch_seconds`` by ``clock`` and share casts; without either each is cast at once. Nothing is made of requests of
    ``ignored_users``; what nobody wants goes into the ``archive``, if there is one. ``unit_name`` returns the name that a
    unit goes by here.
    """

    def __init__(
        self,
        listeners: Iterable[Decision],
        publisher: IPublisher,
        keys: Keyring,
        dead_letters: DeadLetterPublisher,
        *,
        source: str,
        account: NotificationMetrics,
        topics: Iterable[Topic] = (),
        clock: IReactorTime | None = None,
        batch_samples: int = BATCH_SAMPLES,
        batch_seconds: float = 0.0,
        most_samples: int = MOST_SAMPLES,
        archive: Archive | None = None,
        ignored_users: Iterable[str] = (),
        unit_name: Callable[[str], str] | None = None,
    ) -> None:
        self._listeners = [(listener, _matcher(listener.plugin.event_types)) for listener in listeners]
        self._topics = tuple(topics)
        self._gathering = PublicationBatcher(publisher, clock, batch_samples=batch_samples, batch_seconds=batch_seconds)
        self._keys = keys
        self._dead_letters = dead_letters
        self._source = source
        self._unit_name = unit_name
        self._account = account
        self._most_samples = most_samples
        self._first_times = FirstTimes()
        self._archive = archive
        self._ignored_users = frozenset(ignored_users)
        self._wanting = lru_cache(KNOWN_EVENT_TYPES)(self._match)

    def subscription(self, queue: str = NOTIFICATIONS_QUEUE, prefetch: int = 200) -> Subscription:
        """Return what to subscribe to: every topic, ours and the listeners', once."""
        wanted = (topic for listener, _ in self._listeners for topic in listener.plugin.topics)
        topics = dict.fromkeys((*self._topics, *wanted))
        return Subscription(
            queue=queue,
            bindings=tuple(Binding(topic.exchange, topic.routing_key) for topic in topics),
            prefetch=prefetch,
        )

    async def receive(self, delivery: Delivery) -> None:
        """Make and publish the samples of one notification; returns when nothing of it can be lost any more.

        Raises :class:`~meter.interfaces.Unavailable` when the bus did not confirm: the notification comes again, and
        gives the same samples with the same ids.
        """
        try:
            notification = self._first_times.applied(heard(delivery.body))
        except (ValueError, RecursionError) as error:
            await self._dead_letter(delivery, _Fault("undecodable", str(error)))
            self._account.notified("unknown", "dead")
            return
        if self._ignored_users and requester(notification) in self._ignored_users:
            self._account.notified(notification.event_type, "ignored")
            return
        parts: list[_Part] = []
        faults: list[_Fault] = []
        wanting = self._wanting(notification.event_type)
        for listener in wanting:
            part, fault = self._signed(listener, notification)
            if part is not None:
                parts.append(part)
            if fault is not None:
                faults.append(fault)
        faults += await self._publish(parts)
        for fault in faults:
            await self._dead_letter(delivery, fault, notification.event_type)
        outcome = "dead" if faults else "sampled" if parts else "empty" if wanting else "unwanted"
        if outcome == "unwanted" and self._archive is not None:
            await self._archive.keep(delivery, notification.event_type)
        self._account.notified(notification.event_type, outcome)

    def _match(self, event_type: str) -> tuple[Decision, ...]:
        return tuple(listener for listener, wants in self._listeners if wants.match(event_type))

    def _signed(self, listener: Decision, notification: Notification) -> tuple[_Part | None, _Fault | None]:
        """Return what one listener makes of a notification, signed, and what is wrong with it.

        Ids are given listener by listener: that one fails changes nothing about the samples of the others.
        """
        samples, fault = self._made(listener, notification)
        try:
            made = zip(stable_ids(notification, samples), samples, strict=True)
            kept = {id_: sample for id_, sample in made if listener.takes(sample.name)}
            if not kept:
                return None, fault
            key_id = self._keys.key_for(next(iter(kept.values())).timestamp).id
            signer = Signer(self._keys, self._source, unit_name=self._unit_name, may_differ=notification.may_differ)
            hidden = zip(kept, _without_secrets(kept.values()), strict=True)
            messages = [signer.message(sample, id_) for id_, sample in hidden]
            return _Part(listener.name, messages, key_id), fault
        except Exception as error:
            return None, _fault(error, listener.name)

    def _made(self, listener: Decision, notification: Notification) -> tuple[list[Sample], _Fault | None]:
        """Return the samples that a listener yields, until it raises what is wrong with the notification."""
        samples: list[Sample] = []
        try:
            for sample in listener.plugin.samples(notification):
                if not isinstance(sample, Sample):
                    raise TypeError(f"samples() must give Samples, not {type(sample).__name__}")
                if len(samples) == self._most_samples:
                    reason = f"more than {self._most_samples} samples of one notification"
                    return [], _Fault("misunderstood", reason, listener.name)
                samples.append(sample)
        except ValueError as error:
            return samples, _fault(error, listener.name)
        except Exception as error:
            return [], _fault(error, listener.name)
        return samples, None

    async def _publish(self, parts: Sequence[_Part]) -> list[_Fault]:
        """Wait for all confirms, whatever becomes of single ones; return what the bus can never take."""
        if len(parts) <= 1:
            outcomes = [await self._confirmed(part) for part in parts]  # most often, without a Deferred more
        else:
            sent = await DeferredList([Deferred.fromCoroutine(self._confirmed(each)) for each in parts])
            outcomes = [outcome for _, outcome in sent]
        faults: list[_Fault] = []
        for outcome in outcomes:
            if isinstance(outcome, Unavailable):
                raise outcome
            if outcome is not None:
                faults.append(outcome)
        return faults

    async def _confirmed(self, part: _Part) -> _Fault | Unavailable | None:
        try:
            await self._gathering.publish(part.messages, part.key_id)
        except Unavailable as error:
            return error
        except Exception as error:
            return _fault(error, part.listener)
        return None

    async def _dead_letter(self, delivery: Delivery, fault: _Fault, event_type: str | None = None) -> None:
        await self._dead_letters.dead_letter(
            body=delivery.body,
            reason=fault.reason,
            origin=delivery,
            kind=fault.kind,
            listener=fault.listener,
            event_type=event_type,
        )


def heard(body: bytes) -> Notification:
    """Return the notification in the body of a message as listeners hear it; :class:`~meter.message.BadMessage` if none.

    ``RecursionError`` for one that is nested too deeply.
    """
    content = notification_of(open_envelope(body))
    if len(content.event_type) > LONGEST_EVENT_TYPE:
        raise BadMessage(f"event_type must have at most {LONGEST_EVENT_TYPE} characters, not {len(content.event_type)}")
    return one_action(normalize(content))


def _without_secrets(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Mask what looks like a secret in metadata; samples that share theirs, as those of a listener do, share the work."""
    looked_at: dict[int, Mapping[str, Any]] = {}
    for sample in samples:
        metadata = sample.resource_metadata
        hidden = looked_at.get(id(metadata))
        if hidden is None:
            hidden = looked_at[id(metadata)] = masked(metadata)
        yield sample if hidden is metadata else replace(sample, resource_metadata=hidden)


def _matcher(patterns: Iterable[str]) -> re.Pattern[str]:
    """Return one expression for several shell patterns, whose stars do not backtrack."""
    return re.compile("|".join(translate(pattern) for pattern in patterns) or r"(?!)")
