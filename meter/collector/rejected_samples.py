"""Dead-letters the rejected samples of a delivery: one for each kind of rejection, with all its samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from meter.bus.dead_letters import MAX_BODY_BYTES
from meter.bus.dead_letters import DeadLetterPublisher
from meter.bus.masking import masked
from meter.collector.large_bodies import Runner
from meter.collector.rejection import Rejection
from meter.interfaces import Delivery
from meter.message import cast_verbatim
from meter.signing_keys import VerifiedBatch

MAX_REASONS = 3
"""Different reasons that a letter names; of the others it tells how many there are."""

MAX_ENCODED_AT_ONCE = 64 * 1024
"""Bytes of a delivery from which on its dead letters are encoded in a thread."""


@dataclass(frozen=True, slots=True)
class RejectedEntry:
    """An entry of a cast, its index there, and why it is rejected."""

    index: int
    entry: Any
    rejection: Rejection


async def dead_letter_samples(
    rejected: Sequence[RejectedEntry],
    delivery: Delivery,
    dead_letters: DeadLetterPublisher,
    *,
    entries: int,
    batch: VerifiedBatch | None,
    off_reactor: Runner,
) -> None:
    """Return once the dead letters of the ``rejected`` of all ``entries`` are confirmed; raises ``Unavailable`` if one may be lost.

    A letter can be replayed: it is a cast of the samples with one kind of rejection, and has the signature of their ``batch``. Samples with something to mask have a
    letter of their own, as one that is masked is not replayed. What exceeds the size of a letter is divided.
    """
    kinds = dict.fromkeys(each.rejection.kind for each in rejected)
    for kind in kinds:
        group = [each for each in rejected if each.rejection.kind == kind]

        def encode(group: Sequence[RejectedEntry] = group) -> list[tuple[bytes, Sequence[RejectedEntry]]]:
            return _dead_letter_bodies(group, delivery.body, len(group) == entries, batch)

        bodies = encode() if len(delivery.body) <= MAX_ENCODED_AT_ONCE else await off_reactor(encode)
        for body, part in bodies:
            rejection = _common(part)
            await rejection.dead_letter(dead_letters, delivery, body, samples=len(part))


def _dead_letter_bodies(
    group: Sequence[RejectedEntry], body: bytes, complete: bool, batch: VerifiedBatch | None
) -> list[tuple[bytes, Sequence[RejectedEntry]]]:
    """Return the bodies of the dead letters of ``group``, each with its samples; ``complete``: the group is the whole delivery."""
    clean = [each for each in group if masked(each.entry) is each.entry]
    if len(body) <= MAX_BODY_BYTES and (len(group) == 1 or len(clean) in (0, len(group))):
        return [(body if complete else _cast(group, body, batch), group)]
    shown = {id(each) for each in clean}
    secret = [each for each in group if id(each) not in shown]
    size = max(1, len(group) * MAX_BODY_BYTES // (4 * len(body)))
    parts = [
        part[first : first + size if len(body) > MAX_BODY_BYTES else None]
        for part in (clean, secret)
        for first in range(0, len(part), size if len(body) > MAX_BODY_BYTES else len(part))
    ]
    return [(_cast(part, body, batch), part) for part in parts]


def _cast(part: Sequence[RejectedEntry], body: bytes, batch: VerifiedBatch | None) -> bytes:
    try:
        signature = None if batch is None else batch.only([each.index for each in part])
        return cast_verbatim([each.entry for each in part], signature)
    except RecursionError:
        return body  # nested so deeply that it can just be decoded


def _common(part: Sequence[RejectedEntry]) -> Rejection:
    """Return the one rejection of all samples in ``part``: their reasons, with the most frequent first."""
    first = part[0].rejection
    meters = {each.rejection.meter for each in part}
    reasons = Counter(each.rejection.reason for each in part)
    if len(part) == 1:
        return first
    named = [f"{count} samples: {reason}" for reason, count in reasons.most_common(MAX_REASONS)]
    if len(reasons) > MAX_REASONS:
        named.append(f"{len(reasons) - MAX_REASONS} more reasons")
    return Rejection(kind=first.kind, reason="; ".join(named), meter=first.meter if len(meters) == 1 else None)
