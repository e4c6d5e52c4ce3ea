"""Which plugins are installed, how they are configured, and which of them work here, with the reason for each.

Plugins are found in two places: modules in the packages ``meter.pollsters`` and ``meter.listeners``, which
:mod:`twisted.plugin` makes open to other distributions, and entry points. Three steps lead from there to work, each
taking and giving :class:`Decision` records::

    found = find()
    configured = configure(found, {"pollsters": config.pollsters, "listeners": config.listeners}, disable)
    decisions = await decide(configured.decisions, here, clock)

Nothing a plugin does makes any of them raise: what is wrong with it becomes the reason of its decision.
"""

from __future__ import annotations

import reprlib
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from fnmatch import fnmatchcase
from importlib import import_module
from importlib.metadata import EntryPoint
from importlib.metadata import entry_points
from typing import Any
from typing import Literal

from pydantic import BaseModel
from pydantic import ValidationError
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.python.modules import getModule

from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import IComputePollster
from meter.interfaces import IListener
from meter.interfaces import IMeterPlugin
from meter.interfaces import IPluginContext
from meter.plugins.validation import one_line
from meter.plugins.validation import plugin_problems

State = Literal["asked at start", "active", "disabled", "off here", "broken"]
"""*disabled* is the configuration's word, *off here* the plugin's own; *asked at start* is not decided yet."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of plugin: what it provides, where it is looked for, and the section that holds its options."""

    name: str
    interface: Any
    package: str
    group: str
    section: str


COMPUTE = Kind("compute", IComputePollster, "meter.pollsters", "meter.poll.compute", "pollsters")
CENTRAL = Kind("central", ICentralPollster, "meter.pollsters", "meter.poll.central", "pollsters")
LISTENER = Kind("listener", IListener, "meter.listeners", "meter.collector", "listeners")
KINDS = (COMPUTE, CENTRAL, LISTENER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is known and decided about one plugin. ``plugin`` is the provider to work with, ``None`` when broken.

    ``meters_off`` has the patterns of meters that are switched off while the plugin works: ask :meth:`takes`.
    """

    kind: Kind
    name: str
    origin: str
    state: State
    reason: str = ""
    plugin: Any = None
    meters_off: tuple[str, ...] = ()

    def takes(self, meter: str) -> bool:
        """Say whether samples of ``meter`` are wanted from this plugin."""
        return not any(fnmatchcase(meter, pattern) for pattern in self.meters_off)


@dataclass(frozen=True, slots=True)
class Configured:
    """Decisions after reading the configuration; ``problems`` forbid the start, ``warnings`` do not."""

    decisions: tuple[Decision, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


# --- finding -------------------------------------------------------------------------------------------------------


def find(kinds: Iterable[Kind] = KINDS) -> list[Decision]:
    """Return a decision for everything installed: *asked at start*, or *broken* with all that is wrong with it."""
    return [decision for kind in kinds for decision in _each_once([*_dropped_in(kind), *_entered(kind)])]


def _dropped_in(kind: Kind) -> Iterator[Decision]:
    """Find what ``twisted.plugin.getPlugins`` finds, and say why a module's plugins are missing.

    Twisted 26.10 only logs a module that cannot be imported, and believes a ``dropin.cache`` that is newer than a
    changed plugin: where files keep their old times, or a plugin's variables depend on another module, a new plugin
    stays invisible. So the modules themselves are read (test_a_stale_dropin_cache_hides_nothing).
    """
    import_module(kind.package)
    for module in getModule(kind.package).iterModules():
        try:
            variables = list(vars(module.load()).items())
        except (Exception, SystemExit) as error:
            name = module.name.rpartition(".")[2]
            yield _broken(kind, name, module.name, f"cannot be imported: {one_line(error)}")
            continue
        for variable, value in variables:
            if kind.interface.providedBy(value) or _is_homeless(value):
                yield _examined(kind, variable, f"{module.name}:{variable}", value)


def _is_homeless(value: object) -> bool:
    """A plugin that provides the general interface alone would be found by nobody."""
    return IMeterPlugin.providedBy(value) and not any(kind.interface.providedBy(value) for kind in KINDS)


def _entered(kind: Kind) -> Iterator[Decision]:
    for entry in sorted(entry_points(group=kind.group)):
        try:
            loaded = entry.load()
            plugin = loaded() if callable(loaded) and not kind.interface.providedBy(loaded) else loaded
        except (Exception, SystemExit) as error:
            yield _broken(kind, entry.name, _origin(entry), f"cannot be loaded: {one_line(error)}")
        else:
            yield _examined(kind, entry.name, _origin(entry), plugin)


def _origin(entry: EntryPoint) -> str:
    return f"{entry.value} ({entry.dist.name} {entry.dist.version})" if entry.dist else entry.value


def _examined(kind: Kind, name: str, origin: str, plugin: Any) -> Decision:
    wrong = plugin_problems(kind.interface, plugin)
    if wrong:
        return replace(_broken(kind, name, origin, "; ".join(wrong)), plugin=plugin)
    return Decision(kind=kind, name=plugin.name, origin=origin, state="asked at start", plugin=plugin)


def _each_once(decisions: Iterable[Decision]) -> Iterator[Decision]:
    """The same object found twice is one plugin; another object with a name that is taken stays out."""
    seen: set[int] = set()
    taken: dict[str, str] = {}
    for decision in decisions:
        if decision.plugin is not None and id(decision.plugin) in seen:
            continue
        seen.add(id(decision.plugin))
        if decision.state == "broken":
            yield replace(decision, plugin=None)
        elif decision.name in taken:
            reason = f"the name {decision.name} is taken by {taken[decision.name]}"
            yield _broken(decision.kind, decision.name, decision.origin, reason)
        else:
            taken[decision.name] = decision.origin
            yield decision


def _broken(kind: Kind, name: str, origin: str, reason: str) -> Decision:
    return Decision(kind=kind, name=name, origin=origin, state="broken", reason=reason)


# --- configuring ---------------------------------------------------------------------------------------------------


def configure(
    found: Iterable[Decision], sections: Mapping[str, Mapping[str, Any]], disable: Sequence[str]
) -> Configured:
    """Give plugins their options and switch off what ``disable`` names.

    ``sections`` maps a kind's section to its sub-sections: ``{"pollsters": {"cpu": {"limit": 5}}}``. ``disable`` has
    shell patterns of names of plugins and meters. Pass all kinds that share the file, then keep those you work with:
    a section or pattern is a mistake only when no kind knows it.
    """
    found = list(found)
    problems = list(_unknown_sections(found, sections))
    decisions = []
    for decision in found:
        if decision.state == "asked at start":
            section = sections.get(decision.kind.section, {}).get(decision.name)
            decision, wrong = _configured(_switched(decision, disable), section)
            problems += [text for text in wrong if text not in problems]
        decisions.append(decision)
    idle = [pattern for pattern in disable if not any(_concerns(pattern, each) for each in found)]
    warnings = [f"[plugins] disable: {pattern!r} is the name of no plugin and of no meter" for pattern in idle]
    return Configured(tuple(decisions), tuple(problems), tuple(warnings))


def _unknown_sections(found: Sequence[Decision], sections: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for section, options_by_name in sections.items():
        installed = sorted({decision.name for decision in found if decision.kind.section == section})
        for name in options_by_name:
            if name not in installed:
                yield f"[{section}.{name}]: no such plugin is installed; installed are: {', '.join(installed) or 'none'}"


def _switched(decision: Decision, disable: Sequence[str]) -> Decision:
    by_name = [pattern for pattern in disable if fnmatchcase(decision.name, pattern)]
    by_meter = [pattern for pattern in disable if _touches_meters(pattern, decision)]
    meters = [definition.name for definition in decision.plugin.meters]
    if by_name or (by_meter and all(any(fnmatchcase(meter, pattern) for pattern in by_meter) for meter in meters)):
        return replace(decision, state="disabled", reason=f"[plugins] disable has {', '.join(by_name or by_meter)}")
    if by_meter:
        return replace(decision, meters_off=tuple(by_meter), reason=f"without {', '.join(by_meter)}")
    return decision


def _touches_meters(pattern: str, decision: Decision) -> bool:
    """``instance:*`` is touched by ``instance:m1.*``: what follows is known only when measuring."""
    return any(
        fnmatchcase(definition.name, pattern)
        or (definition.name.endswith("*") and fnmatchcase(pattern, definition.name))
        for definition in decision.plugin.meters
    )


def _concerns(pattern: str, decision: Decision) -> bool:
    return fnmatchcase(decision.name, pattern) or (decision.plugin is not None and _touches_meters(pattern, decision))


def _configured(decision: Decision, section: Any) -> tuple[Decision, list[str]]:
    """Return the decision with its plugin configured, and the problems of its section."""
    where = f"[{decision.kind.section}.{decision.name}]"
    options = decision.plugin.options
    if options is None:
        return decision, [f"{where}: the plugin has no options"] if section else []
    if section is not None:
        if not isinstance(section, Mapping):
            return decision, [f"{where}: should be a section, not {section!r}"]
        try:
            options = _merged(options, section)
        except ValidationError as error:
            return replace(decision, state="broken", reason="its options are wrong"), [
                f"{where} {_problem(detail, options)}" for detail in error.errors(include_input=False)
            ]
    if decision.state == "disabled":
        return decision, []
    try:
        plugin = decision.plugin.configured(options)
    except Exception as error:
        return _broken(decision.kind, decision.name, decision.origin, f"configured() failed: {one_line(error)}"), []
    wrong = plugin_problems(decision.kind.interface, plugin)
    if wrong:
        reason = f"configured() returned what is no plugin: {'; '.join(wrong)}"
        return _broken(decision.kind, decision.name, decision.origin, reason), []
    return replace(decision, plugin=plugin), []


def _merged(options: BaseModel, section: Mapping[str, Any]) -> BaseModel:
    """Validate the section over the plugin's own defaults, which need not be those of the class."""
    aliases = {field.alias: name for name, field in type(options).model_fields.items() if field.alias}
    given = {aliases.get(key, key): value for key, value in section.items()}
    return type(options).model_validate({**dict(options), **given}, extra="forbid", by_name=True)


def _problem(detail: Any, options: BaseModel) -> str:
    where = ".".join(str(part) for part in detail["loc"]) or "options"
    if detail["type"] == "extra_forbidden":
        known = ", ".join(type(options).model_fields) if len(detail["loc"]) == 1 else ""
        return f"{where}: there is no such option" + (f"; known are {known}" if known else "")
    return f"{where}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"


# --- asking --------------------------------------------------------------------------------------------------------


async def decide(
    decisions: Iterable[Decision], context: IPluginContext, clock: IReactorTime, seconds: float = 10.0
) -> list[Decision]:
    """Ask every plugin that is to be asked whether it is enabled ``here``, all at once, with ``seconds`` to answer."""
    asked = [Deferred.fromCoroutine(_answer(decision, context, clock, seconds)) for decision in decisions]
    return await gatherResults(asked, consumeErrors=True)


def decide_now(decisions: Iterable[Decision], context: IPluginContext) -> list[Decision]:
    """Like :func:`decide`, without a running reactor: a plugin that has to wait for its answer stays *asked at start*."""
    return [_asked_now(decision, context) for decision in decisions]


async def _answer(decision: Decision, context: IPluginContext, clock: IReactorTime, seconds: float) -> Decision:
    if decision.state != "asked at start":
        return decision
    work = Deferred.fromCoroutine(_ask(decision, context))
    # A plugin may refuse to be cancelled; the answer it may still give is let go.
    answer: Deferred[Decision] = Deferred()
    work.chainDeferred(answer)
    try:
        return await answer.addTimeout(seconds, clock)
    except DeferredTimeout:
        return replace(decision, state="broken", reason=f"enabled() did not answer within {seconds:g} s")
    finally:
        work.cancel()


def _asked_now(decision: Decision, context: IPluginContext) -> Decision:
    if decision.state != "asked at start":
        return decision
    answers: list[Decision] = []
    work = Deferred.fromCoroutine(_ask(decision, context)).addCallback(answers.append)
    if answers:
        return answers[0]
    work.cancel()
    return decision


async def _ask(decision: Decision, context: IPluginContext) -> Decision:
    enabled: Callable[[IPluginContext], Awaitable[object]] = decision.plugin.enabled
    try:
        answer = await enabled(context)
    except (Exception, SystemExit) as error:
        return replace(decision, state="broken", reason=f"enabled() failed: {one_line(error)}")
    if isinstance(answer, Enabled):
        reason = "; ".join(text for text in (decision.reason, str(answer.remark)) if text)
        return replace(decision, state="active", reason=reason)
    if isinstance(answer, Disabled):
        return replace(decision, state="off here", reason=str(answer.reason))
    wanted = "it should return Enabled() or Disabled(reason)"
    return replace(decision, state="broken", reason=f"enabled() answered {reprlib.repr(answer)}; {wanted}")


# --- telling -------------------------------------------------------------------------------------------------------


def report(decisions: Iterable[Decision]) -> str:
    """Return an aligned table of the decisions, one a line, without a final line break."""
    rows = [("PLUGIN", "KIND", "STATE", "ORIGIN", "REASON")]
    rows += [(each.name, each.kind.name, each.state, each.origin, each.reason) for each in decisions]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
