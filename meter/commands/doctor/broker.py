"""The checks *broker*, *permissions*, *queues* and *dead letters*."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

from meter.bus.amqp import QueueState
from meter.bus.dead_letter_advice import KIND_ADVICE
from meter.bus.dead_letters import DEAD_LETTER_QUEUE
from meter.bus.dead_letters import DeadLetter
from meter.bus.queue_names import CONSUMED_QUEUES
from meter.bus.queue_names import MAX_WAITING_MESSAGES
from meter.bus.queue_names import WAITING_QUEUES
from meter.commands.doctor.finding import Finding
from meter.commands.doctor.needed_versions import OLDEST_RABBITMQ
from meter.counts import counted

EXCHANGE = "metering"

NEEDED_QUEUES = ("meter.metering",)

PERMISSIONS_ADVICE = "rabbitmqctl set_permissions; docs/install.rst has the permissions of each daemon"

SAMPLED_LETTERS = 200
"""How many dead letters are read, the oldest first."""


def version_finding(broker: str, where: str) -> Finding:
    """Return whether the product and version of a broker, ``RabbitMQ 3.10.8``, are ones that Meter works with."""
    product, _, version = broker.partition(" ")
    numbers = tuple(int(each) for each in version.split(".")[:2] if each.isdecimal())
    if product == "RabbitMQ" and numbers and numbers < OLDEST_RABBITMQ:
        oldest = ".".join(map(str, OLDEST_RABBITMQ))
        return Finding(
            "broker", "warning", f"{broker} at {where}: Meter needs RabbitMQ {oldest} or newer", "upgrade RabbitMQ"
        )
    return Finding("broker", "ok", f"{broker} at {where}")


def host_findings(away: Sequence[str]) -> Iterator[Finding]:
    """Yield a warning for each host of a broker that is not there, while another one is; ``away`` says which and why."""
    for host in away:
        yield Finding(
            "broker",
            "warning",
            f"a host of [bus] url cannot be used, {host.rstrip('.')}; the daemons use another one",
            "start it, or correct [bus] url, before the next one fails",
        )


def permission_finding(missing: Sequence[str], user: str) -> Finding:
    """Return whether the broker's user may do all that Meter needs; ``missing`` is what it may not."""
    if not missing:
        return Finding("permissions", "ok", f"the user {user} may configure, write and read")
    text = f"the user {user} may not {', '.join(missing)}: "
    if f"write to the exchange {EXCHANGE}" in missing:
        text += "no daemon with this user can publish"
        return Finding("permissions", "fault", text, PERMISSIONS_ADVICE)
    text += "a collector needs that; agents and the API do not"
    return Finding("permissions", "warning", text, f"if collectors use this user: {PERMISSIONS_ADVICE}")


def queue_findings(queues: Mapping[str, QueueState | None]) -> Iterator[Finding]:
    """Yield what the lengths and consumers of Meter's queues say; ``None`` is a queue that does not exist."""
    quiet = True
    for name in CONSUMED_QUEUES:
        state = queues.get(name)
        if state is None:
            if name in NEEDED_QUEUES:
                quiet = False
                yield Finding(
                    "queues",
                    "fault",
                    f"there is no queue {name}: samples wait in the spools of the agents",
                    "start meter-collector with this broker and virtual host",
                )
            continue
        if not state.consumers:
            quiet = False
            yield Finding(
                "queues",
                "fault",
                f"{name} has no consumer and {counted(state.messages, 'message')}: no collector runs, or none with this broker",
                "start meter-collector; its /readyz says what it waits for",
            )
        elif state.messages > MAX_WAITING_MESSAGES:
            quiet = False
            yield Finding(
                "queues",
                "warning",
                f"{name} has {counted(state.messages, 'message')} and {counted(state.consumers, 'consumer')}: the collectors are behind",
                "look at the database's load; start another meter-collector (docs/scaling)",
            )
    for name in WAITING_QUEUES:
        state = queues.get(name)
        if state is not None and state.messages:
            quiet = False
            yield Finding(
                "queues",
                "warning",
                f"{name} has {counted(state.messages, 'message')}: there was no room for them among the dead letters",
                "replay or discard dead letters with meter-dead-letters",
            )
    if quiet:
        shown = [f"{name} {state.messages}" for name, state in queues.items() if state is not None]
        yield Finding("queues", "ok", f"consumed, with messages: {', '.join(shown)}")


class LetterSample(NamedTuple):
    """The number of dead letters, and the oldest of them."""

    total: int
    oldest: Sequence[DeadLetter]


def dead_letter_findings(sample: LetterSample, max_dead_letters: int) -> Iterator[Finding]:
    """Yield a finding for each kind of dead letters, with its commonest reason; one *ok* if there are none."""
    if not sample.total:
        yield Finding("dead letters", "ok", "there are none")
        return
    if max_dead_letters and sample.total >= max_dead_letters:
        yield Finding(
            "dead letters",
            "fault",
            f"{DEAD_LETTER_QUEUE} is full: {sample.total} of [bus] max_dead_letters = {max_dead_letters}; bad messages wait",
            "find the sender of the bad messages below, then replay or discard them with meter-dead-letters",
        )
    kinds = Counter(letter.kind or "unknown" for letter in sample.oldest)
    of = f"of the oldest {len(sample.oldest)} " if len(sample.oldest) < sample.total else ""
    for kind, count in kinds.most_common():
        letters = [letter for letter in sample.oldest if (letter.kind or "unknown") == kind]
        [(reason, _)] = Counter(letter.reason for letter in letters).most_common(1)
        times = sorted(letter.at[:19] for letter in letters if letter.at)
        span = f", from {times[0]} to {times[-1]}" if times else ""
        text = f"{count} {of}of {counted(sample.total, 'dead letter')} {'is' if count == 1 else 'are'} {kind}{span}; most often: {reason} (such as {letters[0].id[:8]})"
        yield Finding(
            "dead letters", "warning", text, KIND_ADVICE.get(kind, "meter-dead-letters show ID has the reason")
        )
