"""What would become of a notification, and because of what: the answer to "why do I see nothing?"."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from fnmatch import fnmatchcase

from meter.bus.local import topic_matches
from meter.bus.masking import masked
from meter.collector.notifications import heard
from meter.declarative.notifications import DefinedListener
from meter.interfaces import Topic
from meter.message import BadMessage
from meter.notification import Notification
from meter.notification import with_stable_ids
from meter.plugins.registry import Decision
from meter.sample import Sample


@dataclass(frozen=True, slots=True)
class Maker:
    """What one listener, or one definition of it at ``origin``, made of a notification.

    ``samples`` have their secrets masked. ``reason`` says why there are none, or not more.
    """

    listener: str
    origin: str
    samples: tuple[Sample, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would become of a message: ``notification`` as listeners hear it, ``None`` when it is none, for ``reason``.

    ``makers`` want its event type; ``silent`` would, but are switched off or broken, each with the reason.
    """

    notification: Notification | None
    reason: str = ""
    makers: tuple[Maker, ...] = ()
    silent: tuple[tuple[str, str], ...] = ()


def explained(body: bytes, decisions: Iterable[Decision]) -> Explanation:
    """Return what ``decisions``, active or not, would make of the message ``body``; nothing it holds makes this raise."""
    try:
        notification = heard(body)
    except (BadMessage, ValueError, RecursionError) as error:
        return Explanation(None, f"set aside: {error}")
    makers: list[Maker] = []
    silent = []
    for decision in decisions:
        if decision.plugin is None or not _wants(decision, notification.event_type):
            continue
        if decision.state == "active":
            makers += _makers(decision, notification)
        else:
            silent.append(
                (decision.name, f"{decision.state}: {decision.reason}" if decision.reason else decision.state)
            )
    return Explanation(notification, "", tuple(makers), tuple(silent))


def is_heard(exchange: str, routing_key: str, topics: Sequence[Topic]) -> bool:
    """Say whether a collector that subscribes to ``topics`` gets what is published there."""
    return any(topic.exchange == exchange and topic_matches(topic.routing_key, routing_key) for topic in topics)


def _wants(decision: Decision, event_type: str) -> bool:
    return any(fnmatchcase(event_type, pattern) for pattern in decision.plugin.event_types)


def _makers(decision: Decision, notification: Notification) -> Iterator[Maker]:
    if isinstance(decision.plugin, DefinedListener):
        for outcome in decision.plugin.outcomes(notification):
            yield _maker(decision, outcome.definition.origin, notification, outcome.samples, outcome.reason)
        return
    samples: list[Sample] = []
    reason = ""
    try:
        for sample in decision.plugin.samples(notification):
            samples.append(sample)
        if not samples:
            reason = "the listener makes no sample of it; its documentation says of what it does"
    except Exception as error:
        # Whatever a plugin raises is what is to be told.
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    yield _maker(decision, decision.origin, notification, samples, reason)


def _maker(
    decision: Decision, origin: str, notification: Notification, samples: Iterable[Sample], reason: str
) -> Maker:
    made = with_stable_ids(notification, list(samples))
    kept = tuple(
        replace(sample, resource_metadata=masked(sample.resource_metadata))
        for sample in made
        if decision.takes(sample.name)
    )
    off = sorted({sample.name for sample in made if not decision.takes(sample.name)})
    if off:
        why = f" ({decision.reason})" if decision.reason else ""
        reason = "; ".join(filter(None, (f"{', '.join(off)} is switched off{why}", reason)))
    elif not kept and not reason:
        reason = "no sample: what it requires is not in the notification"
    return Maker(decision.name, origin, kept, reason)
