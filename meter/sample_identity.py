"""Duplicates and conflicts: when two messages with one ``message_id`` are the same sample, and when they are compared.

Every store follows these rules: it stores one row for a sample, however often it is delivered.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta
from typing import Any
from typing import NamedTuple
from typing import Protocol

from meter.sample import RESERVED_METADATA

WEEK = timedelta(weeks=1)


def start_of_week(week: date) -> datetime:
    """Return the time, in UTC, at which the day ``week`` begins: the Monday that names a week."""
    return datetime.combine(week, datetime.min.time(), UTC)


class Fact(NamedTuple):
    """The fields in which two messages with one id must agree. Metadata, source and wire format may differ.

    Volumes are compared as double precision numbers.
    """

    meter: str
    type: str
    unit: str
    resource_id: str
    user_id: str | None
    project_id: str | None
    volume: float
    timestamp: datetime


DIFFERENCES = frozenset({"timestamp", "volume", "user_id", "project_id"})
"""Fields that ``may_differ`` can contain."""


def may_differ(metadata: Mapping[str, Any]) -> frozenset[str]:
    """Return the fields of a :class:`Fact` in which another sample with the same id may differ and still be a duplicate.

    They are ``may_differ`` in the reserved metadata of samples about events that a service publishes more than once: Nova
    in a versioned and an unversioned notification, Cinder in an audit with the state at the time of the audit.
    """
    reserved = metadata.get(RESERVED_METADATA)
    named = reserved.get("may_differ") if isinstance(reserved, Mapping) else None
    return (
        DIFFERENCES.intersection(each for each in named if isinstance(each, str))
        if isinstance(named, list)
        else NOTHING
    )


NOTHING: frozenset[str] = frozenset()


def week_of(timestamp: datetime) -> date:
    """Return the Monday, in UTC, of the week of an aware time. The year 1 began on a Monday."""
    day = timestamp.astimezone(UTC).date()
    return day - timedelta(days=day.weekday())


def weeks_apart(one: datetime, other: datetime) -> int:
    """Return the number of weeks (in UTC) between two times: 0 for the same week, 1 for adjacent weeks."""
    return abs((week_of(one) - week_of(other)).days) // 7


def compared(one: datetime, other: datetime) -> bool:
    """Return whether a store compares the ids of two samples with these times: in the same week or in adjacent weeks."""
    return weeks_apart(one, other) <= 1


def compared_range(week: date) -> tuple[datetime, datetime]:
    """Return the first and the last time of the samples that a sample in ``week`` is compared with."""
    try:
        first = start_of_week(week - WEEK)
    except OverflowError:
        first = datetime.min.replace(tzinfo=UTC)
    try:
        last = start_of_week(week + 2 * WEEK) - timedelta(microseconds=1)
    except OverflowError:
        last = datetime.max.replace(tzinfo=UTC)
    return first, last


class FactAttributes(Protocol):
    """The attributes of a series, or of a sample, that belong to a :class:`Fact`."""

    @property
    def name(self) -> str:
        """The name of the meter."""

    @property
    def type(self) -> str:
        """The type of the meter."""

    @property
    def unit(self) -> str:
        """The unit of the meter."""

    @property
    def resource_id(self) -> str:
        """The resource."""

    @property
    def user_id(self) -> str | None:
        """The user who owns the resource."""

    @property
    def project_id(self) -> str | None:
        """The project that owns the resource."""


def fact_of(attributes: FactAttributes, volume: float, timestamp: datetime) -> Fact:
    """Return the fact of a sample with these attributes."""
    return Fact(
        attributes.name,
        attributes.type,
        attributes.unit,
        attributes.resource_id,
        attributes.user_id,
        attributes.project_id,
        float(volume),
        timestamp.astimezone(UTC),
    )


def conflict(
    message_id: str, sent: Fact, differences: frozenset[str], stored: Sequence[tuple[Fact, frozenset[str]]]
) -> str | None:
    """Return why ``sent`` conflicts with the ``stored`` facts of this ``message_id``; ``None`` if it is a duplicate of one.

    Each stored fact has the fields of its sample that :func:`may_differ`, ``differences`` are those of ``sent``; neither are
    compared.
    """
    if any(_same_fact(fact, sent, differences | others) for fact, others in stored):
        return None
    different = [
        f"{name} {_shown(sent_value)} (stored: {_shown(stored_value)})"
        for name, stored_value, sent_value in zip(Fact._fields, stored[0][0], sent, strict=True)
        if stored_value != sent_value
    ]
    return f"message_id {message_id!r} belongs to another sample, which is stored already; this one has {', '.join(different)}"


def _same_fact(one: Fact, other: Fact, differences: frozenset[str]) -> bool:
    pairs = zip(Fact._fields, one, other, strict=True)
    return all(value == other_value or name in differences for name, value, other_value in pairs)


def _shown(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else repr(value)
