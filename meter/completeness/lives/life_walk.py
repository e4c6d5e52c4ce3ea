"""The walk through the observations of one existence, in order of time, which makes its segments."""

from __future__ import annotations

from bisect import bisect_left
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from datetime import timedelta
from typing import NamedTuple

from meter.completeness.lives.kinds import RUNNING
from meter.completeness.lives.kinds import STATES_SHOWN_BY_HOST
from meter.completeness.lives.kinds import ResourceKind
from meter.completeness.lives.life_store import UNKNOWN_AFTER_INTERVALS
from meter.completeness.lives.observation import MAX_AUDIT
from meter.completeness.lives.observation import RANK
from meter.completeness.lives.observation import UNKNOWN
from meter.completeness.lives.observation import Ending
from meter.completeness.lives.observation import LifeSegment
from meter.completeness.lives.observation import Observation


class _Point(NamedTuple):
    """An observation as it stood at ``at``: at its first time, or (``closing``) at its last."""

    at: datetime
    observation: Observation
    closing: bool


class LifeWalk:
    """Walks through the observations of one existence in order of time and makes segments."""

    def __init__(
        self, kind: ResourceKind, lived: Sequence[Observation], notified: bool, end: Ending | None, now: datetime
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
                *(
                    # Only polls go on to say the same; of notifications each stands for itself.
                    _Point(each.last, each if each.interval else replace(each, at=each.last, until=None), True)
                    for each in lived
                    if each.last > each.at
                ),
            ],
            key=_order,
        )
        self._notifications = [
            point.at for point in self._points if point.observation.notified and _is_event(point.observation)
        ]
        self._events = (
            self._notifications if notified else [point.at for point in self._points if _is_event(point.observation)]
        )
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
        return _joined([each if each.state else replace(each, state=UNKNOWN) for each in self._found])

    def _begin(self, index: int, first: Observation) -> None:
        is_notification = first.notified and _is_event(first)
        if not is_notification and index + 1 < len(self._points) and self._notification_follows(first):
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
            flavor, project_id = told.flavor or current.flavor, told.project_id or current.project_id
            size = current.size if told.size is None else told.size
            user_id, name = told.user_id or current.user_id, told.name or current.name
            now = (state, flavor, size, project_id, user_id, name)
            if now != (
                *(current.state, current.flavor, current.size),
                *(current.project_id, current.user_id, current.name),
            ):
                self._found[-1] = replace(
                    current,
                    state=state,
                    flavor=flavor,
                    size=size,
                    project_id=project_id,
                    user_id=user_id,
                    name=name,
                )
            if told.state is not None and (current.size is None or told.size is not None):
                self._confirmed = max(self._confirmed, point.at)
        elif told.told_by == "audit":
            if not self._notified_later(index, told):
                self._change(*self._changed_before_audit(told, current), told)
        elif _is_event(told) and told.notified >= self._notified:
            self._change(told.at, 0.0, told)
        else:
            self._change_by_poll(point)  # what libvirt tells of a domain of Nova too

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
        within = 0.0 if _is_event(told) else (changed - self._confirmed).total_seconds()
        self._change(changed, within, told)
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
        if not interval or until - self._heard <= UNKNOWN_AFTER_INTERVALS * interval:
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

    def _finish(self, end: Ending) -> None:
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


def _order(point: _Point) -> tuple[object, ...]:
    """Return the key that orders points: of those with the same time, that of a poll that says it for the last time comes first.

    It does not matter whether notifications with the same content are one observation or several, as it depends on what is final.
    """
    told = point.observation
    return point.at, RANK[told.told_by], not (point.closing and told.interval), told.content_order


def _is_event(observation: Observation) -> bool:
    return observation.told_by == "event"


def _description(observation: Observation) -> tuple[str | None, str | None, float | None, str | None]:
    return observation.state, observation.flavor, observation.size, observation.project_id


def _joined(segments: list[LifeSegment]) -> list[LifeSegment]:
    """Return the segments, neighbours that are equal as one: of a change that was taken back at the same time nothing is left."""
    found: list[LifeSegment] = []
    for each in segments:
        last = found[-1] if found else None
        if last is not None and last.ended == each.began and _content(last) == _content(each):
            found[-1] = replace(
                each, began=last.began, began_told_by=last.began_told_by, began_within=last.began_within
            )
        else:
            found.append(each)
    return found


def _content(segment: LifeSegment) -> tuple[object, ...]:
    return segment.state, segment.flavor, segment.size, segment.project_id
