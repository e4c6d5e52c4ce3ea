"""Why a notification makes the samples that it makes, or none: what ``meter-notify explain`` prints."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from meter.bus.local import topic_matches
from meter.collector.conversion import Conversion
from meter.collector.conversion import ListenerResult
from meter.collector.conversion import NotificationConverter
from meter.collector.conversion import event_type_pattern
from meter.declarative.notifications import DefinedListener
from meter.interfaces import Topic
from meter.plugins.registry import Decision


@dataclass(frozen=True, slots=True)
class ExplainedDefinition:
    """The metering messages that the definition at ``origin`` makes, and why there are none or no more."""

    listener: str
    origin: str
    messages: tuple[Mapping[str, Any], ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A conversion by definition. ``inactive`` are listeners that want the event type but do not run, with the reason."""

    conversion: Conversion
    definitions: tuple[ExplainedDefinition, ...] = ()
    inactive: tuple[tuple[str, str], ...] = ()


def explain_notification(
    body: bytes, converter: NotificationConverter, decisions: Iterable[Decision] = ()
) -> Explanation:
    """Return the conversion of ``body`` by ``converter``, with reasons; ``decisions`` are those of all installed listeners."""
    conversion = converter.convert(body)
    definitions = [each for result in conversion.results for each in _definitions(result)]
    inactive = () if conversion.notification is None else _inactive(decisions, conversion.notification.event_type)
    return Explanation(conversion, tuple(definitions), tuple(inactive))


def is_received(exchange: str, routing_key: str, topics: Sequence[Topic]) -> bool:
    """Return whether a collector that subscribes to ``topics`` receives messages with this exchange and routing key."""
    return any(topic.exchange == exchange and topic_matches(topic.routing_key, routing_key) for topic in topics)


def _inactive(decisions: Iterable[Decision], event_type: str) -> Iterator[tuple[str, str]]:
    for decision in decisions:
        if decision.plugin is None or decision.state == "active":
            continue
        if event_type_pattern(decision.plugin.event_types).match(event_type):
            yield decision.name, f"{decision.state}: {decision.reason}" if decision.reason else decision.state


def _definitions(result: ListenerResult) -> Iterator[ExplainedDefinition]:
    listener = result.listener
    messages = iter(result.messages)
    for definition in result.definitions:
        enabled = [sample for sample in definition.samples if listener.takes(sample.name)]
        disabled = sorted({sample.name for sample in definition.samples if not listener.takes(sample.name)})
        # Messages are in the order of the samples; there are none where signing failed.
        own = tuple(message.fields for _, message in zip(enabled, messages, strict=False))
        reasons = [definition.reason] if definition.reason else []
        if disabled:
            why = f" ({listener.reason})" if listener.reason else ""
            reasons.insert(0, f"{', '.join(disabled)} is disabled{why}")
        elif not enabled and not reasons:
            reasons = [_why_empty(listener)]
        yield ExplainedDefinition(listener.name, definition.origin, own, "; ".join(reasons))


def _why_empty(listener: Decision) -> str:
    if isinstance(listener.plugin, DefinedListener):
        return "no sample: the notification lacks a value that the definition requires"
    return "no sample: see the documentation of the listener for the notifications it uses"
