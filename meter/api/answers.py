"""The answers: one function per operation, from a question that is understood to the record that is sent."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import cast
from typing import get_args
from urllib.parse import unquote

from meter.api import rendering
from meter.api.faults import Fault
from meter.api.faults import invalid_input
from meter.api.faults import unknown_argument
from meter.api.simple_query import METADATA_PREFIXES
from meter.api.simple_query import METER_FIELDS
from meter.api.simple_query import RESOURCE_FIELDS
from meter.api.simple_query import SAMPLE_FIELDS
from meter.api.simple_query import SimpleQuery
from meter.api.simple_query import simple_query
from meter.api.visibility import VisibleStore
from meter.query import STANDARD_AGGREGATES
from meter.query import Aggregate
from meter.query import AggregateFunction
from meter.query import Grouping
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.query import StoredResource

GROUPABLE_IDS = ("user_id", "resource_id", "project_id", "source")
COUNTABLE_IDS = ("resource_id", "user_id", "project_id")
FUNCTIONS = get_args(AggregateFunction)

LONGEST_PERIOD_SECONDS = 100 * 366 * 24 * 3600
"""A century; what is much longer leads out of the calendar."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one answer may hold.

    ``default`` entries when the question names no limit, ``largest`` the largest it may name; ``windows`` of statistics.
    """

    default: int = 100
    largest: int = 10_000
    windows: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Question:
    """A request that has been read: names from the path, arguments by parameter, and what is there to answer it.

    ``now`` is in seconds since 1970; ``base_url`` has no slash at its end.
    """

    path: Mapping[str, str]
    arguments: Mapping[str, Any]
    store: VisibleStore
    base_url: str
    limits: Limits
    now: float

    @property
    def limit(self) -> int:
        """How many entries to answer with; :class:`Fault` when more were asked for than there may be."""
        asked = self.arguments["limit"]
        if asked is None:
            return self.limits.default
        if asked <= 0:
            raise Fault(400, "Limit must be positive")
        if asked > self.limits.largest:
            raise invalid_input("limit", asked, f"it may be at most {self.limits.largest}; ask for shorter ranges.")
        return int(asked)


async def versions(question: Question) -> rendering.Versions:
    """Answer ``/``."""
    return rendering.versions(question.base_url)


async def meters(question: Question) -> Sequence[rendering.Meter]:
    """Answer ``/v2/meters``."""
    asked = simple_query(question.arguments["q"], METER_FIELDS)
    rows = await question.store.meters(asked.filter, question.limit, bool(question.arguments["unique"]))
    return [rendering.meter(row) for row in rows]


async def meter_samples(question: Question) -> Sequence[rendering.OldSample]:
    """Answer ``/v2/meters/{meter}``."""
    rows = await question.store.samples(_of_meter(question).filter, question.limit)
    return [rendering.old_sample(row) for row in rows]


def _of_meter(question: Question) -> SimpleQuery:
    return simple_query(question.arguments["q"], SAMPLE_FIELDS, {"meter": question.path["meter"]})


async def samples(question: Question) -> Sequence[rendering.Sample]:
    """Answer ``/v2/samples``."""
    asked = simple_query(question.arguments["q"], SAMPLE_FIELDS)
    return [rendering.sample(row) for row in await question.store.samples(asked.filter, question.limit)]


async def one_sample(question: Question) -> rendering.Sample:
    """Answer ``/v2/samples/{id}``."""
    row = await question.store.sample(question.path["id"])
    if row is None:
        raise Fault(404, f"Sample {question.path['id']} Not Found")
    return rendering.sample(row)


async def resources(question: Question) -> Sequence[rendering.Resource]:
    """Answer ``/v2/resources``."""
    asked = simple_query(question.arguments["q"], RESOURCE_FIELDS)
    rows = await question.store.resources(asked.filter, question.limit)
    meter_links = question.arguments["meter_links"] != 0
    return [rendering.resource(row, question.base_url, meter_links) for row in rows]


async def one_resource(question: Question) -> rendering.Resource:
    """Answer ``/v2/resources/{id}``."""
    resource_id = question.path["id"]
    row = await _resource(question, resource_id)
    if row is None and "\0" not in (decoded := unquote(resource_id)) and decoded != resource_id:
        # Ceilometer decoded this id twice, so its clients encode it twice.
        row = await _resource(question, decoded)
    if row is None:
        raise Fault(404, f"Resource {resource_id} Not Found")
    return rendering.resource(row, question.base_url, meter_links=True)


async def _resource(question: Question, resource_id: str) -> StoredResource | None:
    rows = await question.store.resources(SampleFilter(equals={"resource_id": resource_id}), 1)
    return rows[0] if rows else None


async def capabilities(question: Question) -> rendering.Capabilities:
    """Answer ``/v2/capabilities``."""
    able = [f"{kind}:query:{way}" for kind in ("meters", "resources", "samples") for way in ("simple", "metadata")]
    able += ["statistics:groupby", "statistics:query:simple", "statistics:query:metadata"]
    able += ["statistics:aggregation:standard"]
    able += [f"statistics:aggregation:selectable:{function}" for function in FUNCTIONS]
    return rendering.Capabilities(
        api={**dict.fromkeys(able, True), "samples:query:complex": False},
        storage={"storage:production_ready": True},
    )


# --- statistics ----------------------------------------------------------------------------------------------------


async def statistics(question: Question) -> Sequence[rendering.StatisticsRow]:
    """Answer ``/v2/meters/{meter}/statistics``."""
    asked = _of_meter(question)
    groupings = _groupings(question.arguments["groupby"])
    query = StatisticsQuery(
        filter=asked.filter,
        period=_period(question, asked),
        groupby=tuple(groupings),
        aggregates=_aggregates(question.arguments["aggregate"]),
    )
    selected = bool(question.arguments["aggregate"])
    rows = await question.store.statistics(query)
    return [rendering.statistics_row(row, asked, groupings, selected) for row in rows]


def _groupings(names: Sequence[str]) -> dict[Grouping, str]:
    """Return the groupings that ``names`` mean, each once, with the name it was asked for by."""
    wrong = sorted(name for name in set(names) if name not in GROUPABLE_IDS and not _metadata_grouping(name))
    if wrong:
        raise unknown_argument(", ".join(wrong), "Invalid groupby fields")
    return {_metadata_grouping(name) or name: name for name in names}


def _metadata_grouping(name: str) -> Grouping:
    """Return the grouping by metadata that ``name`` means, empty if it means none."""
    return next((f"metadata.{name[len(p) :]}" for p in METADATA_PREFIXES if name.startswith(p) and name != p), "")


def _period(question: Question, asked: SimpleQuery) -> int | None:
    """Return the length of a window in seconds; :class:`Fault` when there would be too many of them."""
    period: int | None = question.arguments["period"]
    if not period:
        return None
    if period < 0:
        raise Fault(400, "Period must be positive.")
    if period > LONGEST_PERIOD_SECONDS:
        raise Fault(400, f"Invalid period {period}: it may be at most {LONGEST_PERIOD_SECONDS} s.")
    if asked.filter.start is not None:
        end = asked.filter.end.timestamp() if asked.filter.end else question.now
        windows = int((end - asked.filter.start.timestamp()) // period)
        if windows > question.limits.windows:
            raise Fault(
                400,
                f"Invalid period {period}: it would make {windows} windows, and there may be at most"
                f" {question.limits.windows}.",
            )
    return period


def _aggregates(terms: Sequence[Mapping[str, str]]) -> tuple[Aggregate, ...]:
    """Return the selectable aggregates that were asked for, each once; the standard ones when none were."""
    return tuple(dict.fromkeys(map(_aggregate, terms))) or STANDARD_AGGREGATES


def _aggregate(term: Mapping[str, str]) -> Aggregate:
    function, param = term["func"], term.get("param") or None
    if function not in FUNCTIONS:
        raise Fault(400, f"Invalid aggregation function: {function}")
    if param not in (COUNTABLE_IDS if function == "cardinality" else (None,)):
        raise Fault(400, f"Bad aggregate: {function}.{param}")
    return Aggregate(cast(AggregateFunction, function), param)
