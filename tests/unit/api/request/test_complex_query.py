"""Complex queries: what may be written, what it finds, and what is said of what means nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.asking import Answer
from tests.asking import Asking

PATH = "/v2/query/samples"


@pytest.fixture(scope="module")
def ask() -> Asking:
    return Asking()


def query(ask: Asking, filter: Any = None, orderby: Any = None, **body: Any) -> Answer:
    for name, content in (("filter", filter), ("orderby", orderby)):
        if content is not None:
            body[name] = content if isinstance(content, str) else json.dumps(content)
    return ask.post(PATH, body)


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        (None, ["s3", "s2", "s1", "s0"]),
        ("", ["s3", "s2", "s1", "s0"]),
        ({}, ["s3", "s2", "s1", "s0"]),
        ({"=": {"meter": "cpu"}}, ["s2", "s1", "s0"]),
        ({"=": {"counter_name": "cpu"}}, ["s2", "s1", "s0"]),
        ({"!=": {"counter_name": "cpu"}}, ["s3"]),
        ({">": {"volume": 19}}, ["s2", "s1"]),
        ({"=>": {"counter_volume": 20.0}}, ["s2", "s1"]),
        ({"<=": {"timestamp": "2026-11-22T12:01:00"}}, ["s1", "s0"]),
        ({"=<": {"timestamp": "2026-11-22T13:01:00+01:00"}}, ["s1", "s0"]),
        ({"<": {"recorded_at": "2026-11-22T12:10:00"}}, []),
        ({"=~": {"resource": "^vm-[0-9]$"}}, ["s3", "s1", "s0"]),
        ({"in": {"user": ["bob", "eve"]}}, ["s2"]),
        ({"IN": {"volume": [10, 60.0]}}, ["s2", "s0"]),
        ({"in": {"metadata.size": [0, 1]}}, ["s0"]),
        ({"=": {"metadata.size": 0}}, ["s0"]),
        ({"=": {"metadata.size": "0"}}, ["s1"]),
        ({"=": {"resource_metadata.flavor.name": "m1"}}, ["s0"]),
        ({"=": {"metadata.on": True}}, ["s1"]),
        ({"AND": [{"=": {"meter": "cpu"}}, {"Not": {"=": {"user": "ann"}}}]}, ["s2"]),
        ({"or": [{"=": {"unit": "GB"}}, {"=": {"message_id": "s0"}}]}, ["s3", "s0"]),
        ({"not": {"=": {"project_id": "blue"}}}, ["s3", "s2"]),
        ({"=": {"type": "gauge"}}, ["s3"]),
    ],
    ids=str,
)
def test_an_expression_finds(ask: Asking, expression: Any, ids: list[str]) -> None:
    answer = query(ask, expression)
    assert answer.status == 200, answer.body
    assert [sample["id"] for sample in answer.json] == ids


@pytest.mark.parametrize(
    ("order", "ids"),
    [
        ([{"timestamp": "asc"}], ["s0", "s1", "s2", "s3"]),
        ([{"counter_volume": "DESC"}], ["s2", "s1", "s0", "s3"]),
        ([{"meter": "desc"}, {"volume": "asc"}], ["s3", "s0", "s1", "s2"]),
        ([], ["s3", "s2", "s1", "s0"]),
    ],
)
def test_samples_come_in_the_order_asked_for(ask: Asking, order: Any, ids: list[str]) -> None:
    assert [sample["id"] for sample in query(ask, None, order).json] == ids


def test_a_limit_may_be_a_text_as_old_clients_send_it(ask: Asking) -> None:
    assert len(query(ask, limit="2").json) == len(query(ask, limit=2).json) == 2
    assert query(ask, limit="0").fault == "Limit must be positive"
    assert query(ask, limit="many").status == 400


def test_a_limit_may_be_written_as_a_float_that_is_whole(ask: Asking) -> None:
    assert len(query(ask, limit=2.0).json) == 2
    assert (
        query(ask, limit=2.5).fault == "Invalid input for field/attribute limit. Value: '2.5'. it must be an integer."
    )
    assert len(query(ask, limit=None).json) == 4


@pytest.mark.parametrize(
    "body", [b'{"filter": "[", "filter": ""}', b"null", b'{"filter": null}', b'{"filter": "null"}']
)
def test_null_is_no_filter_and_one_that_is_given_twice_neither(ask: Asking, body: bytes) -> None:
    assert ask.post(PATH, body).status == 400


@pytest.mark.parametrize(("time", "found"), [("2026", 4), ("2026-12", 0), ("2026-1-2", 4)])
def test_times_may_be_short_here_too(ask: Asking, time: str, found: int) -> None:
    assert len(query(ask, {">=": {"timestamp": time}}).json) == found


def test_pages_of_a_complex_query_lead_from_one_to_the_next(ask: Asking) -> None:
    first = query(ask, {"=": {"meter": "cpu"}}, limit=2)
    second = ask.post(
        first.headers["link"].partition(">")[0].removeprefix("<http://cloud:8777"),
        {"filter": '{"=": {"meter": "cpu"}}'},
    )
    assert [sample["id"] for sample in first.json + second.json] == ["s2", "s1", "s0"]


def nots(depth: int) -> str:
    return '{"not": ' * depth + '{"=": {"meter": "cpu"}}' + "}" * depth


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("[", "it is not JSON"),
        ('{"=": {"meter": "cpu"}, "=": {"user": "ann"}}', 'it has "=" twice in one object'),
        ('{"=": {"meter": "cpu", "meter": "disk.size"}}', 'it has "meter" twice in one object'),
        ([], "exactly one key, not a list of 0"),
        ("3", "exactly one key, not 3"),
        ({"=": {"meter": "cpu"}, "<": {"volume": 1}}, "exactly one key, not an object of 2"),
        ({"=": {}}, "exactly one key"),
        ({"==": {"meter": "cpu"}}, "there is no operator '=='"),
        ({"=": {"wings": 1}}, "there is no field 'wings'"),
        ({"=": {"resource_metadata": "x"}}, "there is no field 'resource_metadata'"),
        ({"=": {"metadata.": 1}}, "there is no field 'metadata.'"),
        ({"and": [{"=": {"meter": "cpu"}}]}, "and takes a list of at least two expressions"),
        ({"or": {"=": {"meter": "cpu"}}}, "or takes a list of at least two expressions"),
        ({"not": [{"=": {"meter": "cpu"}}]}, "exactly one key, not a list of 1"),
        ({"in": {"meter": []}}, "at least one value"),
        ({"in": {"meter": "cpu"}}, "at least one value"),
        ({"=": {"meter": 3}}, "meter is compared with a text, not with 3"),
        ({"=": {"meter": None}}, "meter is compared with a text, not with None"),
        ({"<": {"volume": "3"}}, "a volume is compared with a number"),
        ({"<": {"volume": 10**400}}, "too large a number"),
        ({"=": {"volume": True}}, "a volume is compared with a number"),
        ({"<": {"timestamp": "soon"}}, "Failed to parse the timestamp value 'soon'"),
        ({"<": {"timestamp": 5}}, "Failed to parse the timestamp value 5"),
        ({"=": {"metadata.a": [1]}}, "metadata is compared with a text, a number or a boolean"),
        ({"=": {"metadata.a": "\0"}}, "NUL"),
        ({"=": {"metadata.\0": "a"}}, "there is no field"),
        ({"=~": {"volume": "3"}}, "=~ compares a text with a pattern"),
        ({"=~": {"meter": "a" * 501}}, "at most 500 characters"),
        ({"=~": {"meter": "("}}, "not a regular expression"),
        (nots(50), "nested more than 32 deep"),
        (nots(1000), "Filter expression not valid: "),
        ({"in": {"meter": ["x"] * 501}}, "more than 500 conditions"),
        ({"or": [{"=": {"meter": "x"}}] * 501}, "more than 500 conditions"),
    ],
)
def test_what_means_nothing_is_400_and_says_why(ask: Asking, expression: Any, fault: str) -> None:
    answer = query(ask, expression)
    assert answer.status == 400
    assert fault in answer.fault
    assert len(answer.body) < 1000


@pytest.mark.parametrize(
    "order",
    [
        '"timestamp"',
        [{"wings": "asc"}],
        [{"metadata.a": "asc"}],
        [{"timestamp": "up"}],
        [{"timestamp": "asc", "meter": "asc"}],
        [{"timestamp": 1}],
        [{"meter": "asc"}] * 100,
    ],
)
def test_an_order_that_means_nothing_is_400(ask: Asking, order: Any) -> None:
    answer = query(ask, None, order)
    assert answer.status == 400
    assert answer.fault.startswith("Order-by expression not valid: ")


@pytest.mark.parametrize(
    "body",
    [
        b"[",
        b"3",
        b'{"filters": "x"}',
        b'{"filter": {"=": {}}}',
        b'{"limit": []}',
        b'{"limit": true}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_a_body_that_is_no_query_is_400(ask: Asking, body: bytes) -> None:
    answer = ask.post(PATH, body)
    assert answer.status == 400
    assert answer.json["error_message"]["faultcode"] == "Client"


def test_no_body_is_the_query_for_everything(ask: Asking) -> None:
    assert len(ask.post(PATH, b"").json) == 4
