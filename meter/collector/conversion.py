"""Converts notifications into signed samples. The collector and ``meter-notify explain`` both use this code.

A body is parsed and normalized, then every listener that wants its event type is run; its samples get stable ids, their
metadata are masked, and they are signed as metering messages. Nothing is sent here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Sequence
from fnmatch import translate
from functools import lru_cache
from functools import partial
from typing import Any
from typing import Literal
from typing import cast

import msgspec
from twisted.python.reflect import safe_str

from meter.bus.masking import encoded_and_masked
from meter.ceilometer_signature import METADATA_FIELD
from meter.collector.large_bodies import Runner
from meter.collector.large_bodies import TooComplex
from meter.collector.large_bodies import is_large
from meter.collector.large_bodies import open_in_steps
from meter.collector.normalization.ignored_users import requester
from meter.collector.normalization.nova_times import FirstTimes
from meter.collector.normalization.nova_versioned import normalize
from meter.collector.normalization.repeated_actions import with_action_id
from meter.collector.rejection import Rejection
from meter.collector.rejection import rejection_of
from meter.collector.rejection import rejection_of_body
from meter.declarative.notifications import DefinedListener
from meter.declarative.notifications import DefinitionResult
from meter.message import BadMessage
from meter.message import open_envelope
from meter.notification import Notification
from meter.notification import notification as notification_of
from meter.notification import stable_ids
from meter.outgoing import OutgoingMessage
from meter.outgoing import Signer
from meter.plugins.registry import Decision
from meter.sample import Sample
from meter.signing_keys import Keyring

MAX_EVENT_TYPE = 255
"""Maximum length of an event type, in characters; OpenStack's services use at most 60."""

CACHED_EVENT_TYPES = 1024
"""Event types whose matching listeners are cached."""

MAX_SAMPLES = 10_000
"""Maximum number of samples that one listener may make from one notification."""

LARGE_BYTES = 32 * 1024
"""Bytes of a notification from which on it is converted in a thread. OpenStack's usually have 2 to 15 KB."""

LARGE_VALUES = 1000
"""The same in values; they usually have 50 to 400."""

MAX_NOTIFICATION_BYTES = 4 * 1024 * 1024
"""Maximum size of a notification. A thousand ports that are created by one request have about 1.5 MB."""

MAX_NOTIFICATION_VALUES = 100_000
"""Maximum number of values in a notification, as counted by :func:`meter.bus.incremental_json.separators`."""

MAX_METADATA_BYTES = 8 * 1024 * 1024
"""Maximum size of the metadata of all samples that one listener makes of a notification; each sample has its own copy."""

Outcome = Literal["sampled", "empty", "unwanted", "ignored", "dead"]
"""*empty*: listeners want the event type and made no sample. *unwanted*: no listener wants it. *ignored*: the request of
a user who is not metered. *dead*: at least one rejection, so the notification is dead-lettered."""


class ListenerResult(msgspec.Struct, frozen=True):
    """The result of one listener for a notification.

    ``definitions`` are its samples as yielded, by definition; a listener that is not made of definitions counts as
    one. ``messages`` are the metering messages of these samples, in the same order and without those of disabled meters.
    With a ``rejection`` the messages may be fewer, or none.
    """

    listener: Decision
    definitions: Sequence[DefinitionResult]
    messages: Sequence[OutgoingMessage] = ()
    rejection: Rejection | None = None


class Conversion(msgspec.Struct, frozen=True):
    """The result of converting a message body; ``notification`` is as listeners receive it, ``None`` if it cannot be parsed."""

    outcome: Outcome
    notification: Notification | None = None
    results: Sequence[ListenerResult] = ()
    rejections: Sequence[Rejection] = ()


class NotificationConverter:
    """Converts bodies with the active ``listeners``. :meth:`convert` has no side effects except what :class:`FirstTimes` stores.

    ``source`` is that of samples without one, ``unit_name`` returns the configured name of a unit, and ``ignored_users`` are
    ids of users whose requests are not metered.
    """

    def __init__(
        self,
        listeners: Iterable[Decision],
        keys: Keyring,
        *,
        source: str,
        unit_name: Callable[[str], str] | None = None,
        ignored_users: Iterable[str] = (),
        max_samples: int = MAX_SAMPLES,
    ) -> None:
        self._listeners = [(listener, event_type_pattern(listener.plugin.event_types)) for listener in listeners]
        self._keys = keys
        self._source = source
        self._unit_name = unit_name
        self._ignored_users = frozenset(ignored_users)
        self._max_samples = max_samples
        self._first_times = FirstTimes()
        self._listeners_of = lru_cache(CACHED_EVENT_TYPES)(self._match)

    def convert(self, body: bytes) -> Conversion:
        """Return the conversion of ``body``. Never raises, whatever the body contains or a listener raises."""
        return self.convert_at_once(body, large=self.is_large(body))

    def convert_at_once(self, body: bytes, *, large: bool) -> Conversion:
        """Do the same, if it is known whether the body :meth:`is_large`."""
        steps = self._steps(body, parse_large_notification if large else parse_notification)
        try:
            step = next(steps)
            while True:
                step = steps.send(step())
        except StopIteration as done:
            return cast(Conversion, done.value)

    @staticmethod
    def is_large(body: bytes) -> bool:
        """Return whether ``body`` is to be converted by :meth:`convert_large`."""
        return is_large(body, LARGE_BYTES, LARGE_VALUES)

    async def convert_large(self, body: bytes, off_reactor: Runner) -> Conversion:
        """Return the conversion of a large ``body``, parsed and signed in a thread, as are definitions evaluated."""
        steps = self._steps(body, parse_large_notification)
        try:
            step = next(steps)
            while True:
                step = steps.send(await off_reactor(step))
        except StopIteration as done:
            return cast(Conversion, done.value)

    def _steps(
        self, body: bytes, parse: Callable[[bytes], Notification]
    ) -> Generator[Callable[[], Any], Any, Conversion]:
        """Yield the steps of a conversion that a thread may do, and take their results; none of them raises.

        Listeners that are not definitions run here, in the reactor's thread, as their authors expect.
        """
        parsed = yield partial(_parsed, parse, body)
        if isinstance(parsed, Rejection):
            return Conversion("dead", rejections=(parsed,))
        notification = self._first_times.apply(parsed)
        if self._ignored_users and requester(notification) in self._ignored_users:
            return Conversion("ignored", notification)
        results: list[ListenerResult] = []
        for listener in self._listeners_of(notification.event_type):
            if isinstance(listener.plugin, DefinedListener):
                ran = yield partial(_run_listener, listener, notification, self._max_samples)
            else:
                ran = _run_listener(listener, notification, self._max_samples)
            result = yield partial(self._signed, listener, notification, *ran)
            results.append(result)
        rejections = [result.rejection for result in results if result.rejection is not None]
        outcome: Outcome = "unwanted"
        if rejections:
            outcome = "dead"
        elif results:
            outcome = "sampled" if any(result.messages for result in results) else "empty"
        return Conversion(outcome, notification, results, rejections)

    def _match(self, event_type: str) -> tuple[Decision, ...]:
        return tuple(listener for listener, pattern in self._listeners if pattern.match(event_type))

    def _signed(
        self,
        listener: Decision,
        notification: Notification,
        definitions: Sequence[DefinitionResult],
        rejection: Rejection | None,
    ) -> ListenerResult:
        """Sign the samples of one listener. Ids are assigned per listener: a failure of one changes no other's ids."""
        try:
            messages = self._sign(listener, notification, definitions)
        except Exception as error:
            return ListenerResult(
                listener,
                definitions,
                rejection=rejection_of(error, listener=listener.name, event_type=notification.event_type),
            )
        return ListenerResult(listener, definitions, messages, rejection)

    def _sign(
        self, listener: Decision, notification: Notification, definitions: Sequence[DefinitionResult]
    ) -> Sequence[OutgoingMessage]:
        """Return the messages of all samples of enabled meters."""
        samples = [sample for definition in definitions for sample in definition.samples]
        if not samples:
            return ()
        # The id says which event it is. Its time is another one if the notification comes in another format, or if a broker or
        # an operator has sent it again with the time of that.
        may_differ = tuple(dict.fromkeys(("timestamp", *notification.may_differ)))
        signer = Signer(
            self._keys, self._source, unit_name=self._unit_name, may_differ=may_differ, encode=encoded_and_masked
        )
        messages = []
        size = 0
        for id_, sample in zip(stable_ids(notification, samples), samples, strict=True):
            if not listener.takes(sample.name):
                continue
            message = signer.message(sample, id_)
            size += memoryview(message.fields[METADATA_FIELD]).nbytes
            if size > MAX_METADATA_BYTES:
                raise ValueError(f"the metadata of its samples have more than {MAX_METADATA_BYTES} bytes")
            messages.append(message)
        return messages


def _parsed(parse: Callable[[bytes], Notification], body: bytes) -> Notification | Rejection:
    try:
        return parse(body)
    except (ValueError, RecursionError) as error:
        return rejection_of_body(error)


def parse_notification(body: bytes) -> Notification:
    """Return the notification in ``body``, normalized; raises :class:`~meter.message.BadMessage` if it contains none.

    Raises ``RecursionError`` for one that is nested too deeply.
    """
    return _normalized(open_envelope(body))


def parse_large_notification(body: bytes) -> Notification:
    """Do the same in steps, for a thread; raises :class:`~meter.collector.large_bodies.TooComplex` beyond its limits."""
    if len(body) > MAX_NOTIFICATION_BYTES:
        raise TooComplex(f"the notification has {len(body)} bytes; the limit is {MAX_NOTIFICATION_BYTES}")
    return _normalized(open_in_steps(body, MAX_NOTIFICATION_VALUES))


def _normalized(message: dict[str, Any]) -> Notification:
    content = notification_of(message)
    if len(content.event_type) > MAX_EVENT_TYPE:
        raise BadMessage(f"event_type must have at most {MAX_EVENT_TYPE} characters, not {len(content.event_type)}")
    return with_action_id(normalize(content))


def event_type_pattern(patterns: Iterable[str]) -> re.Pattern[str]:
    """Return one regular expression for several shell patterns, which matches without backtracking over ``*``."""
    return re.compile("|".join(translate(pattern) for pattern in patterns) or r"(?!)")


class _TooManySamples(ValueError):
    """A listener yields more samples than one notification may give."""

    def __init__(self, most: int) -> None:
        super().__init__(f"more than {most} samples of one notification")


def _run_listener(
    listener: Decision, notification: Notification, max_samples: int
) -> tuple[Sequence[DefinitionResult], Rejection | None]:
    """Return the samples that a listener yields, and why the notification is rejected if it is.

    Samples yielded before a ``ValueError`` are kept: the listener understood a part of the notification. After any other
    error, and beyond ``max_samples``, all are dropped.
    """
    run = _run_definitions if isinstance(listener.plugin, DefinedListener) else _run_plugin
    try:
        definitions = run(listener, notification, max_samples)
    except Exception as error:
        return (), rejection_of(error, listener=listener.name, event_type=notification.event_type)
    reasons = dict.fromkeys([definition.reason for definition in definitions if definition.reason])
    if not reasons:
        return definitions, None
    return definitions, Rejection(
        kind="misunderstood", reason="; ".join(reasons), listener=listener.name, event_type=notification.event_type
    )


def _run_definitions(listener: Decision, notification: Notification, max_samples: int) -> list[DefinitionResult]:
    definitions: list[DefinitionResult] = []
    count = 0
    for definition in listener.plugin.results(notification):
        count += len(definition.samples)
        if count > max_samples:
            raise _TooManySamples(max_samples)
        definitions.append(definition)
    return definitions


def _run_plugin(listener: Decision, notification: Notification, max_samples: int) -> list[DefinitionResult]:
    samples: list[Sample] = []
    reason = ""
    try:
        for sample in listener.plugin.samples(notification):
            if not isinstance(sample, Sample):
                raise TypeError(f"samples() must give Samples, not {type(sample).__name__}")
            if len(samples) == max_samples:
                raise _TooManySamples(max_samples)
            samples.append(sample)
    except _TooManySamples:
        raise
    except ValueError as error:
        reason = safe_str(error) or type(error).__name__
    return [DefinitionResult(listener.origin, tuple(samples), reason)]
