"""Questions about the past, and how their answers are compared: byte for byte, and otherwise but for the last digits of numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from datetime import timedelta
from typing import Any
from urllib.parse import quote
from urllib.parse import urlencode

from tests.system.daemons import fetch

METERS = ("past.cpu", "past.memory", "past.requests")
RELATIVE = 1e-12

Answers = dict[str, bytes]


def query(start: datetime, end: datetime, *more: tuple[str, str], project: str = "", resource: str = "") -> str:
    """Return the query string of a question about a time range."""
    words = [("timestamp", "ge", f"{start:%Y-%m-%dT%H:%M:%S}"), ("timestamp", "lt", f"{end:%Y-%m-%dT%H:%M:%S}")]
    words += [("project_id", "eq", project)] if project else []
    words += [("resource_id", "eq", resource)] if resource else []
    pairs = [(f"q.{part}", value) for word in words for part, value in zip(("field", "op", "value"), word, strict=True)]
    return urlencode([*pairs, *more])


def questions(start: datetime, month: str, samples: Sequence[str]) -> list[str]:
    """Return the paths of all questions about the days from ``start``; ``samples`` are ids, ``month`` has closed statements."""
    end = start + timedelta(days=3)
    odd = start + timedelta(hours=5, minutes=7)
    found = []
    for meter in METERS:
        statistics = f"/v2/meters/{meter}/statistics?"
        found += [
            statistics + query(start, end),
            statistics + query(start, end, ("period", "3600")),
            statistics + query(start, end, ("period", "86400"), ("groupby", "project_id")),
            statistics + query(odd, end, ("period", "420")),
            statistics + query(odd, end, ("groupby", "resource_id")),
            statistics + query(start, end, ("aggregate.func", "stddev"), ("aggregate.func", "avg"), ("period", "7200")),
            statistics + query(start, end, ("period", "3600"), resource="past-1"),
            statistics + query(start, odd, project="web"),
            f"/v2/meters/{meter}?" + query(start, end, ("limit", "200")),
        ]
    found += [
        "/v2/samples?" + query(start, end, ("limit", "1000"), project="shop"),
        "/v2/meters?" + urlencode([("q.field", "project_id"), ("q.op", "eq"), ("q.value", "shop")]),
        "/v2/resources?" + query(start, end, project="lab"),
        "/v2/resources/past-2",
        "/v2/completeness?" + urlencode({"start": start.isoformat(), "end": end.isoformat()}),
        "/v2/statements",
        f"/v2/statements/{month}.acme",
        f"/v2/statements/{month}.acme/annex",
        f"/v2/statements/{month}.lab",
        "/v2/statement-keys",
        "/v2/summary?" + urlencode({"begin": f"{start:%Y-%m-%d}", "end": f"{end:%Y-%m-%d}", "groupby": "type"}),
        "/v2/dataframes?" + urlencode({"begin": f"{start:%Y-%m-%d}", "end": f"{end:%Y-%m-%d}"}),
        *(f"/v2/samples/{quote(id)}" for id in samples),
        *(f"/v2/samples/{quote(id)}/proof" for id in samples),
    ]
    return found


def answers(api: str, asked: Sequence[str]) -> Answers:
    """Return the answers of the API at ``api``, without its own address; what is not answered with 200 has its status for an answer."""
    found = {}
    for path in asked:
        status, body = fetch(api + path)
        body = body.replace(api.encode(), b"http://api")
        found[path] = body if status == 200 else f"{status}: ".encode() + body
    return found


def unanswered(found: Answers) -> list[str]:
    """Return the questions that were not answered with 200."""
    return [
        f"{path}: {body[:300].decode()}" for path, body in found.items() if body[:3].isdigit() and body[3:5] == b": "
    ]


def differences(before: Answers, after: Answers) -> tuple[list[str], list[str]]:
    """Return the questions whose answers differ, and those that differ only in the last digits of numbers."""
    wrong, digits = [], []
    for path, body in before.items():
        if after[path] == body:
            continue
        try:
            close = _close(json.loads(body), json.loads(after[path]))
        except ValueError:
            close = False
        (digits if close else wrong).append(path if close else f"{path}\n        {_excerpt(body, after[path])}")
    return wrong, digits


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=RELATIVE)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return list(one) == list(other) and all(_close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_close, one, other))
    return bool(one == other)


def _excerpt(one: bytes, other: bytes) -> str:
    at = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    since = max(at - 60, 0)
    return f"{one[since : at + 60]!r} became {other[since : at + 60]!r}"
