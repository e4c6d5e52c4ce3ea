"""The page ``/query``: an explorer of the API."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from meter.api.auth.authorization import AuthorizationEnded
from meter.api.errors import ApiError
from meter.api.errors import Unauthenticated
from meter.api.request.context import RequestContext
from meter.api.request.simple_query import CONVERSIONS
from meter.api.request.simple_query import TIME_OPERATORS
from meter.api.request.statistics import FUNCTIONS
from meter.api.request.statistics import GROUPABLE_IDS
from meter.api.responses import RawResponse
from meter.api.web.explorer.answers import answer_of
from meter.api.web.explorer.answers import question_error
from meter.api.web.explorer.questions import ASKABLE
from meter.api.web.explorer.questions import DEFAULT_RANGE
from meter.api.web.explorer.questions import PARAMETERS
from meter.api.web.explorer.questions import given
from meter.api.web.explorer.questions import given_terms
from meter.api.web.explorer.questions import question_of
from meter.api.web.meter_usage.meter_choice import meter_choice
from meter.api.web.meter_usage.view import term_pairs
from meter.api.web.operation import page
from meter.api.web.page import page_response
from meter.api.web.page_range import RANGES
from meter.api.web.page_range import WINDOWS
from meter.interfaces import RequestError

EMPTY_TERM = {"field": "", "op": "eq", "value": "", "type": ""}

EMPTY_TERMS = 2
"""Rows for terms that the form has besides those of the question."""

OFFERED_AGGREGATES = (
    *(each for each in FUNCTIONS if each not in ("cardinality", "percentile")),
    "cardinality/resource_id",
    "percentile/95",
)
"""Aggregates that the form offers; the URL can have others."""

SHOWN_STATUSES = (400, 401, 403, 404, 422)
"""Errors of the API that the page shows beside the question; others are those of the page itself."""


async def query(context: RequestContext) -> RawResponse:
    """Handle ``/query``."""
    arguments = context.arguments
    question = answer = error = None
    try:
        question = question_of(arguments, context.now)
        if question is not None:
            answer = await answer_of(context, question)
    except (ApiError, RequestError) as refused:
        error = question_error(refused, arguments["ask"])
        if error.status not in SHOWN_STATUSES or isinstance(refused, Unauthenticated | AuthorizationEnded):
            raise
    meters = await meter_choice(context.store, arguments["meter"] or "")
    terms = [EMPTY_TERM | each for each in (*given_terms(arguments["q"]), *([EMPTY_TERM] * EMPTY_TERMS))]
    groupings = given(arguments["groupby"])
    aggregates = given(arguments["aggregate"])
    following = None
    if answer is not None and answer.marker is not None:
        following = f"/query?{urlencode([*_pairs(context), ('marker', answer.marker)])}"
    return await page_response(
        context,
        "query.html",
        "Query",
        question=question,
        answer=answer,
        error=error,
        command="" if question is None else question.command(context.base_url),
        knows_address=bool(context.base_url),
        following=following,
        kind=arguments["ask"] or ASKABLE[0],
        kinds=ASKABLE,
        expr=arguments["expr"] or "",
        meters=meters,
        meter=arguments["meter"] or "",
        terms=terms,
        operators=[*dict.fromkeys(("eq", *TIME_OPERATORS, *(each["op"] for each in terms)))],
        types=tuple(CONVERSIONS),
        ranges=RANGES,
        range=arguments["range"] or (None if arguments["start"] or arguments["end"] else DEFAULT_RANGE),
        start=arguments["start"] or "",
        end=arguments["end"] or "",
        groupings=[*dict.fromkeys((*GROUPABLE_IDS, *groupings))],
        chosen_groupings=groupings,
        period=arguments["period"] or "",
        windows=WINDOWS,
        aggregates=[*dict.fromkeys((*OFFERED_AGGREGATES, *aggregates))],
        chosen_aggregates=aggregates,
    )


def _pairs(context: RequestContext) -> list[tuple[str, str]]:
    """Return the parameters of the page but the marker, without empty ones."""
    pairs: list[tuple[str, str]] = []
    arguments: dict[str, Any] = dict(context.arguments)
    for name in ("ask", "meter", "expr", "range", "start", "end", "period"):
        if arguments[name] is not None:
            pairs.append((name, arguments[name]))
    pairs += term_pairs(given_terms(arguments["q"]))
    return [*pairs, *((name, each) for name in ("groupby", "aggregate") for each in given(arguments[name]))]


PAGES = (page("/query", query, "An explorer of the API.", *PARAMETERS),)
