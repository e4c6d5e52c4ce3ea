"""The operator's own definitions: every file of a directory, each a listener that is found, reported and disabled as one."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from meter.declarative.notifications.files import SUFFIXES
from meter.declarative.notifications.files import DefinitionFile
from meter.declarative.notifications.files import read_definitions
from meter.declarative.notifications.listener import DefinedListener
from meter.plugins.registry import LISTENER
from meter.plugins.registry import Decision

DEFAULT_EXCHANGE = "openstack"
"""Where services publish that name no other, as oslo.messaging's."""


def load_user_definitions(directory: str) -> tuple[list[Decision], list[str]]:
    """Return a decision for each file of ``directory`` in the order of their names, and a line for each problem.

    The listener of ``sites.toml`` is named ``definitions.sites``. A directory that does not exist has no files; ``""``
    is none.
    """
    decisions: list[Decision] = []
    problems: list[str] = []
    try:
        paths = sorted(path for path in Path(directory).iterdir() if path.suffix in SUFFIXES) if directory else []
    except FileNotFoundError:
        paths = []
    except OSError as error:
        return [], [f"{directory}: cannot be read: {error}"]
    for path in paths:
        file = read_definitions(path)
        problems += file.problems
        decisions.append(_decided(path, file))
    return decisions, problems


def without_redefined_meters(decisions: Sequence[Decision], own: Sequence[Decision]) -> list[Decision]:
    """Return ``decisions`` with every meter that ``own`` definitions make switched off in the others.

    Who defines a built-in meter anew wants it so, and not twice.
    """
    makers = {
        meter.name: decision
        for decision in decisions
        if any(decision.name == each.name for each in own) and decision.state == "pending"
        for meter in decision.plugin.meters
        if not meter.name.endswith("*")
    }
    return [_without(decision, makers) for decision in decisions]


def _without(decision: Decision, makers: Mapping[str, Decision]) -> Decision:
    if decision.kind is not LISTENER or decision.state != "pending" or decision.plugin is None:
        return decision
    taken = [meter.name for meter in decision.plugin.meters if makers.get(meter.name, decision).name != decision.name]
    if not taken:
        return decision
    said = f"{', '.join(taken)} from {', '.join(dict.fromkeys(makers[name].name for name in taken))}"
    return replace(
        decision, meters_off=(*decision.meters_off, *taken), reason="; ".join(filter(None, (decision.reason, said)))
    )


def _decided(path: Path, file: DefinitionFile) -> Decision:
    name = f"definitions.{path.stem}"
    if not file.definitions:
        reason = "has no definition that works"
        return Decision(kind=LISTENER, name=name, origin=str(path), state="broken", reason=reason)
    listener = DefinedListener(name, file.definitions, file.exchanges or (DEFAULT_EXCHANGE,))
    return Decision(kind=LISTENER, name=name, origin=str(path), state="pending", plugin=listener)
