"""Observations from stored samples and from cycle reports: what each of them says about the life of its resource."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from typing import Any

from meter.completeness.lives.kinds import ResourceKind
from meter.completeness.lives.life_store import ListedTime
from meter.completeness.lives.life_store import SampleRun
from meter.completeness.lives.observation import Observation
from meter.completeness.lives.observation import ToldBy
from meter.message import BadMessage
from meter.message import parse_timestamp

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""A creation before this is of a host whose clock was not set."""

DELETED = "deleted"


def observation_of_samples(kind: ResourceKind, run: SampleRun) -> Observation | None:
    """Return what a run of samples of one of the meters of ``kind`` says, ``None`` if it says nothing.

    Samples with neither an event type of the kind nor a polling interval say nothing: who made them is not known.
    """
    metadata = run.metadata
    event_type = _text(metadata, "event_type")
    if not run.interval if event_type is None else not event_type.startswith(kind.event_prefix):
        return None
    domain_event = event_type is None and _text(metadata, "event") is not None
    if run.meter == "power.state" and not domain_event:
        return None  # the meter instance says the same
    state = next((text for key in kind.state if (text := _text(metadata, key))), None)
    at, exists = run.first, _exists(kind, run)
    if state in kind.ended_states or (event_type is not None and event_type.endswith("instance.delete.end")):
        if exists and event_type is not None:
            # Samples from collectors that do not set the volume to 0 have the time of the notification.
            at = _time(metadata, "deleted_at") or at
        exists = False
    told_by: ToldBy
    if event_type is None:
        told_by = "event" if domain_event else "poll"
    else:
        told_by = "audit" if event_type.endswith(".exists") else "event"
    exact = told_by == "event" or (told_by == "audit" and _time(metadata, "deleted_at") is not None)
    is_size = run.meter in kind.sizing and exists
    return Observation(
        at=at,
        until=run.last if exists else None,
        exists=exists,
        told_by=told_by,
        state=state,
        flavor=_flavor(kind, metadata),
        size=run.volume if is_size else None,
        project_id=run.project_id,
        user_id=run.user_id,
        name=next((text for key in kind.named if (text := _text(metadata, key))), None),
        since=_launched(metadata, event_type, exists=exists) if not kind.inventory else None,
        created_at=_created(metadata) if kind.inventory else None,
        notified=event_type is not None,
        interval=run.interval,
        teller="" if kind.inventory else _text(metadata, "instance_host") or "",
        uncertainty=0.0 if exact else None,
    )


def observations_of_report(listed: ListedTime) -> list[Observation]:
    """Return what the cycle reports of one agent say about a resource."""
    seen = Observation(
        at=listed.first,
        until=listed.last,
        exists=True,
        told_by="report",
        project_id=listed.project_id,
        interval=listed.interval,
        teller=listed.host,
        uncertainty=listed.unlisted_seconds,
    )
    if listed.gone is None:
        return [seen]
    gone = Observation(at=listed.gone, exists=False, told_by="report", interval=listed.interval, teller=listed.host)
    return [seen, gone]


def _exists(kind: ResourceKind, run: SampleRun) -> bool:
    if run.volume != 0 or run.meter in kind.stating:
        return True
    # An image without data has the size 0; a volume, a snapshot, a backup or a share is never empty.
    return run.meter in kind.sizing and kind.unit == "B"


def _flavor(kind: ResourceKind, metadata: Mapping[str, Any]) -> str | None:
    value: Any = metadata
    if kind.flavor is None:
        return None
    for part in kind.flavor.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) and value else None


def _launched(metadata: Mapping[str, Any], event_type: str | None, *, exists: bool) -> datetime | None:
    """Return since when an instance has its state: an audit and the end of a creation report the state since the launch."""
    told = event_type is not None and (not exists or event_type.endswith((".exists", ".create.end")))
    return _time(metadata, "launched_at") if told else None


def _created(metadata: Mapping[str, Any]) -> datetime | None:
    created = _time(metadata, "created_at")
    return created if created is not None and created >= EARLIEST else None


def _text(metadata: Mapping[str, Any], name: str) -> str | None:
    value = metadata.get(name)
    return value if isinstance(value, str) and value else None


def _time(metadata: Mapping[str, Any], name: str) -> datetime | None:
    """Return a time in the metadata, ``None`` if it is not set or not valid."""
    text = _text(metadata, name)
    try:
        return None if text is None else parse_timestamp(text, name)
    except BadMessage:
        return None
