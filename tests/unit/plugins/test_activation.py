"""Activation: plugins are asked at start, and the service made of the active ones runs only while it does."""

from dataclasses import dataclass

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.agent.cycle import PluginContext
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.plugins.activation import Activation
from meter.plugins.registry import COMPUTE
from meter.plugins.registry import Decision


@dataclass(frozen=True)
class Plugin:
    verdict: object

    async def enabled(self, context):
        return await self.verdict if isinstance(self.verdict, Deferred) else self.verdict


def activation(made, **verdicts):
    context = PluginContext("meter-compute", None, Clock())
    candidates = [
        Decision(kind=COMPUTE, name=name, origin="test", state="pending", plugin=Plugin(verdict))
        for name, verdict in verdicts.items()
    ]

    def make(active):
        service = Service()
        made.append((service, [each.name for each in active]))
        return service

    return Activation(candidates, context, make, name="pollsters")


def test_activation_starts_a_service_with_the_active_plugins():
    made = []
    service = activation(made, lamp=Enabled(), torch=Disabled("there is no torch"))
    service.startService()

    assert [names for _, names in made] == [["lamp"]]
    assert made[0][0].running
    assert [(each.name, each.state, each.reason) for each in service.decisions] == [
        ("lamp", "active", ""),
        ("torch", "not applicable", "there is no torch"),
    ]
    service.stopService()
    assert not made[0][0].running


def test_activation_stopped_before_all_plugins_answered_starts_nothing():
    made = []
    service = activation(made, lamp=Deferred())
    service.startService()

    stopped = service.stopService()

    assert stopped.called
    assert made == []
