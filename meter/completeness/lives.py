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
from dataclasses import dataclass
from dataclasses import replace
from datetime import datetime
from datetime import timedelta
from typing import Literal
from typing import NamedTuple

from meter.completeness.kinds import RUNNING
from meter.completeness.kinds import STATES_SHOWN_BY_HOST
from meter.completeness.kinds import ResourceKind

__all__ = ["RUNNING", "Contradiction", "Life", "LifeSegment", "Observation", "life"]

ToldBy = Literal["event", "poll", "audit", "report", "silence"]
"""*event*: a notification, or an event of libvirt. *poll*: a polled sample. *audit*: a notification ``*.exists``. *report*: what a
cycle report lists or no longer lists. *silence*: nothing was told for longer than three polling intervals."""

UNKNOWN = "unknown"
"""The state while nothing tells it."""

MAX_AUDIT = timedelta(hours=1)
"""An audit is sent at most this long after the end of its period, and contains the state at the time of sending."""

SILENT_INTERVALS = 3
"""After this many polling intervals without an observation the state is unknown. ``integral`` carries a volume as long."""

SIMULTANEOUS = timedelta(seconds=5)
"""An agent that reads a domain while it ends may time the last reading after the end, by at most this long."""

MAX_CONTRADICTIONS = 20
"""Of one resource; the oldest are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A resource existed (``exists``), or did not, at the time ``at`` and at each poll until ``until``.

    ``None`` for ``state``, ``flavor``, ``size``, ``project_id``, ``user_id`` and ``name``: not told. ``since``: the state and
    flavor have lasted since then. ``created_at``: the resource has existed since then. ``notified``: a notification of the service
    that owns the resource. ``interval``: the polling interval in seconds, 0 if nobody polls. ``teller`` is the host that was
    read, if hosts are read. ``uncertainty``: how many seconds before ``at`` it may have become so; ``None`` if that is
    unknown, or follows from the observation before.
    """

    at: datetime
    exists: bool
    told_by: ToldBy
    until: datetime | None = None
    state: str | None = None
    flavor: str | None = None
    size: float | None = None
    project_id: str | None = None
    user_id: str | None = None
    name: str | None = None
    since: datetime | None = None
    created_at: datetime | None = None
    notified: bool = False
    interval: float = 0.0
    teller: str = ""
    uncertainty: float | None = None

    @property
    def last(self) -> datetime:
        """The last time at which this was observed."""
        return self.at if self.until is None else max(self.at, self.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeSegment:
    """A period with one state, flavor or size, and project; ``ended`` is ``None`` while it lasts.

    ``began_within`` and ``ended_within`` are seconds: the change may have been so long before the time, 0 if that is exact,
    ``None`` if it is unknown. ``name`` and ``user_id`` are the last ones told in the period.
    """

    state: str
    flavor: str | None
    size: float | None
    project_id: str | None
    user_id: str | None
    name: str | None
    began: datetime
    began_told_by: ToldBy
    began_within: float | None
    ended: datetime | None = None
    ended_told_by: ToldBy | None = None
    ended_within: float | None = None

    def seconds(self, start: datetime, end: datetime) -> float:
        """Return how many seconds of the segment lie between ``start`` and ``end``."""
        last = end if self.ended is None else min(self.ended, end)
        return max(0.0, (last - max(self.began, start)).total_seconds())


@dataclass(frozen=True, slots=True)
class Contradiction:
    """What was told and does not stand: at ``at``, ``told_by`` said that the resource existed, or not; ``overruled_by`` stands."""

    at: datetime
    told_by: ToldBy
    exists: bool
    overruled_by: ToldBy
    overruled_at: datetime


@dataclass(frozen=True, slots=True)
class Life:
    """The segments of one resource, oldest first, and what contradicts them. A plain domain may live more than once."""

    segments: Sequence[LifeSegment]
    contradictions: Sequence[Contradiction] = ()


class _Point(NamedTuple):
    """An observation as it stood at ``at``: at its first time, or (``closing``) at its last."""

    at: datetime
    observation: Observation
    closing: bool


class _End(NamedTuple):
    """An end of existence: from ``at`` on; a later life resumes at ``resumes``."""

    at: datetime
    observation: Observation
    resumes: datetime | None


def life(kind: ResourceKind, observations: Iterable[Observation], now: datetime) -> Life:
    """Return the life of one resource of ``kind``, from observations in any order, with or without repetition.

    ``now`` is the time until which everything that was told is among ``observations``.
    """
    told = sorted(set(observations), key=_order)
    notified = any(each.notified for each in told)
    alive = [each for each in told if each.exists]
    deletion = min(
        (each for each in told if not each.exists and each.notified),
        key=lambda each: (each.at, each.told_by != "event"),
        default=None,
    )
    contradictions: list[Contradiction] = []
    if deletion is not None:
        contradictions += _alive_after(deletion, alive)
        ends = [_End(deletion.at, deletion, None)]
    else:
        absences = [each for each in told if not each.exists]
        ends = _ends_by_absence(kind, alive, absences, notified, contradictions)
    found: list[LifeSegment] = []
    resumes: datetime | None = None
    for end in [*ends, None]:
        first, last = resumes, None if end is None else end.at
        lived = _clipped(alive, first, last)
        if lived:
            found += _Walk(kind, lived, notified, end, now).segments()
        elif end is not None and end.observation.notified and not found:
            found += _life_before_deletion(end.observation)
        if end is None or end.resumes is None:
            break
        resumes = end.resumes
    lasting = [each for each in found if each.ended is None or each.ended > each.began]
    return Life(lasting, contradictions[:MAX_CONTRADICTIONS])


_RANK: dict[ToldBy, int] = {"report": 0, "audit": 1, "poll": 2, "event": 3, "silence": 4}


def _order(told: Observation) -> tuple[object, ...]:
    # What is told by an event at the same time stands last; the rest makes the order total.
    texts = [text or "" for text in (told.state, told.flavor, told.project_id, told.user_id, told.name, told.teller)]
    return told.at, _RANK[told.told_by], told.last, told.size is not None, told.size or 0.0, *texts


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
) -> list[_End]:
    """Return the ends told by polls and reports that stand, oldest first."""
    # An audit is older than it looks: against the list of the service itself it proves nothing.
    proofs = [each for each in alive if not (kind.inventory and each.told_by == "audit")]
    starts = [each.at for each in proofs]
    latest = list(itertools.accumulate((each.last for each in proofs), max))
    ends: list[_End] = []
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
            ends.append(_End(absence.at, absence, None))
            continue
        moved = following.teller != absence.teller
        if kind.inventory or notified:
            if kind.inventory:
                contradictions.append(
                    Contradiction(absence.at, absence.told_by, False, following.told_by, following.at)
                )
        elif not (moved and following.at - absence.at <= timedelta(seconds=2 * absence.interval)):
            ends.append(_End(absence.at, absence, following.at))
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


def _clipped(alive: Iterable[Observation], first: datetime | None, last: datetime | None) -> list[Observation]:
    """Return the observations from ``first`` until before ``last``."""
    return [
        each if last is None or each.last < last else replace(each, until=last - timedelta(seconds=each.interval))
        for each in alive
        if (first is None or each.at >= first) and (last is None or each.at < last)
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


class _Walk:
    """Walks through the observations of one existence in order of time and makes segments."""

    def __init__(
        self, kind: ResourceKind, lived: Sequence[Observation], notified: bool, end: _End | None, now: datetime
    ) -> None:
        self._kind = kind
        self._end = end
        self._now = now
        self._notified = notified
        # The service's notifications tell all of the state: only without any does silence make it unknown.
        self._interval = 0.0 if notified else max((each.interval for each in lived), default=0.0)
        self._points = sorted(
            [
                *(_Point(each.at, each, False) for each in lived),
                *(_Point(each.last, each, True) for each in lived if each.last > each.at),
            ],
            key=lambda point: (point.at, _RANK[point.observation.told_by]),
        )
        self._events = [point.at for point in self._points if _is_event(point.observation)]
        self._notifications = [
            point.at for point in self._points if point.observation.notified and _is_event(point.observation)
        ]
        self._found: list[LifeSegment] = []
        self._confirmed = self._points[0].at
        self._heard = self._points[0].at

    def segments(self) -> list[LifeSegment]:
        """Return the segments, the last one open unless the existence ended."""
        for index, point in enumerate(self._points):
            if not self._found:
                self._begin(index, point.observation)
            else:
                if not point.closing:
                    self._pass_silence(point.at)
                self._take(index, point)
            self._heard = max(self._heard, point.observation.last)
        if self._end is None:
            self._pass_silence(self._now, ends=False)
        else:
            self._finish(self._end)
        return [each if each.state else replace(each, state=UNKNOWN) for each in self._found]

    def _begin(self, index: int, first: Observation) -> None:
        if not first.notified and index + 1 < len(self._points) and self._notification_follows(first):
            return
        began, within = first.at, 0.0 if first.told_by == "event" else first.uncertainty
        if within is None and first.told_by == "poll":
            within = first.interval or None
        known = first.since or first.created_at
        state = first.state
        if known is not None and known < first.at:
            began, within = known, 0.0
            if first.since is None and first.notified and first.told_by == "event" and self._is_later(first):
                state = UNKNOWN  # the notification tells of a change, and existence before it
        self._found.append(
            LifeSegment(
                state=state if state is not None else "",
                flavor=first.flavor,
                size=first.size,
                project_id=first.project_id,
                user_id=first.user_id,
                name=first.name,
                began=began,
                began_told_by=first.told_by,
                began_within=within,
            )
        )
        self._confirmed = first.at if state == first.state else began
        if state != first.state:
            self._change(first.at, 0.0, first)

    @staticmethod
    def _is_later(first: Observation) -> bool:
        """Return whether a notification came too long after the creation to be part of it."""
        assert first.created_at is not None
        return first.at - first.created_at > MAX_AUDIT

    def _take(self, index: int, point: _Point) -> None:
        told, current = point.observation, self._found[-1]
        state = self._state(told, current)
        same = (
            current.state in ("", state)
            and (told.flavor is None or current.flavor in (None, told.flavor))
            and (told.size is None or current.size in (None, told.size))
            and (told.project_id is None or current.project_id in (None, told.project_id))
        )
        if same:
            self._found[-1] = replace(
                current,
                state=state,
                flavor=told.flavor or current.flavor,
                size=current.size if told.size is None else told.size,
                project_id=told.project_id or current.project_id,
                user_id=told.user_id or current.user_id,
                name=told.name or current.name,
            )
            if told.state is not None and (current.size is None or told.size is not None):
                self._confirmed = max(self._confirmed, point.at)
        elif told.told_by == "audit":
            if not self._notified_later(index, told):
                self._change(*self._changed_before_audit(told, current), told)
        elif _is_event(told):
            self._change(told.at, 0.0, told)
        else:
            self._change_by_poll(point)

    def _state(self, told: Observation, current: LifeSegment) -> str:
        """Return the state that ``told`` tells, which is the current one if it tells none, or shows it as a host does."""
        if told.state is None:
            return current.state
        if self._kind.inventory or told.notified or not self._notified or current.state in ("", UNKNOWN):
            return told.state
        shown = STATES_SHOWN_BY_HOST.get(current.state)
        return current.state if shown is None or told.state in shown else told.state

    def _change_by_poll(self, point: _Point) -> None:
        """Change what polls tell otherwise, unless a notification within one interval says how it is."""
        told = point.observation
        before = bisect_right(self._events, point.at)
        changed = point.at if not point.closing else told.at
        if before:
            changed = max(changed, self._events[before - 1] + timedelta(seconds=told.interval))
        if changed > point.at:
            return
        if not point.closing and (self._notification_follows(told) or self._deletion_follows(told)):
            return
        changed = max(changed, self._confirmed)
        self._change(changed, (changed - self._confirmed).total_seconds(), told)
        self._confirmed = max(self._confirmed, point.at)

    def _notification_follows(self, told: Observation) -> bool:
        """Return whether a notification has the time of ``told``, or follows it within one polling interval."""
        following = bisect_left(self._notifications, told.at)
        limit = told.at + timedelta(seconds=told.interval)
        return following < len(self._notifications) and self._notifications[following] <= limit

    def _deletion_follows(self, told: Observation) -> bool:
        """Return whether a notification of the deletion follows ``told`` within one polling interval."""
        if self._end is None or not self._end.observation.notified:
            return False
        return self._end.at <= told.at + timedelta(seconds=told.interval)

    def _notified_later(self, index: int, audit: Observation) -> bool:
        """Return whether an audit reports a change that has its own notification soon after."""
        for following in range(index + 1, len(self._points)):
            point = self._points[following]
            told = point.observation
            if point.at >= audit.at + MAX_AUDIT:
                return False
            if told.notified and _is_event(told) and _description(told) == _description(audit):
                return True
        return False

    def _changed_before_audit(self, audit: Observation, current: LifeSegment) -> tuple[datetime, float]:
        """Return when the change happened that an audit reports, and how many seconds earlier it may have happened."""
        since = audit.since
        started = audit.state in RUNNING and current.state not in RUNNING
        if (
            since is not None
            and (started or audit.flavor != current.flavor)
            and current.began < since < audit.at + MAX_AUDIT
        ):
            return since, 0.0
        return audit.at, max(0.0, (audit.at - self._confirmed).total_seconds())

    def _change(self, at: datetime, within: float | None, told: Observation) -> None:
        """End the current segment and begin one as ``told``; what is not told stays."""
        current = self._found[-1]
        at = max(at, current.began)
        if at == current.began and told.told_by == current.began_told_by:
            # Another meter of the same poll, or of the same notification, tells the rest of one change.
            self._found.pop()
            within = current.began_within
        else:
            self._found[-1] = replace(current, ended=at, ended_told_by=told.told_by, ended_within=within)
        self._found.append(
            replace(
                current,
                state=self._state(told, current),
                flavor=told.flavor or current.flavor,
                size=current.size if told.size is None else told.size,
                project_id=told.project_id or current.project_id,
                user_id=told.user_id or (current.user_id if told.project_id in (None, current.project_id) else None),
                name=told.name or current.name,
                began=at,
                began_told_by=told.told_by,
                began_within=within,
            )
        )
        self._confirmed = max(self._confirmed, told.at)

    def _pass_silence(self, until: datetime, *, ends: bool = True) -> None:
        """Make the state unknown from one interval after the last observation until ``until``, if that is long."""
        interval = timedelta(seconds=self._interval)
        current = self._found[-1]
        if not interval or until - self._heard <= SILENT_INTERVALS * interval:
            return
        since = max(self._heard + interval, current.began)
        if current.state != UNKNOWN:
            self._found[-1] = replace(
                current, ended=since, ended_told_by="silence", ended_within=interval.total_seconds()
            )
            current = replace(
                current, state=UNKNOWN, began=since, began_told_by="silence", began_within=interval.total_seconds()
            )
            self._found.append(current)
        self._confirmed = max(self._confirmed, self._heard)

    def _finish(self, end: _End) -> None:
        if not end.observation.notified:
            self._pass_silence(end.at)
        current = self._found[-1]
        within = end.observation.uncertainty
        if within is None:
            within = max(0.0, (end.at - max(self._confirmed, self._heard)).total_seconds())
        self._found[-1] = replace(
            current,
            ended=max(end.at, current.began),
            ended_told_by=end.observation.told_by,
            ended_within=within,
        )


def _is_event(observation: Observation) -> bool:
    return observation.told_by == "event"


def _description(observation: Observation) -> tuple[str | None, str | None, float | None, str | None]:
    return observation.state, observation.flavor, observation.size, observation.project_id
