"""Answers of the API to a question of the page *Query*: its entries as a table, and statistics by window as a chart."""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl
from urllib.parse import urlencode
from urllib.parse import urlsplit

import msgspec

from meter.api.errors import ApiError
from meter.api.prometheus.results import MatrixSeries
from meter.api.request.context import RequestContext
from meter.api.responses import ListResponse
from meter.api.responses import SampleListResponse
from meter.api.web import formats
from meter.api.web.charts.time_series import TimeSeriesChart
from meter.api.web.explorer.answer_chart import answer_chart
from meter.api.web.explorer.answer_chart import promql_chart
from meter.api.web.explorer.questions import PAGE_ROWS
from meter.api.web.explorer.questions import PROMQL
from meter.api.web.explorer.questions import STATISTICS
from meter.api.web.explorer.questions import Question
from meter.interfaces import RequestError

OMITTED = frozenset({"links", "meter_id", "message_signature", "signature_scheme", "groupby", "aggregate"})
"""Members of entries that have no column of their own."""

MAX_CELL_CHARACTERS = 2000
"""Characters of a cell; the answer of the API has all."""


@dataclass(frozen=True, slots=True)
class AnswerCell:
    """A value in the table: its text, whether it is a number, what it links to, and whether it is JSON, which is folded."""

    text: str
    number: bool = False
    link: str | None = None
    folded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer: columns and at most :data:`PAGE_ROWS` rows of ``entries``, and a chart if it is one by window.

    ``marker`` is that of the next page. ``warning`` is what the API warns of.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[AnswerCell]]
    entries: int
    marker: str | None
    warning: str
    chart: TimeSeriesChart | None


@dataclass(frozen=True, slots=True)
class QuestionError:
    """What the API says about a question that it refuses, and the field of the page that it is about."""

    status: int
    text: str
    field: str


async def answer_of(context: RequestContext, question: Question) -> Answer:
    """Return the answer of the API's handler; it raises what the handler raises."""
    api = question.context(context)
    response = await question.operation.handler(api)
    rows: list[Any]
    if isinstance(response, SampleListResponse):
        rows = await response.records(context.slices)
        flat = [_flat(msgspec.structs.asdict(record)) for record in rows[:PAGE_ROWS]]
    else:
        assert isinstance(response, ListResponse)
        rows = response.rows
        if question.kind == PROMQL:
            return _promql_answer(question, rows, response.envelope)
        flat = [_flat(msgspec.structs.asdict(response.render(row))) for row in rows[:PAGE_ROWS]]
    columns = list(dict.fromkeys(name for entry in flat for name in entry))
    period = api.arguments.get("period")
    chart = None
    if question.kind == STATISTICS and period and rows:
        chart = answer_chart(question.path["meter"], rows, period)
    return Answer(
        columns=columns,
        rows=[[_cell(name, entry.get(name)) for name in columns] for entry in flat],
        entries=len(rows),
        marker=_marker(response.headers),
        warning=response.headers.get("Warning", "").partition('"')[2].rstrip('"'),
        chart=chart,
    )


def _flat(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of an entry: the groups and aggregates of statistics each have their own."""
    groups, aggregates = entry.get("groupby"), entry.get("aggregate")
    columns = {name: value for name, value in entry.items() if name not in OMITTED and value is not msgspec.UNSET}
    return {
        **(groups if isinstance(groups, dict) else {}),
        **columns,
        **(aggregates if isinstance(aggregates, dict) else {}),
    }


def _promql_answer(question: Question, series: Sequence[MatrixSeries], envelope: tuple[bytes, bytes] | None) -> Answer:
    """Return the newest value of each series, and the chart of all values."""
    names = sorted({name for each in series for name, _ in each.labels})
    rows = []
    for each in series[:PAGE_ROWS]:
        labels, newest = dict(each.labels), each.points[-1]
        time = datetime.fromtimestamp(newest.time, UTC)
        rows.append([*(_cell("", labels.get(name)) for name in names), _cell("", time), _cell("", newest.value)])
    told = msgspec.json.decode(b"".join(envelope)) if envelope else {}
    return Answer(
        columns=[*names, "time", "value"],
        rows=rows,
        entries=len(series),
        marker=None,
        warning="; ".join(told.get("warnings", ())),
        chart=promql_chart(dict(question.pairs), series) if series else None,
    )


LINKS: Mapping[str, Callable[[str], str]] = {
    "resource_id": lambda value: f"/resource?{urlencode({'id': value})}",
    "project_id": lambda value: f"/usage?{urlencode({'project': value, 'group': 'resource'})}",
    "meter": lambda value: f"/usage?{urlencode({'meter': value})}",
}
"""Pages that columns link to."""


def _cell(name: str, value: Any) -> AnswerCell:
    match value:
        case None:
            return AnswerCell(formats.ABSENT)
        case bool():
            return AnswerCell(str(value).lower())
        case int() | float():
            return AnswerCell(formats.number(value), number=True)
        case datetime():
            return AnswerCell(formats.utc(value.replace(tzinfo=UTC)))
    if isinstance(value, msgspec.Raw):
        text = msgspec.json.format(bytes(value), indent=1).decode()
        return AnswerCell(text[:MAX_CELL_CHARACTERS], folded=True) if text != "{}" else AnswerCell(formats.ABSENT)
    text = str(value)
    if len(text) > MAX_CELL_CHARACTERS:
        text = f"{text[:MAX_CELL_CHARACTERS]}…"
    return AnswerCell(text, link=LINKS[name](text) if name in LINKS and text else None)


def _marker(headers: Mapping[str, str]) -> str | None:
    found = re.match(r"<(.*)>; rel=\"next\"", headers.get("Link", ""))
    return None if found is None else dict(parse_qsl(urlsplit(found[1]).query)).get("marker")


FIELDS = (
    (r"field/attribute (start|end|range)\b|^start must|^range cannot", "range"),
    (r"aggregat", "aggregate"),
    (r"groupby", "groupby"),
    (r"\b[Pp]eriod", "period"),
    (r"\bmarker\b", "marker"),
    (r"\bmeter: choose|\bfield/attribute ask\b", "meter"),
)
"""Which field a text of the API is about, the first that matches; otherwise it is about the terms of ``q``."""


def question_error(error: ApiError | RequestError, kind: str | None) -> QuestionError:
    """Return what is shown of an error of a question of this ``kind``."""
    text = error.text if isinstance(error, ApiError) else str(error)
    status = error.status if isinstance(error, ApiError) else 400
    if kind == PROMQL:
        other = [field for pattern, field in FIELDS[:1] if re.search(pattern, text)]
        step = "period" if re.search(r'"?step"?', text) else "expr"
        return QuestionError(status, text, other[0] if other else step)
    return QuestionError(status, text, next((field for pattern, field in FIELDS if re.search(pattern, text)), "q"))
