"""Aodh's evaluations by state, from responses captured from Aodh 23."""

from __future__ import annotations

from typing import Any

import pytest_twisted

from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ISkippedSamples
from meter.openstack import IOpenStack
from meter.pollsters.openstack import evaluation_results
from meter.testing import FakePluginContext
from tests.openstack_stub import JsonResponse
from tests.openstack_stub import StubCloud
from tests.openstack_stub import captured
from tests.openstack_stub import openstack
from tests.openstack_stub import reply
from tests.unit.pollsters.openstack.test_pollster import SkippedSamples
from tests.unit.pollsters.openstack.test_pollster import cloud_with
from tests.unit.pollsters.openstack.test_pollster import cycle_of
from tests.unit.pollsters.openstack.test_pollster import polled

ENABLED, DISABLED = captured("aodh-01-metrics"), captured("aodh-02-metrics-disabled-403")
STOPPED, GONE = "7ccfd444-2ff1-4906-8ae7-844a60f68db5", "b33657f3-639c-402d-9c94-4210f8c8118f"
PROJECT = "b6e8cc20ee9c457e83f13218eca89c43"


def aodh(answer: JsonResponse) -> StubCloud:
    return cloud_with("alarming", "/v2/metrics", answer)


def evaluations(*entries: Any) -> StubCloud:
    return aodh(reply({"evaluation_results": list(entries)}))


@pytest_twisted.ensureDeferred
async def test_each_state_of_each_alarm_has_its_number_of_evaluations() -> None:
    stub = aodh(ENABLED)
    samples = await polled(evaluation_results, stub)
    assert {resource: each.volume for (_, resource), each in samples.items()} == {
        f"{STOPPED}/ok": 3,
        f"{STOPPED}/alarm": 1,
        f"{STOPPED}/insufficient_data": 0,
        f"{GONE}/ok": 0,
        f"{GONE}/alarm": 0,
        f"{GONE}/insufficient_data": 2,
    }
    sample = samples["alarm.evaluation_result", f"{GONE}/insufficient_data"]
    assert (sample.type, sample.unit, sample.project_id) == ("gauge", "evaluation_result_count", PROJECT)
    assert sample.resource_metadata["alarm_id"] == GONE
    assert sample.resource_metadata["alarm_state"] == "insufficient data"
    assert stub.requests[-1].query == {"all_projects": ["true"]}


@pytest_twisted.ensureDeferred
async def test_pollster_is_disabled_while_aodh_counts_nothing() -> None:
    assert await evaluation_results.enabled(FakePluginContext({IOpenStack: openstack(aodh(ENABLED))})) == Enabled()
    answer = await evaluation_results.enabled(FakePluginContext({IOpenStack: openstack(aodh(DISABLED))}))
    assert isinstance(answer, Disabled)
    assert answer.reason.startswith("Aodh needs enable_evaluation_results_metrics = true")
    assert "403" in answer.reason


@pytest_twisted.ensureDeferred
async def test_entries_that_are_no_counts_are_skipped_and_the_others_metered() -> None:
    good = {"alarm_id": "a", "project_id": "p", "state_counters": {"ok": 1, "alarm": "many"}}
    stub = evaluations(good, {"alarm_id": "b", "state_counters": None}, {"state_counters": {"ok": 1}})
    cycle = cycle_of(stub)
    assert [each.resource_id for each in await evaluation_results.poll(cycle)] == ["a/ok"]
    skips: SkippedSamples = cycle.provider(ISkippedSamples)
    assert skips.counted == {
        ("alarm.evaluation_result", "bad-volume"): 1,
        ("alarm.evaluation_result", "no-volume"): 1,
        ("alarm.evaluation_result", "no-id"): 1,
    }
    assert await polled(evaluation_results, evaluations()) == {}
