"""The plugin registry: which plugins are installed, their configuration, and which are active, each with the reason.

Plugins are found in two places: modules in the packages ``meter.pollsters`` and ``meter.listeners``, to which
:mod:`twisted.plugin` lets other distributions add, and entry points. Three functions take and return
:class:`Decision` records::

    found = find()
    configured = configure(found, {"pollsters": config.pollsters, "listeners": config.listeners}, disable)
    decisions = await decide(configured.decisions, context, clock)

None of them raises because of a plugin: its problem becomes the reason of its decision.
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
from meter.positions import counted_from_one
from meter.settings.plain_words import plain
from meter.settings.plain_words import toml_text

State = Literal["pending", "active", "disabled", "not applicable", "broken"]
"""*pending*: not decided yet. *disabled*: by the configuration. *not applicable*: by the plugin's own ``enabled()``."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of plugin: its interface, the package and entry point group it is found in, its configuration section."""

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
    """The state of one plugin and the reason for it. ``plugin`` is the configured provider, ``None`` if broken.

    ``meters_off`` has the patterns of meters that ``[plugins] disable`` excludes from an active plugin.
    """

    kind: Kind
    name: str
    origin: str
    state: State
    reason: str = ""
    plugin: Any = None
    meters_off: tuple[str, ...] = ()

    def takes(self, meter: str) -> bool:
        """Return whether samples of ``meter`` are taken from this plugin."""
        return not self.meters_off or not any(fnmatchcase(meter, pattern) for pattern in self.meters_off)


@dataclass(frozen=True, slots=True)
class Configured:
    """The result of :func:`configure`; a daemon does not start with ``problems``, ``warnings`` are logged."""

    decisions: tuple[Decision, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


# --- discovery -----------------------------------------------------------------------------------------------------


def find(kinds: Iterable[Kind] = KINDS) -> list[Decision]:
    """Return a decision for each installed plugin: *pending*, or *broken* with its problems as the reason."""
    return [
        decision
        for kind in kinds
        for decision in _without_duplicates([*_from_modules(kind), *_from_entry_points(kind)])
    ]


def _from_modules(kind: Kind) -> Iterator[Decision]:
    """Yield what ``twisted.plugin.getPlugins`` finds, and a broken decision for a module that cannot be imported.

    Twisted 26.10 only logs a module that cannot be imported, and trusts a ``dropin.cache`` that is newer than a changed
    plugin: if files keep their old modification times, or the names in a plugin module depend on another module, a new
    plugin is not found. So the modules are imported here (test_stale_dropin_cache_hides_no_plugin).
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
            if kind.interface.providedBy(value) or _has_no_kind(value):
                yield _validated(kind, variable, f"{module.name}:{variable}", value)


def _has_no_kind(value: object) -> bool:
    """Return whether ``value`` provides the base interface but that of no kind, so that it would never be found."""
    return IMeterPlugin.providedBy(value) and not any(kind.interface.providedBy(value) for kind in KINDS)


def _from_entry_points(kind: Kind) -> Iterator[Decision]:
    for entry in sorted(entry_points(group=kind.group)):
        try:
            loaded = entry.load()
            plugin = loaded() if callable(loaded) and not kind.interface.providedBy(loaded) else loaded
        except (Exception, SystemExit) as error:
            yield _broken(kind, entry.name, _origin(entry), f"cannot be loaded: {one_line(error)}")
        else:
            yield _validated(kind, entry.name, _origin(entry), plugin)


def _origin(entry: EntryPoint) -> str:
    return f"{entry.value} ({entry.dist.name} {entry.dist.version})" if entry.dist else entry.value


def _validated(kind: Kind, name: str, origin: str, plugin: Any) -> Decision:
    problems = plugin_problems(kind.interface, plugin)
    if problems:
        return replace(_broken(kind, name, origin, "; ".join(problems)), plugin=plugin)
    return Decision(kind=kind, name=plugin.name, origin=origin, state="pending", plugin=plugin)


def _without_duplicates(decisions: Iterable[Decision]) -> Iterator[Decision]:
    """Yield an object that was found twice once; another object with the same name is broken."""
    seen: set[int] = set()
    taken: dict[str, str] = {}
    for decision in decisions:
        if decision.plugin is not None and id(decision.plugin) in seen:
            continue
        seen.add(id(decision.plugin))
        if decision.state == "broken":
            yield replace(decision, plugin=None)
        elif decision.name in taken:
            reason = f"the name {decision.name} is already used by {taken[decision.name]}"
            yield _broken(decision.kind, decision.name, decision.origin, reason)
        else:
            taken[decision.name] = decision.origin
            yield decision


def _broken(kind: Kind, name: str, origin: str, reason: str) -> Decision:
    return Decision(kind=kind, name=name, origin=origin, state="broken", reason=reason)


# --- configuration -------------------------------------------------------------------------------------------------


def configure(
    found: Iterable[Decision], sections: Mapping[str, Mapping[str, Any]], disable: Sequence[str]
) -> Configured:
    """Apply the options of plugins and disable those that ``disable`` matches.

    ``sections`` maps a kind's section to its sub-sections: ``{"pollsters": {"cpu": {"limit": 5}}}``. ``disable`` has
    shell patterns of names of plugins and meters. Pass the plugins of all kinds: a section or pattern is an error only
    if it matches no plugin of any kind.
    """
    found = list(found)
    problems = list(_unknown_sections(found, sections))
    decisions = []
    for decision in found:
        if decision.state == "pending":
            section = sections.get(decision.kind.section, {}).get(decision.name)
            decision, wrong = _configured(_with_disabled(decision, disable), section)
            problems += [text for text in wrong if text not in problems]
        decisions.append(decision)
    unmatched = [pattern for pattern in disable if not any(_matches(pattern, each) for each in found)]
    warnings = [f"[plugins] disable: {pattern!r} matches no plugin and no meter" for pattern in unmatched]
    return Configured(tuple(decisions), tuple(problems), tuple(warnings))


def _unknown_sections(found: Sequence[Decision], sections: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for section, options_by_name in sections.items():
        installed = sorted({decision.name for decision in found if decision.kind.section == section})
        for name in options_by_name:
            if name not in installed:
                yield f"[{section}.{name}]: no such plugin is installed; installed are: {', '.join(installed) or 'none'}"


def _with_disabled(decision: Decision, disable: Sequence[str]) -> Decision:
    by_name = [pattern for pattern in disable if fnmatchcase(decision.name, pattern)]
    by_meter = [pattern for pattern in disable if _matches_meters(pattern, decision)]
    meters = [definition.name for definition in decision.plugin.meters]
    if by_name or (by_meter and all(any(fnmatchcase(meter, pattern) for pattern in by_meter) for meter in meters)):
        return replace(decision, state="disabled", reason=f"[plugins] disable has {', '.join(by_name or by_meter)}")
    if by_meter:
        return replace(decision, meters_off=tuple(by_meter), reason=f"without {', '.join(by_meter)}")
    return decision


def _matches_meters(pattern: str, decision: Decision) -> bool:
    """Return whether ``pattern`` matches a meter of the plugin; ``instance:m1.*`` matches the meters ``instance:*``."""
    return any(
        fnmatchcase(definition.name, pattern)
        or (definition.name.endswith("*") and fnmatchcase(pattern, definition.name))
        for definition in decision.plugin.meters
    )


def _matches(pattern: str, decision: Decision) -> bool:
    """Return whether ``pattern`` is about this plugin or a meter that it names; one that may have any meter, ``*``, names none."""
    if fnmatchcase(decision.name, pattern):
        return True
    names_meters = decision.plugin is not None and any(each.name != "*" for each in decision.plugin.meters)
    return names_meters and _matches_meters(pattern, decision)


def _configured(decision: Decision, section: Any) -> tuple[Decision, list[str]]:
    """Return the decision with its plugin configured, and the problems of its section."""
    where = f"[{decision.kind.section}.{decision.name}]"
    options = decision.plugin.options
    if options is None:
        return decision, [f"{where}: the plugin has no options"] if section else []
    if section is not None:
        if not isinstance(section, Mapping):
            return decision, [f"{where}: should be a section, not {toml_text(section)}"]
        try:
            options = _merged(options, section)
        except ValidationError as error:
            return replace(decision, state="broken", reason="its options are invalid"), [
                f"{where} {_problem(detail, options)}" for detail in error.errors(include_input=False)
            ]
    if decision.state == "disabled":
        return decision, []
    try:
        plugin = decision.plugin.configured(options)
    except Exception as error:
        return _broken(decision.kind, decision.name, decision.origin, f"configured() failed: {one_line(error)}"), []
    problems = plugin_problems(decision.kind.interface, plugin)
    if problems:
        reason = f"configured() did not return a valid plugin: {'; '.join(problems)}"
        return _broken(decision.kind, decision.name, decision.origin, reason), []
    return replace(decision, plugin=plugin), []


def _merged(options: BaseModel, section: Mapping[str, Any]) -> BaseModel:
    """Return the section validated over the plugin's own defaults, which may differ from those of the model."""
    aliases = {field.alias: name for name, field in type(options).model_fields.items() if field.alias}
    given = {aliases.get(key, key): value for key, value in section.items()}
    return type(options).model_validate({**dict(options), **given}, extra="forbid", by_name=True)


def _problem(detail: Any, options: BaseModel) -> str:
    where = ".".join(counted_from_one(detail["loc"])) or "options"
    if detail["type"] == "extra_forbidden":
        known = ", ".join(type(options).model_fields) if len(detail["loc"]) == 1 else ""
        return f"{where}: unknown option" + (f"; known are {known}" if known else "")
    return f"{where}: {'is missing' if detail['type'] == 'missing' else plain(detail['msg'])}"


# --- activation ----------------------------------------------------------------------------------------------------


async def decide(
    decisions: Iterable[Decision], context: IPluginContext, clock: IReactorTime, seconds: float = 10.0
) -> list[Decision]:
    """Call ``enabled(context)`` of all pending plugins concurrently; one that takes over ``seconds`` is broken."""
    deciding = [Deferred.fromCoroutine(_decide_within(decision, context, clock, seconds)) for decision in decisions]
    return await gatherResults(deciding, consumeErrors=True)


def decide_now(decisions: Iterable[Decision], context: IPluginContext) -> list[Decision]:
    """Do the same without a running reactor: a plugin whose ``enabled()`` has to wait stays *pending*."""
    return [_decide_now(decision, context) for decision in decisions]


async def _decide_within(decision: Decision, context: IPluginContext, clock: IReactorTime, seconds: float) -> Decision:
    if decision.state != "pending":
        return decision
    work = Deferred.fromCoroutine(_call_enabled(decision, context))
    # A plugin may ignore cancellation; a result that comes after the time limit is dropped.
    result: Deferred[Decision] = Deferred()
    work.chainDeferred(result)
    try:
        return await result.addTimeout(seconds, clock)
    except DeferredTimeout:
        return replace(decision, state="broken", reason=f"enabled() did not return within {seconds:g} s")
    finally:
        work.cancel()


def _decide_now(decision: Decision, context: IPluginContext) -> Decision:
    if decision.state != "pending":
        return decision
    results: list[Decision] = []
    work = Deferred.fromCoroutine(_call_enabled(decision, context)).addCallback(results.append)
    if results:
        return results[0]
    work.cancel()
    return decision


async def _call_enabled(decision: Decision, context: IPluginContext) -> Decision:
    enabled: Callable[[IPluginContext], Awaitable[object]] = decision.plugin.enabled
    try:
        result = await enabled(context)
    except (Exception, SystemExit) as error:
        return replace(decision, state="broken", reason=f"enabled() failed: {one_line(error)}")
    if isinstance(result, Enabled):
        reason = "; ".join(text for text in (decision.reason, str(result.remark)) if text)
        return replace(decision, state="active", reason=reason)
    if isinstance(result, Disabled):
        return replace(decision, state="not applicable", reason=str(result.reason))
    expected = "it should return Enabled() or Disabled(reason)"
    return replace(decision, state="broken", reason=f"enabled() returned {reprlib.repr(result)}; {expected}")


# --- report --------------------------------------------------------------------------------------------------------


def report(decisions: Iterable[Decision]) -> str:
    """Return the decisions as an aligned table, one per line, without a final line break."""
    rows = [("PLUGIN", "KIND", "STATE", "ORIGIN", "REASON")]
    rows += [(each.name, each.kind.name, each.state, each.origin, each.reason) for each in decisions]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
