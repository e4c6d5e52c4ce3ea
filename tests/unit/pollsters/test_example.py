"""The example pollster; these tests are an example as well."""

from __future__ import annotations

import os

import pytest
import pytest_twisted
from zope.interface.verify import verifyObject

from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import IComputePollster
from meter.plugins.registry import COMPUTE
from meter.plugins.registry import configure
from meter.plugins.registry import find
from meter.pollsters.example import ExampleOptions
from meter.pollsters.example import example
from meter.testing import FakeCycle
from meter.testing import FakePluginContext


def test_example_provides_its_interface() -> None:
    assert verifyObject(IComputePollster, example)


@pytest_twisted.ensureDeferred
async def test_example_is_disabled_by_default() -> None:
    context = FakePluginContext()
    off = await example.enabled(context)
    assert isinstance(off, Disabled)
    assert "[pollsters.example] wanted = true" in off.reason
    assert await example.configured(ExampleOptions(wanted=True)).enabled(context) == Enabled()


@pytest_twisted.ensureDeferred
async def test_example_meters_the_load_of_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.25, 0.5, 1.0))
    cycle = FakeCycle()
    [sample] = await example.configured(ExampleOptions(wanted=True, project_id="ops")).poll(cycle)
    assert (sample.name, sample.volume, sample.unit) == ("example.load", 0.25, "process")
    assert (sample.project_id, sample.timestamp) == ("ops", cycle.timestamp)


def test_registry_finds_the_example_and_applies_its_section() -> None:
    found = [decision for decision in find([COMPUTE]) if decision.name == "example"]
    configured = configure(found, {"pollsters": {"example": {"wanted": True}}}, [])
    assert configured.problems == ()
    [decision] = configured.decisions
    assert decision.plugin.options == ExampleOptions(wanted=True)
