"""Loads the operator's definitions: each file of a directory is a listener, reported and disabled like any other."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from meter.declarative.definition_files import definition_paths
from meter.declarative.notifications.files import SUFFIXES
from meter.declarative.notifications.files import DefinitionFile
from meter.declarative.notifications.files import read_definitions
from meter.declarative.notifications.listener import DefinedListener
from meter.plugins.registry import LISTENER
from meter.plugins.registry import Decision

DEFAULT_EXCHANGE = "openstack"
"""The default exchange of oslo.messaging."""


def load_user_definitions(directory: str) -> tuple[list[Decision], list[str]]:
    """Return a decision for each file of ``directory``, by name, and a text for each problem.

    The listener of ``sites.toml`` is named ``definitions.sites``. A missing directory, or ``""``, has no files.
    """
    decisions: list[Decision] = []
    problems: list[str] = []
    try:
        paths = definition_paths(directory, SUFFIXES)
    except OSError as error:
        return [], [f"{directory}: cannot be read: {error}"]
    for path in paths:
        file = read_definitions(path)
        problems += file.problems
        decisions.append(_decision(path, file))
    return decisions, problems


def without_redefined_meters(decisions: Sequence[Decision], user_defined: Sequence[Decision]) -> list[Decision]:
    """Return ``decisions`` with the meters of the ``user_defined`` ones disabled in the others.

    A meter that the operator redefines is then not made twice.
    """
    redefined = {
        meter.name: decision
        for decision in decisions
        if any(decision.name == each.name for each in user_defined) and decision.state == "pending"
        for meter in decision.plugin.meters
        if not meter.name.endswith("*")
    }
    return [_without(decision, redefined) for decision in decisions]


def _without(decision: Decision, redefined: Mapping[str, Decision]) -> Decision:
    if decision.kind is not LISTENER or decision.state != "pending" or decision.plugin is None:
        return decision
    taken = [
        meter.name for meter in decision.plugin.meters if redefined.get(meter.name, decision).name != decision.name
    ]
    if not taken:
        return decision
    reason = f"{', '.join(taken)} from {', '.join(dict.fromkeys(redefined[name].name for name in taken))}"
    return replace(
        decision, meters_off=(*decision.meters_off, *taken), reason="; ".join(filter(None, (decision.reason, reason)))
    )


def _decision(path: Path, file: DefinitionFile) -> Decision:
    name = f"definitions.{path.stem}"
    if not file.definitions:
        reason = "has no valid definition"
        return Decision(kind=LISTENER, name=name, origin=str(path), state="broken", reason=reason)
    listener = DefinedListener(name, file.definitions, file.exchanges or (DEFAULT_EXCHANGE,))
    return Decision(kind=LISTENER, name=name, origin=str(path), state="pending", plugin=listener)
