"""Activation: plugins are asked at start, and the service made of the active ones runs only while it does."""

from dataclasses import dataclass
from dataclasses import replace

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


def candidate(name, verdict):
    return Decision(kind=COMPUTE, name=name, origin="test", state="pending", plugin=Plugin(verdict))


def activated(made, candidates, **more):
    def make(active):
        service = Service()
        made.append((service, [each.name for each in active]))
        return service

    service = Activation(candidates, PluginContext("meter-compute", None, Clock()), make, name="pollsters", **more)
    service.startService()
    return service


def test_changed_plugins_are_asked_and_the_service_is_made_again():
    made, asked = [], []

    class Counting(Plugin):
        async def enabled(self, context):
            asked.append(self)
            return Enabled()

    lamp, torch = candidate("lamp", None), candidate("torch", None)
    lamp, torch = (replace(each, plugin=Counting(None)) for each in (lamp, torch))
    service = activated(made, [lamp, torch])
    off = replace(torch, state="disabled", reason="[plugins] disable has torch")
    Deferred.fromCoroutine(service.reconsider([lamp, off]))

    assert [names for _, names in made] == [["lamp", "torch"], ["lamp"]]
    assert [each.running for each, _ in made] == [0, 1]
    assert len(asked) == 2  # the lamp was not asked again
    Deferred.fromCoroutine(service.reconsider([lamp, replace(torch, origin="again")]))
    assert [names for _, names in made][-1] == ["lamp", "torch"]
    assert len(asked) == 3
    service.stopService()


def test_service_that_can_change_is_not_made_again():
    made, changes = [], []
    lamp, torch = candidate("lamp", Enabled()), candidate("torch", Enabled())
    service = activated(made, [lamp], change=lambda active: changes.append([each.name for each in active]))
    Deferred.fromCoroutine(service.reconsider([lamp, torch]))
    assert (len(made), changes) == (1, [["lamp", "torch"]])
    slow = Deferred()
    Deferred.fromCoroutine(service.reconsider([lamp, candidate("slow", slow)]))
    service.stopService()
    slow.callback(Enabled())
    assert len(changes) == 1  # nothing changes after the stop


def test_reconsidering_waits_for_the_first_answers_and_ends_with_the_service():
    made = []
    first = Deferred()
    service = activated(made, [candidate("lamp", first)])
    later = candidate("torch", Enabled())
    Deferred.fromCoroutine(service.reconsider([later]))
    assert made == []
    first.callback(Enabled())
    assert [names for _, names in made] == [["lamp"], ["torch"]]

    slow = Deferred()
    work = Deferred.fromCoroutine(service.reconsider([candidate("slow", slow)]))
    service.stopService()
    slow.callback(Enabled())
    assert work.called
    assert len(made) == 2
    assert not made[-1][0].running
