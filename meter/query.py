"""Questions to the store and its answers, as frozen records. Times are aware and in UTC throughout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from typing import Any
from typing import Literal

import msgspec

from meter.sample import SampleType

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
]
"""``stddev`` is the population's. ``increase`` is how much a cumulative meter grew, per run (:mod:`meter.counter_runs`) of a resource
and summed: within a declared run a lower volume counts nothing, otherwise it was counted from zero. The first sample of a
run counts nothing, unless the run is by host and another host had a sample of the resource before: then all of it counts.
``rate`` is the increase divided by the seconds between samples of a run, per resource and summed. ``integral`` is for
gauges: each volume holds until the resource's next sample, but for three polling intervals at most unless both samples are
of one declared run or the interval is unknown, times hours (``GB`` gives GB-hours), summed. ``percentile`` takes its
parameter between 0 and 100, and interpolates between neighbours."""

Field = str
"""Of a sample: an :data:`IdField`, ``type``, ``unit``, ``volume``, ``timestamp``, ``recorded_at``, ``signature``, or
``metadata.<dotted key>``."""

Scalar = str | int | float | bool | datetime


@dataclass(frozen=True, slots=True)
class Comparison:
    """``field operator value``. A field that is absent or null matches no comparison but ``!=``; ``~`` is a regular
    expression of PostgreSQL's, found anywhere in a text."""

    field: Field
    operator: Literal["=", "!=", "<", "<=", ">", ">=", "~"]
    value: Scalar


@dataclass(frozen=True, slots=True)
class In:
    """``field`` is one of ``values``."""

    field: Field
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class And:
    """All ``parts`` hold."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of ``parts`` holds."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """``part`` does not hold."""

    part: Expression


Expression = Comparison | In | And | Or | Not


@dataclass(frozen=True, slots=True)
class Order:
    """One criterion of order."""

    field: Field
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Marker:
    """The last sample of a page: the next page begins after it. Stable while samples arrive."""

    timestamp: datetime
    message_id: str


@dataclass(frozen=True, slots=True)
class MetadataMatch:
    """``metadata[key] == value``, compared with its type: ``0`` is neither ``"0"`` nor ``False``.

    ``key`` is dotted (``flavor.name``); an element of a list is ``key[0]``.
    """

    key: str
    value: str | int | float | bool | datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFilter:
    """Which samples a question is about.

    ``equals`` maps a field to its value, ``None`` for samples that have none; a field that is absent may be anything.
    The range is ``start <= timestamp < end`` unless ``after_start`` (``<``) or ``through_end`` (``<=``) say otherwise.
    ``expression`` is a condition more. ``as_of`` leaves out what was recorded later: the same question has the same
    answer next year.
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
    """A selectable aggregate.

    ``param`` is what ``cardinality`` counts (``resource_id``, ``user_id``, ``project_id``) and which ``percentile``.
    """

    function: AggregateFunction
    param: str | None = None

    @property
    def label(self) -> str:
        """The name under which the answer lists it: ``max``, ``cardinality/resource_id``."""
        return self.function if self.param is None else f"{self.function}/{self.param}"


STANDARD_AGGREGATES = tuple(Aggregate(function) for function in ("max", "min", "avg", "sum", "count"))


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsQuery:
    """Statistics of the samples of ``filter``: one row per unit, group and window that has samples.

    ``period`` is the length of a window in seconds; windows start at ``filter.start``, or at the first matching
    sample, and hold ``start <= timestamp < end``. Without a period there is one window from first to last sample.
    ``limit`` is how many rows to answer with at most, the oldest.
    """

    filter: SampleFilter
    period: int | None = None
    groupby: tuple[Grouping, ...] = ()
    aggregates: tuple[Aggregate, ...] = STANDARD_AGGREGATES
    limit: int | None = None


class StoredSample(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the store. ``recorded_at`` is when it was committed; ``metadata`` is as sent, nested.

    (A struct is made in an eighth of the time of a dataclass, and there are tens of thousands in an answer.)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMeter:
    """A meter of one resource in one type and unit, by its newest sample of these; with ``unique`` asked, all but name,
    type and unit is ``None``."""

    name: str
    type: SampleType
    unit: str
    resource_id: str | None
    user_id: str | None
    project_id: str | None
    source: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResource:
    """A resource: owner, source and metadata of its newest matching sample, and its first and last in the range.

    ``meters`` has a name once for each type and unit that the meter occurs in.
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
    """One row of statistics. ``values`` has a number per asked aggregate, by label; ``first`` and ``last`` are the
    timestamps of the oldest and newest sample in the row; ``group`` has a value per asked grouping."""

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
    """One message of a batch that the store will never take, by its position in the batch.

    ``unstorable`` is what the store cannot hold; ``conflict`` what has the ``message_id`` of another stored sample.
    """

    index: int
    reason: str
    kind: Literal["unstorable", "conflict"] = "unstorable"


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of a batch, committed: ``stored`` new rows, ``duplicates`` known already, ``refused`` ones."""

    stored: int
    duplicates: int
    refused: tuple[Refusal, ...] = ()
