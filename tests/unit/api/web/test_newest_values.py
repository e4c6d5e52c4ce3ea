"""The newest sample of each meter, in few questions."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from meter.api.web.newest_values import MAX_QUESTIONS
from meter.api.web.newest_values import newest_values
from meter.query import SampleFilter
from meter.query import StoredSample
from tests.api_client import ApiClient
from tests.api_client import message


def newest(monkeypatch: pytest.MonkeyPatch, meters: dict[str, int]) -> tuple[Mapping[Any, StoredSample], int]:
    """Return the newest samples of ``meters``, whose one sample each is so many minutes old, and the number of questions."""
    monkeypatch.setattr("meter.api.web.newest_values.NEWEST_SAMPLES", 2)
    store = ApiClient().store
    many = [message(-n, resource_id="r", message_id=f"cpu {n}") for n in range(5)]
    others = [message(-age, name=name, resource_id="r", message_id=name) for name, age in meters.items()]
    Deferred.fromCoroutine(store.write([*many, *others]))
    questions = 0

    async def samples(filter: SampleFilter, limit: int) -> Any:
        nonlocal questions
        questions += 1
        return await store.samples(filter, limit)

    context: Any = SimpleNamespace(store=SimpleNamespace(samples=samples))
    found: list[Any] = []
    Deferred.fromCoroutine(newest_values(context, "r", ["cpu", *meters])).addCallback(found.append)
    return found[0], questions


def test_each_meter_has_its_newest_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    found, questions = newest(monkeypatch, {"vcpus": 100, "memory": 200})
    assert {key: row.message_id for key, row in found.items()} == {
        ("cpu", "ns"): "cpu 0",
        ("vcpus", "ns"): "vcpus",
        ("memory", "ns"): "memory",
    }
    assert questions == 2


def test_number_of_questions_is_bounded_for_any_number_of_meters(monkeypatch: pytest.MonkeyPatch) -> None:
    found, questions = newest(monkeypatch, {f"m{n:02}": 100 + n for n in range(40)})
    assert questions == 1 + MAX_QUESTIONS
    assert 0 < len(found) < 41
