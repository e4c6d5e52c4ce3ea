"""Reads files of definitions: Meter's in TOML, and Ceilometer's ``meters.yaml``.

A bad definition is reported with file and line; the other definitions of its file are used.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from meter.declarative.notifications.ceilometer import from_ceilometer
from meter.declarative.notifications.definition import Definition
from meter.declarative.notifications.deletion import Deletion
from meter.declarative.notifications.metadata import Metadata
from meter.declarative.notifications.models import BadDefinition
from meter.declarative.notifications.models import ConditionsTable
from meter.declarative.notifications.models import ReadContext
from meter.declarative.notifications.models import make_definition
from meter.declarative.notifications.models import read_conditions
from meter.declarative.notifications.models import read_deletion
from meter.declarative.notifications.models import read_metadata
from meter.toml_lines import Path as TomlPath
from meter.toml_lines import innermost_line
from meter.toml_lines import toml_fault_line
from meter.toml_lines import toml_lines
from meter.yaml_faults import yaml_fault
from meter.yaml_faults import yaml_fault_line

SUFFIXES = (".toml", ".yaml", ".yml")
"""Suffixes of the files that are read; others are ignored."""

KEYS = ("exchanges", "metadata", "deletion", "conditions", "meter")
"""Top-level keys of a TOML file."""


@dataclass(frozen=True, slots=True)
class DefinitionFile:
    """The content of a file: valid definitions, the exchanges to subscribe to, and a text for each problem."""

    definitions: tuple[Definition, ...]
    exchanges: tuple[str, ...]
    problems: tuple[str, ...]


def read_definitions(path: Path, shown: str | None = None) -> DefinitionFile:
    """Return the content of the file at ``path``, whatever is wrong with it; problems name it ``shown``."""
    name = shown or str(path)
    try:
        text = path.read_text(encoding="utf-8")
        return _from_yaml(text, name) if path.suffix != ".toml" else _from_toml(text, name)
    except (OSError, UnicodeDecodeError) as error:
        return DefinitionFile((), (), (f"{name}: cannot be read: {error}",))
    except RecursionError:
        return DefinitionFile((), (), (f"{name}: is nested too deeply",))


def _from_toml(text: str, name: str) -> DefinitionFile:
    try:
        content = tomllib.loads(text)
    except RecursionError:
        return DefinitionFile((), (), (f"{name}:1: not TOML: it is nested too deeply",))
    except tomllib.TOMLDecodeError as error:
        return DefinitionFile((), (), (f"{name}:{toml_fault_line(text, error)}: not TOML: {error}",))
    places = _Places(name, toml_lines(text))
    problems = [
        f"{places.of(key, 0)}: {key}: unknown key; should be one of {', '.join(KEYS)}"
        for key in content
        if key not in KEYS
    ]
    problems += [
        f"{places.of(key)}: {key}: should be tables, [{key}.NAME]"
        for key in ("metadata", "deletion", "conditions")
        if not isinstance(content.get(key, {}), dict)
    ]
    shared: dict[str, Metadata] = {}
    for group, table in _table(content, "metadata").items():
        context = ReadContext()
        shared[group] = read_metadata(table if isinstance(table, dict) else {}, context)
        problems += [f"{places.of_problem(each, 'metadata', group)}: {each}" for each in context.problems]
    deletions: dict[str, Deletion] = {}
    for group, table in _table(content, "deletion").items():
        context = ReadContext()
        deletions[group] = read_deletion(table, context)
        problems += [f"{places.of_problem(each, 'deletion', group)}: {each}" for each in context.problems]
    entries = content.get("meter", [])
    if not isinstance(entries, list):
        problems.append(f"{places.of('meter')}: meter: should be an array of tables, each with the header [[meter]]")
        entries = []
    conditions: dict[str, ConditionsTable | None] = {}
    used = [each.get("conditions") for each in entries if isinstance(each, dict)]
    for group, table in _table(content, "conditions").items():
        context = ReadContext()
        conditions[group] = read_conditions(table, context)
        if group not in used:
            context.problems.append(f'conditions.{group}: no meter has conditions = "{group}"')
        problems += [f"{places.of_problem(each, 'conditions', group)}: {each}" for each in context.problems]
    exchanges = content.get("exchanges", [])
    if not isinstance(exchanges, list) or not all(isinstance(each, str) and each for each in exchanges):
        problems.append(f"{places.of('exchanges')}: exchanges: should be a list of names")
        exchanges = []
    definitions = tuple(_definitions(enumerate(entries), _Shared(shared, deletions, conditions), places, problems))
    return DefinitionFile(definitions, tuple(exchanges), tuple(problems))


def _from_yaml(text: str, name: str) -> DefinitionFile:
    try:
        content = yaml.safe_load(text)
        tree = yaml.compose(text, yaml.SafeLoader)
    except RecursionError:
        return DefinitionFile((), (), (f"{name}:1: not YAML: it is nested too deeply",))
    except yaml.YAMLError as error:
        return DefinitionFile((), (), (f"{name}:{yaml_fault_line(error) or 1}: not YAML: {yaml_fault(error)}",))
    entries = content.get("metric") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        return DefinitionFile((), (), (f"{name}:1: should have a list named metric, as Ceilometer's meters.yaml",))
    nodes: list[yaml.Node] = next((value.value for key, value in tree.value if key.value == "metric"), [])
    places = _Places(name, {("meter", number): node.start_mark.line + 1 for number, node in enumerate(nodes)})
    problems: list[str] = []
    tables = []
    for number, entry in enumerate(entries):
        try:
            tables.append((number, from_ceilometer(entry) if isinstance(entry, dict) else entry))
        except BadDefinition as error:
            problems += _problems(error, places, number, entry)
    return DefinitionFile(tuple(_definitions(tables, _Shared({}, {}, {}), places, problems)), (), tuple(problems))


@dataclass(frozen=True, slots=True)
class _Shared:
    """The tables of a file that its definitions refer to, by name."""

    metadata: Mapping[str, Metadata]
    deletions: Mapping[str, Deletion]
    conditions: Mapping[str, ConditionsTable | None]


@dataclass(frozen=True, slots=True)
class _Places:
    """Names places in a file: the file as ``name``, and lines."""

    name: str
    lines: Mapping[TomlPath, int]

    def of(self, *path: str | int) -> str:
        """Return the file and the line of a key or a table."""
        return f"{self.name}:{innermost_line(self.lines, path)}"

    def of_problem(self, problem: str, *table: str | int) -> str:
        """Return the file and the line of the key of ``table`` with whose name a problem begins, or else of the table."""
        keys = problem.partition(":")[0].split(".")
        return self.of(*table, *(keys[1:] if keys[0] == table[0] else keys))


def _definitions(
    entries: Iterable[tuple[int, Any]],
    shared: _Shared,
    places: _Places,
    problems: list[str],
) -> Iterator[Definition]:
    interned: dict[str, Metadata] = {}
    for number, entry in entries:
        place = places.of("meter", number)
        if not isinstance(entry, dict):
            problems.append(f"{place}: should be a table of a meter, not {entry!r:.60}")
            continue
        try:
            new = make_definition(entry, shared.metadata, place, shared.deletions, shared.conditions)
        except BadDefinition as error:
            problems += _problems(error, places, number, entry)
        else:
            # Definitions with equal metadata share one object, so that it is extracted once per notification.
            metadata = interned.setdefault(repr((entry.get("metadata"), entry.get("user_metadata"))), new.metadata)
            yield replace(new, metadata=metadata)


def _problems(error: BadDefinition, places: _Places, number: int, entry: Mapping[str, Any]) -> list[str]:
    shown = f"meter {entry.get('name', 'without a name')!r:.80}"
    return [f"{places.of_problem(each, 'meter', number)}: {shown}: {each}" for each in error.problems]


def _table(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = content.get(name)
    return value if isinstance(value, dict) else {}
