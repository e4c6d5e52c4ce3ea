"""Queries to the store and their results, as frozen records. All times are timezone-aware and in UTC."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from typing import Any
from typing import Literal

import msgspec

from meter.sample import SampleType
from meter.signing_keys import SignatureScheme

IdField = Literal["meter", "resource_id", "user_id", "project_id", "source", "message_id"]
Grouping = str
"""``resource_id``, ``user_id``, ``project_id``, ``source``, or ``metadata.<dotted key>``."""

AggregateFunction = Literal[
    "max",
    "min",
    "sum",
    "avg",
    "count",
    "stddev",
    "cardinality",
    "rate",
    "increase",
    "integral",
    "percentile",
    "first",
    "last",
    "polling_interval",
]
"""``stddev`` is the standard deviation of the population.

``increase`` is for cumulative meters: the sum of the increases from each sample of a run (:mod:`meter.counter_runs`) to the next
one. A lower volume is an increase of 0 within a declared run, and a counter reset elsewhere: the whole volume is the
increase. The first sample of a run is no increase, unless the run is defined by its host and another host had a sample of
the resource before: then the whole volume is, also when the resource comes back.

``rate`` is, summed over resources, the increase divided by the seconds between samples of the same run.

``integral`` is for gauges: the sum of volume times hours (``GB`` gives GB-hours), where a volume is valid until the next
sample of the resource. It is valid for three polling intervals at most, unless the interval is unknown or a later sample
belongs to the same declared run. While a measured volume is valid, those of notifications do not count, and none counts after the
deletion of its resource (:mod:`meter.testing.integral_hours`).

Steps lead between all samples of a meter and resource in the range, and count if the sample matches to which they belong.

``percentile`` takes a parameter from 0 to 100 and interpolates between neighbouring volumes.

``first`` and ``last`` are the volumes of the oldest and of the newest sample; of several with that time, one of
them. ``polling_interval`` is the longest polling interval in seconds that the samples state, 0 if none does
(:mod:`meter.counter_runs`)."""

Field = str
"""A field of a sample: an :data:`IdField`, ``type``, ``unit``, ``volume``, ``timestamp``, ``recorded_at``, ``signature``, or
``metadata.<dotted key>``."""

Scalar = str | int | float | bool | datetime


@dataclass(frozen=True, slots=True)
class Comparison:
    """``field operator value``. A field that is absent or null matches ``!=`` only; ``~`` searches a text for a regular
    expression in the syntax of :mod:`meter.text_pattern`."""

    field: Field
    operator: Literal["=", "!=", "<", "<=", ">", ">=", "~"]
    value: Scalar


@dataclass(frozen=True, slots=True)
class In:
    """``field`` equals one of ``values``."""

    field: Field
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class And:
    """All ``parts`` are true; with no parts, true."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of ``parts`` is true; with no parts, false."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """``part`` is false."""

    part: Expression


Expression = Comparison | In | And | Or | Not


@dataclass(frozen=True, slots=True)
class Order:
    """One sort key. Null values come last, or first if ``descending``."""

    field: Field
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Marker:
    """The position of the last sample of a page, after which the next page begins. It stays valid while samples are added."""

    timestamp: datetime
    message_id: str


@dataclass(frozen=True, slots=True)
class MetadataMatch:
    """``metadata[key] == value``, of the same type: ``0`` equals neither ``"0"`` nor ``False``.

    ``key`` is a dotted path (``flavor.name``); ``key[0]`` is the first element of a list.
    """

    key: str
    value: str | int | float | bool | datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFilter:
    """The samples that a query selects: those that meet all of these conditions.

    ``equals`` maps fields to their required values; ``None`` selects samples without the field. The range is
    ``start <= timestamp < end``; ``after_start`` makes it exclude ``start`` and ``through_end`` include ``end``. ``as_of``
    excludes samples recorded later, so that the same query has the same result at any later time.
    """

    equals: Mapping[IdField, str | None] = field(default_factory=dict)
    start: datetime | None = None
    end: datetime | None = None
    after_start: bool = False
    through_end: bool = False
    metadata: tuple[MetadataMatch, ...] = ()
    expression: Expression | None = None
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregate function with its parameter.

    ``param`` is the field whose distinct values ``cardinality`` counts (``resource_id``, ``user_id``, ``project_id``), or the
    percentage of ``percentile``.
    """

    function: AggregateFunction
    param: str | None = None

    @property
    def label(self) -> str:
        """Its key in the results: ``max``, ``cardinality/resource_id``."""
        return self.function if self.param is None else f"{self.function}/{self.param}"

    @property
    def fraction(self) -> float:
        """The parameter of a ``percentile`` as a fraction from 0 to 1. Raises ``ValueError`` if it is not from 0 to 100."""
        try:
            percent = float(self.param or "")
        except ValueError:
            percent = math.nan
        if not 0 <= percent <= 100:
            raise ValueError(f"percentile takes a number from 0 to 100, not {self.param!r}")
        return percent / 100


STANDARD_AGGREGATES = tuple(Aggregate(function) for function in ("max", "min", "avg", "sum", "count"))


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsQuery:
    """A query for statistics of the samples that ``filter`` selects: one row per unit, group and window that has samples.

    ``period`` is the length of a window in seconds. The first window starts at ``filter.start``, or at the first matching
    sample; a window has ``start <= timestamp < end``. Without a period there is one window from the first to the last
    sample. ``limit`` is the maximum number of rows; the oldest are returned.
    """

    filter: SampleFilter
    period: int | None = None
    groupby: tuple[Grouping, ...] = ()
    aggregates: tuple[Aggregate, ...] = STANDARD_AGGREGATES
    limit: int | None = None


class StoredSample(msgspec.Struct, frozen=True, kw_only=True):
    """A sample in the store. ``recorded_at`` is when it was stored; ``metadata`` is nested, as it was sent.

    It is a struct because creating one takes an eighth of the time of a dataclass, and a result may have tens of thousands.
    """

    message_id: str
    name: str
    type: SampleType
    unit: str
    volume: int | float
    resource_id: str
    user_id: str | None
    project_id: str | None
    source: str | None
    timestamp: datetime
    recorded_at: datetime
    metadata: Mapping[str, Any]
    signature: str
    key_id: str | None
    scheme: SignatureScheme | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMeter:
    """A meter of one resource with one type and unit; owner and source are those of its newest sample that
    describes the resource, or else of its newest sample.

    In the list of unique meters all fields except ``name``, ``type`` and ``unit`` are ``None``."""

    name: str
    type: SampleType
    unit: str
    resource_id: str | None
    user_id: str | None
    project_id: str | None
    source: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResource:
    """A resource with the owner, source and metadata of the newest matching sample that describes it.

    Unless the filter names a project, :func:`meter.resource_owner.describing` says which samples describe a resource.

    ``first_sample`` and ``last_sample`` are the timestamps of its oldest and newest of these samples. ``meters`` has the name
    of a meter once for each combination of type and unit.
    """

    resource_id: str
    user_id: str | None
    project_id: str | None
    source: str | None
    first_sample: datetime
    last_sample: datetime
    metadata: Mapping[str, Any]
    meters: tuple[str, ...]


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """One row of statistics: a window, unit and group.

    ``values`` has the number of each requested aggregate by its label, ``group`` the value of each requested grouping.
    ``first`` and ``last`` are the timestamps of the oldest and newest sample. ``period`` is 0 if the query had none."""

    unit: str
    group: Mapping[Grouping, str | None]
    period: int
    period_start: datetime
    period_end: datetime
    first: datetime
    last: datetime
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message of a batch that the store will never accept, by its position in the batch.

    ``unstorable``: PostgreSQL cannot store the message. ``conflict``: another sample with its ``message_id`` is stored.
    ``cause`` is what PostgreSQL says, for operators: it can name tables and indexes.
    """

    index: int
    reason: str
    kind: Literal["unstorable", "conflict"] = "unstorable"
    cause: str = ""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """The outcome of a committed batch: how many messages were stored, how many were duplicates, and the refused ones."""

    stored: int
    duplicates: int
    refused: tuple[Refusal, ...] = ()


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the audit log: what an administrator did. Entries are numbered from 1 without a gap.

    ``details`` is a JSON object, as text. ``previous`` is the ``hash`` of the entry before, 64 zeros for the first one;
    ``hash`` covers all other members (:mod:`meter.store.audit.chain`), both are hexadecimal. ``key_id`` is the id of the
    signing key from which the key of the hash is derived.
    """

    seq: int
    at: datetime
    who: str
    action: str
    reason: str
    details: str
    key_id: str
    previous: str
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """The entries of the audit log that a query selects: those that meet all of these conditions, with ``start <= at < end``."""

    action: str | None = None
    who: str | None = None
    start: datetime | None = None
    end: datetime | None = None
