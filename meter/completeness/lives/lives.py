"""Lives: when a resource existed, in which states, with which size and owner, computed from observations of any origin.

An :class:`Observation` is neutral: it says that a resource existed or did not, as seen at a time, and who told that. The rules by
which observations that differ are resolved are these functions, and are explained in ``docs/lives.rst``. Nothing here reads a
store or a clock.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from bisect import bisect_right
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from datetime import timedelta

from meter.completeness.lives.kinds import STATES_SHOWN_BY_HOST
from meter.completeness.lives.kinds import ResourceKind
from meter.completeness.lives.life_walk import LifeWalk
from meter.completeness.lives.observation import MAX_AUDIT
from meter.completeness.lives.observation import RANK
from meter.completeness.lives.observation import UNKNOWN
from meter.completeness.lives.observation import Contradiction
from meter.completeness.lives.observation import Ending
from meter.completeness.lives.observation import Life
from meter.completeness.lives.observation import LifeSegment
from meter.completeness.lives.observation import Observation
from meter.completeness.lives.observation import ToldBy

SIMULTANEOUS = timedelta(seconds=5)
"""An agent that reads a domain while it ends may time the last reading after the end, by at most this long."""

MAX_CONTRADICTIONS = 20
"""Of one resource; the oldest are told."""


def life(kind: ResourceKind, observations: Iterable[Observation], now: datetime) -> Life:
    """Return the life of one resource of ``kind``, from observations in any order, with or without repetition.

    ``now`` is the time until which everything that was told is among ``observations``.
    """
    told = sorted(set(observations), key=_order)
    notified = any(each.notified for each in told)
    alive = [each for each in told if each.exists]
    deletion = min(
        (each for each in told if not each.exists and each.notified and kind.deletion_is_final),
        key=lambda each: (each.at, each.told_by != "event"),
        default=None,
    )
    contradictions: list[Contradiction] = []
    if deletion is not None:
        contradictions += _alive_after(deletion, alive)
        ends = [Ending(deletion.at, deletion, None)]
    else:
        absences = [each for each in told if not each.exists]
        ends = _ends_by_absence(kind, alive, absences, notified, contradictions)
    starts = [each.at for each in alive]
    found: list[LifeSegment] = []
    resumes: datetime | None = None
    for end in [*ends, None]:
        first, last = resumes, None if end is None else end.at
        lived = _clipped(alive, starts, first, last)
        if lived:
            found += LifeWalk(kind, lived, notified, end, now).segments()
        elif end is not None and end.observation.notified and not found:
            found += _life_before_deletion(end.observation)
        if end is None or end.resumes is None:
            break
        resumes = end.resumes
    lasting = [each for each in found if each.ended is None or each.ended > each.began]
    return Life(lasting, contradictions[:MAX_CONTRADICTIONS])


def _order(told: Observation) -> tuple[object, ...]:
    # What is told by an event at the same time stands last; the rest makes the order total.
    return told.at, RANK[told.told_by], told.last, *told.content_order


def _alive_after(deletion: Observation, alive: Iterable[Observation]) -> list[Contradiction]:
    """Return which polls, audits and reports say that a resource existed well after its deletion."""
    found: dict[ToldBy, Contradiction] = {}
    for each in alive:
        tolerance = max(timedelta(seconds=each.interval), MAX_AUDIT if each.told_by == "audit" else SIMULTANEOUS)
        if each.told_by != "event" and each.last > deletion.at + tolerance and each.told_by not in found:
            at = max(each.at, deletion.at)
            found[each.told_by] = Contradiction(at, each.told_by, True, deletion.told_by, deletion.at)
    return list(found.values())


def _ends_by_absence(
    kind: ResourceKind,
    alive: Sequence[Observation],
    absences: Sequence[Observation],
    notified: bool,
    contradictions: list[Contradiction],
) -> list[Ending]:
    """Return the ends told by polls and reports that stand, oldest first."""
    # An audit is older than it looks: against the list of the service itself it proves nothing.
    proofs = [each for each in alive if not (kind.inventory and each.told_by == "audit")]
    starts = [each.at for each in proofs]
    latest = list(itertools.accumulate((each.last for each in proofs), max))
    ends: list[Ending] = []
    for absence in absences:
        if ends and (ends[-1].resumes is None or absence.at <= ends[-1].resumes):
            continue
        before = bisect_right(starts, absence.at)
        if not before:
            continue  # nothing existed yet
        if latest[before - 1] > absence.at + SIMULTANEOUS:
            continue  # listed all the time, by this host or another one: one cycle without it is no end
        following = next(
            (proofs[n] for n in range(before, len(proofs)) if proofs[n].last > absence.at + SIMULTANEOUS), None
        )
        if following is None:
            if notified and not kind.inventory and not _is_on_a_host(proofs[:before]):
                continue
            ends.append(Ending(absence.at, absence, None))
            continue
        moved = following.teller != absence.teller
        if kind.inventory or notified:
            if kind.inventory:
                contradictions.append(
                    Contradiction(absence.at, absence.told_by, False, following.told_by, following.at)
                )
        elif not (moved and following.at - absence.at <= timedelta(seconds=2 * absence.interval)):
            ends.append(Ending(absence.at, absence, following.at))
    if ends and ends[-1].resumes is None and kind.inventory:
        last = ends[-1]
        contradictions += [
            Contradiction(each.at, each.told_by, True, last.observation.told_by, last.at)
            for each in alive
            if each.told_by == "audit"
            and each.at > last.at + max(timedelta(seconds=last.observation.interval), MAX_AUDIT)
        ][:1]
    return ends


def _is_on_a_host(told: Sequence[Observation]) -> bool:
    """Return whether the last state that the service told is one in which an instance is a domain of a host."""
    states = (each.state for each in reversed(told) if each.notified and each.state is not None)
    return next(states, "active") in STATES_SHOWN_BY_HOST


def _clipped(
    alive: Sequence[Observation], starts: Sequence[datetime], first: datetime | None, last: datetime | None
) -> list[Observation]:
    """Return the observations from ``first`` until before ``last``; ``starts`` are the times of ``alive``, in order."""
    part = alive[
        0 if first is None else bisect_left(starts, first) : len(starts) if last is None else bisect_left(starts, last)
    ]
    return [
        each if last is None or each.last < last else replace(each, until=last - timedelta(seconds=each.interval))
        for each in part
    ]


def _life_before_deletion(deletion: Observation) -> list[LifeSegment]:
    """Return the life of a resource of which only the end was told, if the deletion says when it began."""
    began = deletion.since or deletion.created_at
    if began is None or began >= deletion.at:
        return []
    return [
        LifeSegment(
            state=UNKNOWN,
            flavor=deletion.flavor,
            size=deletion.size or None,
            project_id=deletion.project_id,
            user_id=deletion.user_id,
            name=deletion.name,
            began=began,
            began_told_by=deletion.told_by,
            began_within=0.0,
            ended=deletion.at,
            ended_told_by=deletion.told_by,
            ended_within=deletion.uncertainty,
        )
    ]
