"""The plugin registry: discovery, validation, configuration and activation."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pydantic import BaseModel
from pydantic import SecretStr
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.plugin import getPlugins
from zope.interface import implementer

from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import IComputePollster
from meter.interfaces import IListener
from meter.interfaces import Topic
from meter.plugins.registry import CENTRAL
from meter.plugins.registry import COMPUTE
from meter.plugins.registry import KINDS
from meter.plugins.registry import LISTENER
from meter.plugins.registry import Decision
from meter.plugins.registry import Kind
from meter.plugins.registry import configure
from meter.plugins.registry import decide
from meter.plugins.registry import decide_now
from meter.plugins.registry import find
from meter.plugins.registry import report
from meter.plugins.validation import plugin_problems
from meter.sample import MeterDefinition
from meter.testing import FakePluginContext


class Limits(BaseModel):
    most: int = 3
    least: int = 0


class Options(BaseModel):
    path: str = "/proc"
    limits: Limits = Limits()
    password: SecretStr = SecretStr("")


@implementer(IComputePollster)
@dataclass(frozen=True)
class Pollster:
    name: str = "disk"
    meters: tuple[MeterDefinition, ...] = (
        MeterDefinition("disk.read.bytes", "cumulative", "B"),
        MeterDefinition("disk.write.bytes", "cumulative", "B"),
    )
    options: Any = None
    verdict: Any = field(default_factory=Enabled)

    def configured(self, options):
        return replace(self, options=options)

    async def enabled(self, context):
        if isinstance(self.verdict, BaseException):
            raise self.verdict
        return await self.verdict if isinstance(self.verdict, Deferred) else self.verdict

    async def poll(self, cycle):
        return []


@implementer(IListener)
@dataclass(frozen=True)
class Listener:
    name: str = "nova"
    meters: tuple[MeterDefinition, ...] = (MeterDefinition("instance", "gauge", "instance"),)
    options: Any = None
    topics: Any = (Topic("nova"),)
    event_types: Any = ("compute.instance.*",)

    def configured(self, options):
        return self

    async def enabled(self, context):
        return Enabled()

    def samples(self, notification):
        return []


def candidate(plugin: Any, kind: Kind = COMPUTE) -> Decision:
    return Decision(kind=kind, name=plugin.name, origin="test", state="pending", plugin=plugin)


def states(decisions) -> dict[str, tuple[str, str]]:
    return {each.name: (each.state, each.reason) for each in decisions}


# --- finding -------------------------------------------------------------------------------------------------------

MODULE = """
from tests.unit.plugins.test_registry import Pollster
{name} = Pollster(name="{name}")
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A plugin package of its own for each test, empty at first, and a kind that looks there."""
    name = f"plugins_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules["tests.unit.plugins.test_registry"] = sys.modules[__name__]
    yield folder, Kind("compute", IComputePollster, name, f"{name}.group", "pollsters")
    for module in [each for each in sys.modules if each.split(".")[0] == name]:
        del sys.modules[module]


def test_module_in_the_plugin_package_is_found(package):
    folder, kind = package
    (folder / "cpu.py").write_text(MODULE.format(name="cpu"))
    [found] = find([kind])
    assert (found.name, found.kind, found.state) == ("cpu", kind, "pending")
    assert found.origin == f"{folder.name}.cpu:cpu"


def test_every_plugin_that_twisted_finds_is_found(package):
    folder, kind = package
    (folder / "one.py").write_text(MODULE.format(name="one"))
    (folder / "family").mkdir()
    (folder / "family" / "__init__.py").write_text(MODULE.format(name="two") + MODULE.format(name="three"))
    found = find([kind])
    theirs = list(getPlugins(IComputePollster, sys.modules[folder.name]))
    assert {id(each.plugin) for each in found} == {id(plugin) for plugin in theirs}
    assert sorted(each.name for each in found) == ["one", "three", "two"]


def test_stale_dropin_cache_hides_no_plugin(package):
    folder, kind = package
    (folder / "dropin.cache").write_bytes(pickle.dumps({}))
    (folder / "cpu.py").write_text(MODULE.format(name="cpu"))
    list(getPlugins(IComputePollster, __import__(folder.name)))
    del sys.modules[f"{folder.name}.cpu"]
    (folder / "cpu.py").write_text(MODULE.format(name="cpu") + MODULE.format(name="newer"))
    os.utime(folder / "cpu.py", (1, 1))
    assert [each.name for each in getPlugins(IComputePollster, __import__(folder.name))] == ["cpu"], "the trap is gone"
    del sys.modules[f"{folder.name}.cpu"]
    assert sorted(each.name for each in find([kind])) == ["cpu", "newer"]


def test_module_that_cannot_be_imported_is_broken_with_the_reason(package):
    folder, kind = package
    (folder / "bad.py").write_text("import a_library_that_is_not_there")
    (folder / "worse.py").write_text("raise SystemExit(3)")
    (folder / "good.py").write_text(MODULE.format(name="good"))
    assert states(find([kind])) == {
        "bad": ("broken", "cannot be imported: ModuleNotFoundError: No module named 'a_library_that_is_not_there'"),
        "worse": ("broken", "cannot be imported: SystemExit: 3"),
        "good": ("pending", ""),
    }


def test_object_found_twice_is_one_plugin(package):
    folder, kind = package
    (folder / "a.py").write_text(MODULE.format(name="cpu"))
    (folder / "b.py").write_text(f"from {folder.name}.a import cpu")
    assert [each.origin for each in find([kind])] == [f"{folder.name}.a:cpu"]


def test_second_plugin_of_a_name_is_broken(package):
    folder, kind = package
    (folder / "a.py").write_text(MODULE.format(name="cpu"))
    (folder / "b.py").write_text(MODULE.format(name="cpu"))
    first, second = find([kind])
    assert (first.state, second.state) == ("pending", "broken")
    assert second.reason == f"the name cpu is already used by {folder.name}.a:cpu"


def test_provider_of_only_the_base_interface_is_broken(package):
    folder, kind = package
    (folder / "a.py").write_text(
        "from zope.interface import implementer\nfrom meter.interfaces import IPollster\n"
        "@implementer(IPollster)\nclass Lost:\n    name = 'lost'\nlost = Lost()\n"
    )
    assert states(find([kind]))["lost"][1].endswith(
        "does not provide IComputePollster: decorate its class with @implementer(IComputePollster)"
    )


def distribution(folder: Path, group: str, lines: str) -> None:
    info = folder / "vendor_meters-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vendor-meters\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}")


def test_entry_point_may_be_a_provider_or_a_factory(package, tmp_path):
    folder, kind = package
    (tmp_path / folder.name / "vendor.py").write_text(
        "from tests.unit.plugins.test_registry import Pollster\n"
        "def made(): return Pollster(name='made')\nclass Classy(Pollster):\n    pass\n"
        "def fails(): raise OSError('no such disk')\nnothing = object()\n"
    )
    lines = "".join(
        f"{name} = {folder.name}.vendor:{name}\n" for name in ("made", "Classy", "fails", "nothing", "gone")
    )
    distribution(tmp_path, kind.group, lines + "absent = not_a_module_at_all:x\n")
    found = {each.name: each for each in find([kind])}
    assert sorted(found) == ["absent", "disk", "fails", "gone", "made", "nothing"]
    assert found["made"].origin == f"{folder.name}.vendor:made (vendor-meters 1.2)"
    assert found["made"].state == found["disk"].state == "pending"
    assert found["fails"].reason == "cannot be loaded: OSError: no such disk"
    assert found["absent"].reason == "cannot be loaded: ModuleNotFoundError: No module named 'not_a_module_at_all'"
    assert found["gone"].reason.startswith("cannot be loaded: AttributeError: ")
    assert "does not provide IComputePollster" in found["nothing"].reason


def test_plugin_found_as_module_and_entry_point_is_one_plugin(package, tmp_path):
    folder, kind = package
    (folder / "cpu.py").write_text(MODULE.format(name="cpu"))
    distribution(tmp_path, kind.group, f"cpu = {folder.name}.cpu:cpu\n")
    assert [each.state for each in find([kind])] == ["pending"]


VENDOR = """
    from dataclasses import dataclass
    from typing import Any
    from zope.interface import implementer
    from meter.interfaces import {interface}, Enabled, Topic
    from meter.sample import MeterDefinition

    @implementer({interface})
    @dataclass(frozen=True)
    class Vendor:
        name: str = "{name}"
        meters: tuple = (MeterDefinition("{name}", "gauge", "B"),)
        options: Any = None
        topics: tuple = (Topic("vendor"),)
        event_types: tuple = ("vendor.*",)
        def configured(self, options): return self
        async def enabled(self, context): return Enabled()
        async def poll(self, cycle): return []
        def samples(self, notification): return []
"""


def test_plugins_of_another_distribution_are_found_both_ways(tmp_path):
    (tmp_path / "meter" / "pollsters").mkdir(parents=True)
    drop_in = VENDOR.format(interface="IComputePollster", name="vendor.dropped") + "\n    dropped = Vendor()\n"
    (tmp_path / "meter" / "pollsters" / "vendor_dropped.py").write_text(textwrap.dedent(drop_in))
    entered = VENDOR.format(interface="IListener", name="vendor.entered")
    (tmp_path / "vendor_meters.py").write_text(textwrap.dedent(entered))
    distribution(tmp_path, "meter.collector", "anything = vendor_meters:Vendor\n")
    script = "from meter.plugins.registry import *\nfor each in find(): print(each.name, each.kind.name, each.state, each.origin)"
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    lines = run.stdout.splitlines()
    assert "vendor.dropped compute pending meter.pollsters.vendor_dropped:dropped" in lines
    assert "vendor.entered listener pending vendor_meters:Vendor (vendor-meters 1.2)" in lines


def test_no_plugin_of_meter_is_broken():
    assert [each for each in find() if each.state == "broken"] == []


def test_kinds_have_the_packages_and_groups_of_the_interfaces():
    assert [(kind.group, kind.package) for kind in KINDS] == [
        ("meter.poll.compute", "meter.pollsters"),
        ("meter.poll.central", "meter.pollsters"),
        ("meter.collector", "meter.listeners"),
    ]


# --- validation ----------------------------------------------------------------------------------------------------


def test_valid_plugin_has_no_problems():
    assert plugin_problems(IComputePollster, Pollster()) == []
    assert plugin_problems(IListener, Listener()) == []


def test_every_missing_attribute_is_named():
    @implementer(IComputePollster)
    class Empty:
        name = "empty"

    assert sorted(plugin_problems(IComputePollster, Empty())) == [
        "configured(options) is missing",
        "enabled(context) is missing",
        "meters is missing",
        "options is missing",
        "poll(cycle) is missing",
    ]


@pytest.mark.parametrize(
    ("change", "defect"),
    [
        ({"name": ""}, "name should be a text, not ''"),
        ({"name": 5}, "name should be a text, not 5"),
        ({"meters": ("cpu",)}, "meters should be a tuple of MeterDefinition, not ('cpu',)"),
        ({"meters": ()}, "meters should be a tuple of MeterDefinition, not ()"),
        ({"options": {"a": 1}}, "options should be None or an instance of a pydantic model, not {'a': 1}"),
        ({"options": Options}, "options should be None or an instance of a pydantic model, not <class"),
    ],
)
def test_invalid_attribute_value_is_named(change, defect):
    [found] = plugin_problems(IComputePollster, Pollster(**change))
    assert found.startswith(defect)


def test_patterns_and_topics_of_a_listener_must_be_tuples():
    found = plugin_problems(IListener, Listener(event_types="compute.*", topics=("nova",)))
    assert found == [
        "topics should be a tuple of Topic, not ('nova',)",
        "event_types should be a tuple of str, not 'compute.*'",
    ]


def test_method_with_a_wrong_signature_or_not_async_is_named():
    class Plain(Pollster):
        def poll(self, cycle):
            return []

    class Demanding(Pollster):
        async def poll(self, cycle, more):
            return []

    assert plugin_problems(IComputePollster, Plain()) == ["poll() should be async def"]
    [defect] = plugin_problems(IComputePollster, Demanding())
    assert defect.startswith("poll() should be poll(cycle): implementation requires too many arguments")


def test_property_that_raises_is_a_problem():
    class Raising(Listener):
        @property
        def meters(self):
            raise RuntimeError("no meters\ntoday")

    assert plugin_problems(IListener, Raising.__new__(Raising)) == ["validation failed: RuntimeError: no meters today"]


# --- configuring ---------------------------------------------------------------------------------------------------


def test_options_are_the_section_over_the_plugins_defaults():
    plugin = Pollster(options=Options(path="/sys"))
    configured = configure([candidate(plugin)], {"pollsters": {"disk": {"limits": {"most": 5}}}}, [])
    assert configured.problems == ()
    assert configured.decisions[0].plugin.options == Options(path="/sys", limits=Limits(most=5))


def test_plugin_without_a_section_gets_its_defaults():
    configured = configure([candidate(Pollster(options=Options()))], {}, [])
    assert configured.decisions[0].plugin.options == Options()
    assert configured.decisions[0].state == "pending"


def test_all_errors_in_sections_are_reported_without_values():
    found = [candidate(Pollster(options=Options())), candidate(Pollster(name="cpu")), candidate(Listener(), LISTENER)]
    sections = {
        "pollsters": {
            "disk": {"path": 5, "limits": {"mist": 1}, "pathh": "x", "password": ["s3cret"]},
            "cpu": {"a": 1},
            "dsk": {},
        },
        "listeners": {"nvoa": {}},
    }
    problems = configure(found, sections, []).problems
    assert sorted(problems) == [
        "[listeners.nvoa]: no such plugin is installed; installed are: nova",
        "[pollsters.cpu]: the plugin has no options",
        "[pollsters.disk] limits.mist: unknown option",
        "[pollsters.disk] password: should be a text",
        "[pollsters.disk] path: should be a text",
        "[pollsters.disk] pathh: unknown option; known are path, limits, password",
        "[pollsters.dsk]: no such plugin is installed; installed are: cpu, disk",
    ]


def test_section_of_a_broken_plugin_is_not_an_error():
    broken = Decision(kind=COMPUTE, name="disk", origin="test", state="broken", reason="cannot be imported")
    assert configure([broken], {"pollsters": {"disk": {"path": "/"}}}, []).problems == ()


class Refusing(Pollster):
    def configured(self, options):
        raise ValueError("path and prefix exclude each other")


class Forgetful(Pollster):
    def configured(self, options):
        pass


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (Refusing(options=Options()), "configured() failed: ValueError: path and prefix exclude each other"),
        (Forgetful(options=Options()), "configured() did not return a valid plugin: None does not provide ICompute"),
    ],
)
def test_plugin_whose_configured_fails_is_broken(plugin, reason):
    [decision] = configure([candidate(plugin)], {}, []).decisions
    assert decision.state == "broken"
    assert decision.reason.startswith(reason)


@pytest.mark.parametrize("pattern", ["disk", "d*", "disk.*", "*.bytes"])
def test_pattern_matching_the_name_or_all_meters_disables_a_plugin(pattern):
    configured = configure([candidate(Pollster())], {}, [pattern])
    assert states(configured.decisions) == {"disk": ("disabled", f"[plugins] disable has {pattern}")}
    assert configured.warnings == ()


def test_patterns_that_together_match_all_meters_disable_a_plugin():
    configured = configure([candidate(Pollster())], {}, ["disk.read.*", "disk.write.*"])
    assert configured.decisions[0].state == "disabled"


def test_pattern_matching_some_meters_excludes_only_those():
    [decision] = configure([candidate(Pollster())], {}, ["disk.read.*"]).decisions
    assert (decision.state, decision.meters_off, decision.reason) == (
        "pending",
        ("disk.read.*",),
        "without disk.read.*",
    )
    assert not decision.takes("disk.read.bytes")
    assert decision.takes("disk.write.bytes")


def test_meter_named_at_polling_may_be_excluded():
    plugin = Pollster(name="libvirt", meters=(MeterDefinition("instance:*", "gauge", "instance"),))
    configured = configure([candidate(plugin)], {}, ["instance:m1.*"])
    assert configured.decisions[0].state == "pending"
    assert not configured.decisions[0].takes("instance:m1.tiny")
    assert configured.decisions[0].takes("instance:m2.tiny")
    assert configured.warnings == ()


def test_patterns_are_case_sensitive():
    assert configure([candidate(Pollster())], {}, ["DISK"]).decisions[0].state == "pending"


def test_pattern_that_matches_nothing_is_a_warning():
    configured = configure([candidate(Pollster())], {}, ["dsik.*", "disk"])
    assert configured.warnings == ("[plugins] disable: 'dsik.*' matches no plugin and no meter",)
    assert configured.problems == ()


def test_plugin_that_may_have_any_meter_does_not_hide_a_pattern_that_matches_nothing():
    plugin = Pollster(name="anything", meters=(MeterDefinition("*", "gauge", "x"),))
    configured = configure([candidate(plugin)], {}, ["cpuu"])
    assert configured.warnings == ("[plugins] disable: 'cpuu' matches no plugin and no meter",)


def test_section_of_a_disabled_plugin_is_validated_and_not_applied():
    configured = configure(
        [candidate(Refusing(options=Options()))], {"pollsters": {"disk": {"path": "/", "x": 1}}}, ["disk"]
    )
    assert len(configured.problems) == 1
    assert configure([candidate(Refusing(options=Options()))], {}, ["disk"]).decisions[0].state == "disabled"


# --- activation ----------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_each_plugin_decides_its_own_state():
    plugins = [
        Pollster(name="yes"),
        Pollster(name="partly", verdict=Enabled("one of two disks is broken")),
        Pollster(name="no", verdict=Disabled("there is no disk")),
        Pollster(name="raises", verdict=ZeroDivisionError("by zero")),
        Pollster(name="cancels", verdict=CancelledError()),
        Pollster(name="exits", verdict=SystemExit(2)),
        Pollster(name="rubbish", verdict=True),
    ]
    decisions = await decide([candidate(each) for each in plugins], FakePluginContext(), Clock())
    assert states(decisions) == {
        "yes": ("active", ""),
        "partly": ("active", "one of two disks is broken"),
        "no": ("not applicable", "there is no disk"),
        "raises": ("broken", "enabled() failed: ZeroDivisionError: by zero"),
        "cancels": ("broken", "enabled() failed: CancelledError"),
        "exits": ("broken", "enabled() failed: SystemExit: 2"),
        "rubbish": ("broken", "enabled() returned True; it should return Enabled() or Disabled(reason)"),
    }


class Stubborn(Pollster):
    """Ignores cancellation and returns late."""

    async def enabled(self, context):
        late: Deferred[Any] = context.provider(Deferred)
        try:
            await Deferred()
        except CancelledError:
            return await late


def test_plugin_that_hangs_is_broken_and_delays_no_other():
    clock, late = Clock(), Deferred()
    plugins = [Stubborn(name="stubborn"), Pollster(name="hangs", verdict=Deferred()), Pollster(name="quick")]
    work = Deferred.fromCoroutine(
        decide([candidate(each) for each in plugins], FakePluginContext({Deferred: late}), clock, seconds=7)
    )
    assert not work.called
    clock.advance(7)
    assert states(work.result) == {
        "stubborn": ("broken", "enabled() did not return within 7 s"),
        "hangs": ("broken", "enabled() did not return within 7 s"),
        "quick": ("active", ""),
    }
    assert clock.getDelayedCalls() == []
    late.callback(Enabled())


def test_deciding_can_be_cancelled():
    clock, cancelled = Clock(), []
    plugins = [Pollster(name=name, verdict=Deferred(cancelled.append)) for name in "ab"]
    work = Deferred.fromCoroutine(decide([candidate(each) for each in plugins], FakePluginContext(), clock))
    work.cancel()
    work.addErrback(lambda failure: None)
    assert len(cancelled) == 2
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_only_pending_plugins_are_asked():
    off = replace(candidate(Pollster(verdict=ZeroDivisionError())), state="disabled", reason="because")
    assert await decide([off], FakePluginContext(), Clock()) == [off]
    assert decide_now([off], FakePluginContext()) == [off]


def test_plugins_that_have_to_wait_stay_pending_without_a_reactor():
    cancelled = []
    plugins = [
        Pollster(name="yes"),
        Pollster(name="waits", verdict=Deferred(cancelled.append)),
        Pollster(name="raises", verdict=OSError("no")),
    ]
    decisions = decide_now([candidate(each) for each in plugins], FakePluginContext())
    assert states(decisions) == {
        "yes": ("active", ""),
        "waits": ("pending", ""),
        "raises": ("broken", "enabled() failed: OSError: no"),
    }
    assert len(cancelled) == 1


# --- telling -------------------------------------------------------------------------------------------------------


def test_report_is_an_aligned_table():
    decisions = [
        replace(candidate(Pollster()), state="active", origin="meter.pollsters.libvirt:disk"),
        Decision(kind=CENTRAL, name="x", origin="v", state="broken", reason="why"),
    ]
    assert report(decisions) == (
        "PLUGIN  KIND     STATE   ORIGIN                        REASON\n"
        "disk    compute  active  meter.pollsters.libvirt:disk\n"
        "x       central  broken  v                             why"
    )


def test_report_without_plugins_is_the_heading():
    assert report([]) == "PLUGIN  KIND  STATE  ORIGIN  REASON"
