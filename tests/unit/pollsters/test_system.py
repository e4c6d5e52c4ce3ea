"""Meters of a daemon itself."""

import socket
from datetime import UTC
from datetime import datetime

import pytest_twisted
from zope.interface import implementer
from zope.interface.verify import verifyObject

from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import IHealth
from meter.interfaces import Readiness
from meter.pollsters.system import system
from meter.testing import FakeCycle

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@implementer(IHealth)
class Health:
    def readinesses(self):
        return [Readiness("bus", True, "connected"), Readiness("store", False, "refused")]


@pytest_twisted.ensureDeferred
async def test_daemon_has_samples_of_its_dependencies_and_process():
    verifyObject(ICentralPollster, system)
    cycle = FakeCycle({IHealth: Health()}, timestamp=NOW, daemon="meter-central")
    assert await system.enabled(cycle) == Enabled()

    samples = {(each.name, each.resource_id): each for each in await system.poll(cycle)}

    host = socket.gethostname()
    assert samples["meter.dependency.ready", f"{host}/meter-central/bus"].volume == 1
    assert samples["meter.dependency.ready", f"{host}/meter-central/store"].volume == 0
    assert samples["meter.process.cpu", f"{host}/meter-central"].volume > 10_000_000  # this test run's, in ns
    assert samples["meter.process.memory", f"{host}/meter-central"].volume > 10_000_000  # bytes
    assert {(each.timestamp, each.source) for each in samples.values()} == {(NOW, "meter")}
    assert {definition.name for definition in system.meters} == {name for name, _ in samples}
