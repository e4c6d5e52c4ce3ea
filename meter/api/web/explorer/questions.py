"""Questions to the API, made from the fields of the page *Query*."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from meter.api.errors import ApiError
from meter.api.errors import invalid_input
from meter.api.operation import JSON
from meter.api.operation import MARKER
from meter.api.operation import Operation
from meter.api.operations import QUERY
from meter.api.operations import V2
from meter.api.prometheus_operations import PROMETHEUS
from meter.api.request.arguments import Pair
from meter.api.request.arguments import Parameter
from meter.api.request.arguments import parse_arguments
from meter.api.request.arguments import parse_pairs
from meter.api.request.context import RequestContext
from meter.api.request.simple_query import METER_FIELDS
from meter.api.request.simple_query import RESOURCE_FIELDS
from meter.api.request.simple_query import SAMPLE_FIELDS
from meter.api.request.simple_query import QueryableFields
from meter.api.request.url import query_url
from meter.api.web.formats import iso
from meter.api.web.meter_usage.windows import aligned_range
from meter.api.web.meter_usage.windows import usual_window
from meter.api.web.page_range import END
from meter.api.web.page_range import RANGE
from meter.api.web.page_range import START
from meter.api.web.page_range import PageRange
from meter.api.web.page_range import page_range

STATISTICS = "statistics"

KINDS: Mapping[str, QueryableFields] = {
    STATISTICS: SAMPLE_FIELDS,
    "samples": SAMPLE_FIELDS,
    "resources": RESOURCE_FIELDS,
    "meters": METER_FIELDS,
}
"""What can be asked for, with the fields of its terms: the names of operations of the API."""

PROMQL = "promql"

ASKABLE = (*KINDS, PROMQL)

OPERATIONS_BY_KIND: Mapping[str, Operation] = {
    **{each.name: each for each in V2 if each.name in KINDS},
    PROMQL: next(each for each in PROMETHEUS if each.name == "prometheus_query_range"),
}

ASK = Parameter("ask", "string", f"What is asked for: {', '.join(ASKABLE)}.")
METER = Parameter("meter", "string", "The meter.")
GROUPBY = Parameter("groupby", "string", "What statistics are grouped by.", many=True)
PERIOD = Parameter("period", "string", "Length of a window of statistics in seconds.")
AGGREGATE = Parameter("aggregate", "string", "An aggregate, with its parameter after a slash.", many=True)

EXPRESSION = Parameter("expr", "string", "An expression in PromQL.")

PARAMETERS = (ASK, METER, EXPRESSION, QUERY, RANGE, START, END, GROUPBY, PERIOD, AGGREGATE, MARKER)

DEFAULT_RANGE = "24h"

PAGE_ROWS = 100
"""Entries of a page of the answer."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request to the API: what it asks for, the variables of its path, the terms of ``q``, and its other parameters."""

    kind: str
    path: Mapping[str, str]
    terms: Sequence[Mapping[str, str]]
    pairs: Sequence[Pair]

    @property
    def operation(self) -> Operation:
        """The operation of the API."""
        return OPERATIONS_BY_KIND[self.kind]

    @property
    def url(self) -> str:
        """The path and the query string of the request."""
        path = self.operation.path
        for name, value in self.path.items():
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        return query_url(path, self.terms, self.pairs)

    def command(self, base_url: str) -> str:
        """Return the command line that asks the same. The token is that of the shell's variable ``TOKEN``.

        Without ``base_url`` the variable ``METER`` has to be the address of the API.
        """
        address = shlex.quote(base_url + self.url) if base_url else f'"$METER"{shlex.quote(self.url)}'
        return f'curl -s -H "X-Auth-Token: $TOKEN" {address}'

    def context(self, page: RequestContext) -> RequestContext:
        """Return the context of the request to the API, in place of that of the ``page``; :class:`ApiError` 400 if it is wrong."""
        return replace(
            page,
            path=self.path,
            arguments=parse_arguments(self.operation.parameters, parse_pairs(self.url.partition("?")[2].encode())),
            url=self.url,
            media_type=JSON,
        )


def question_of(arguments: Mapping[str, Any], now: float) -> Question | None:
    """Return the question of the page's ``arguments``, ``None`` if there is none yet; :class:`ApiError` 400 if it is wrong."""
    kind = arguments["ask"]
    if kind is None:
        return None
    if kind not in ASKABLE:
        raise invalid_input("ask", kind, f"use {', '.join(ASKABLE)}.")
    if kind == PROMQL:
        return _promql(arguments, now)
    terms = given_terms(arguments["q"])
    meter = arguments["meter"]
    if kind == "samples" and meter is not None:
        terms.append({"field": "meter", "value": meter})
    if KINDS[kind].times and not any(term["field"] == "timestamp" for term in terms):
        range = _range(arguments, now, kind)
        terms.append({"field": "timestamp", "op": "ge", "value": iso(range.start)})
        terms.append({"field": "timestamp", "op": "lt", "value": iso(range.end)})
    pairs: list[Pair] = []
    if kind != STATISTICS:
        pairs.append(("limit", str(PAGE_ROWS)))
        if arguments["marker"] is not None:
            pairs.append(("marker", arguments["marker"]))
        return Question(kind, {}, terms, pairs)
    if meter is None:
        raise ApiError(400, "Statistics need a meter: choose one.")
    pairs += [("groupby", each) for each in given(arguments["groupby"])]
    if arguments["period"] is not None:
        pairs.append(("period", arguments["period"]))
    functions = [each.partition("/") for each in given(arguments["aggregate"])]
    for function, _, parameter in functions:
        pairs.append(("aggregate.func", function))
        if any(each[2] for each in functions):
            pairs.append(("aggregate.param", parameter))
    return Question(kind, {"meter": meter}, terms, pairs)


def _promql(arguments: Mapping[str, Any], now: float) -> Question:
    """Return the question for the values of an expression at the end of each window of the range."""
    if arguments["expr"] is None:
        raise ApiError(400, "PromQL: enter an expression.")
    asked = page_range(arguments, now, DEFAULT_RANGE)
    step = arguments["period"] or str(usual_window(asked.seconds))
    range = _range({**arguments, "period": step}, now, PROMQL)
    first = range.start
    if step.isascii() and step.isdecimal() and int(step) < range.seconds:
        first += timedelta(seconds=int(step))
    pairs = [("query", arguments["expr"]), ("start", iso(first)), ("end", iso(range.end)), ("step", step)]
    return Question(PROMQL, {}, (), pairs)


def _range(arguments: Mapping[str, Any], now: float, kind: str) -> PageRange:
    """Return the range; one that ends now has whole windows of statistics, so that rollups serve them."""
    range = page_range(arguments, now, DEFAULT_RANGE)
    period = arguments["period"] or ""
    if range.name is None or kind not in (STATISTICS, PROMQL) or not (period.isascii() and period.isdecimal()):
        return range
    return aligned_range(range, int(period)) if 0 < int(period) <= range.seconds else range


def given(values: Sequence[str]) -> list[str]:
    """Return ``values`` without those of fields that were left empty."""
    return [each for each in values if each]


def given_terms(terms: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return ``terms`` without those of rows that were left empty, and without their empty members."""
    return [
        {member: text for member, text in term.items() if text or member == "value"} for term in terms if term["field"]
    ]
