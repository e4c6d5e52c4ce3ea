"""What a page of usage shows, from its URL: a meter, a range, a grouping and filters."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from meter.api.errors import ApiError
from meter.api.errors import invalid_input
from meter.api.operations import QUERY
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.request.simple_query import SAMPLE_FIELDS
from meter.api.request.simple_query import parse_simple_query
from meter.api.web.meter_usage.measures import MEASURES
from meter.api.web.meter_usage.measures import UsageMeasure
from meter.api.web.meter_usage.measures import measures_of
from meter.api.web.meter_usage.meter_choice import MeterChoice
from meter.api.web.meter_usage.meter_choice import meter_choice
from meter.api.web.meter_usage.windows import aligned_range
from meter.api.web.meter_usage.windows import chosen_window
from meter.api.web.page_range import END
from meter.api.web.page_range import RANGE
from meter.api.web.page_range import START
from meter.api.web.page_range import WINDOW
from meter.api.web.page_range import PageRange
from meter.api.web.page_range import page_range
from meter.query import Grouping
from meter.query import IdField
from meter.query import SampleFilter

GROUPINGS: Mapping[str, Grouping | None] = {
    "project": "project_id",
    "resource": "resource_id",
    "user": "user_id",
    "flavor": "metadata.flavor.name",
    "none": None,
}
"""What a page can group by, by its name in the URL."""

METER = Parameter("meter", "string", "The meter.")
GROUP = Parameter("group", "string", f"Group by {', '.join(GROUPINGS)}.")
BY = Parameter("by", "string", "Group by project, resource, user or flavor.")
MEASURE = Parameter("measure", "string", f"What is shown of the meter: {', '.join(MEASURES)}.")
PROJECT = Parameter("project", "string", "Only samples of the project with this id.")
RESOURCE = Parameter("resource", "string", "Only samples of the resource with this id.")
UNIT = Parameter("unit", "string", "Only samples with this unit, if the meter has several.")

SHARED = (METER, MEASURE, RANGE, START, END, PROJECT, RESOURCE, UNIT, QUERY)
USAGE_PARAMETERS = (*SHARED, GROUP, WINDOW)
TOP_PARAMETERS = (*SHARED, BY)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageView:
    """What is shown. ``filter`` has the meter, the range and all filters; ``range`` has whole windows of ``window`` seconds if there are windows.

    ``refused`` is the measure of the URL that the meter does not have; ``measure`` is the usual one then. ``unit`` is ``None``
    if the URL has none.
    """

    arguments: Mapping[str, Any]
    meters: MeterChoice
    group: str
    measures: Sequence[UsageMeasure]
    measure: UsageMeasure
    refused: str | None
    range: PageRange
    window: int
    filter: SampleFilter
    unit: str | None

    @property
    def grouping(self) -> Grouping | None:
        """The grouping of the store, ``None`` for one series of all."""
        return GROUPINGS[self.group]

    def url(self, path: str, **changes: str | int | None) -> str:
        """Return the link to the page at ``path`` with the same view but for ``changes``; ``None`` removes a parameter."""
        return f"{path}?{urlencode([*self.pairs(**changes), *term_pairs(self.arguments['q'])])}"

    def pairs(self, **changes: str | int | None) -> list[tuple[str, str]]:
        """Return the parameters of the URL, without those of ``q``; also of what is shown because the URL does not say it."""
        values = {name: value for name, value in self.arguments.items() if name != "q"}
        values["meter"] = self.meters.name
        values |= {name: self.group for name in ("group", "by") if name in values}
        if values["start"] is None and values["end"] is None:
            values["range"] = self.range.name
        values |= changes
        if any(name in changes for name in ("start", "end")) and "range" not in changes:
            values["range"] = None
        if "range" in changes:
            values |= {"start": None, "end": None}
        return [(name, str(value)) for name, value in values.items() if value is not None]

    def narrowed(self, field: str, value: str) -> str:
        """Return the link to the usage with one more term of ``q``."""
        terms = (*self.arguments["q"], {"field": field, "value": value, "type": "string"})
        return f"/usage?{urlencode([*self.pairs(group='resource', by=None), *term_pairs(terms)])}"

    def without_term(self, path: str, index: int) -> str:
        """Return the link to the page at ``path`` without one term of ``q``."""
        terms = [each for n, each in enumerate(self.arguments["q"]) if n != index]
        return f"{path}?{urlencode([*self.pairs(), *term_pairs(terms)])}"

    def unfiltered(self, path: str) -> str:
        """Return the link to the page at ``path`` without filters."""
        return f"{path}?{urlencode(self.pairs(project=None, resource=None, unit=None))}"


def term_pairs(terms: Iterable[Mapping[str, str]]) -> list[tuple[str, str]]:
    """Return the parameters of the ``terms`` of a query in the indexed form, which keeps the members of each term together."""
    return [(f"q[{n}].{member}", text) for n, term in enumerate(terms) for member, text in term.items()]


async def usage_view(
    context: RequestContext, group: str | None, default_range: str, *, window: int | None = None, windows: bool = True
) -> UsageView:
    """Return what the URL of a page asks for; :class:`~meter.api.errors.ApiError` 400 for parameters that are wrong.

    Without ``windows`` the range is exactly that of the URL.
    """
    arguments = context.arguments
    group = group or ("project" if context.requester.is_admin else "resource")
    if group not in GROUPINGS:
        raise invalid_input("group", group, f"use {', '.join(GROUPINGS)}.")
    name = arguments["measure"]
    if name is not None and name not in MEASURES:
        raise invalid_input("measure", name, f"use {', '.join(MEASURES)}.")
    asked = page_range(arguments, context.now, default_range)
    length = chosen_window(asked, window)
    range = aligned_range(asked, length) if windows else asked
    fixed: dict[IdField, str] = {}
    if arguments["project"] is not None:
        fixed["project_id"] = arguments["project"]
    if arguments["resource"] is not None:
        fixed["resource_id"] = arguments["resource"]
    simple = parse_simple_query(arguments["q"], SAMPLE_FIELDS, fixed=fixed)
    if simple.start is not None or simple.end is not None:
        raise ApiError(400, "The range of a page is that of start and end: q cannot have the field timestamp.")
    meters = await meter_choice(context.store, arguments["meter"])
    measures = measures_of(meters.chosen.types if meters.chosen else ("gauge",))
    measure = next((each for each in measures if each.function == name), None)
    filter = replace(
        simple.filter,
        equals={**simple.filter.equals, **({} if meters.name is None else {"meter": meters.name})},
        start=range.start,
        end=range.end,
    )
    return UsageView(
        arguments=arguments,
        meters=meters,
        group=group,
        measures=measures,
        measure=measure or measures[0],
        refused=None if measure is not None or meters.chosen is None else name,
        range=range,
        window=length,
        filter=filter,
        unit=arguments["unit"],
    )
