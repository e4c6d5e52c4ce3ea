"""Files of definitions: TOML of our own, and Ceilometer's ``meters.yaml`` as it is.

A definition that is wrong is a problem with file and line; the others of its file work.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from meter.declarative.notifications.ceilometer import from_ceilometer
from meter.declarative.notifications.definition import Definition
from meter.declarative.notifications.definition import Metadata
from meter.declarative.notifications.models import BadDefinition
from meter.declarative.notifications.models import Reading
from meter.declarative.notifications.models import definition
from meter.declarative.notifications.models import described
from meter.declarative.notifications.models import end_of
from meter.declarative.notifications.resource_end import Ended

SUFFIXES = (".toml", ".yaml", ".yml")
"""Of the files that are read; others are somebody else's."""

KEYS = ("exchanges", "metadata", "ended", "meter")
"""What a TOML file may have at its top."""


@dataclass(frozen=True, slots=True)
class DefinitionFile:
    """What a file has: definitions that work, the exchanges it wants heard, and a line for each problem."""

    definitions: tuple[Definition, ...]
    exchanges: tuple[str, ...]
    problems: tuple[str, ...]


def read_definitions(path: Path, shown: str | None = None) -> DefinitionFile:
    """Return what the file at ``path`` has, whatever is wrong with it; ``shown`` is how to name it."""
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
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        return DefinitionFile((), (), (f"{name}:{line[1] if line else 1}: not TOML: {error}",))
    problems = [
        f"{name}:1: {key}: there is no such key; known are {', '.join(KEYS)}" for key in content if key not in KEYS
    ]
    shared: dict[str, Metadata] = {}
    for group, table in _table(content, "metadata").items():
        reading = Reading()
        shared[group] = described(table if isinstance(table, dict) else {}, reading)
        problems += [f"{name}:{_line_of(text, rf'metadata.{re.escape(group)}')}: {each}" for each in reading.problems]
    ends: dict[str, Ended] = {}
    for group, table in _table(content, "ended").items():
        reading = Reading()
        ends[group] = end_of(table, reading)
        problems += [f"{name}:{_line_of(text, rf'ended.{re.escape(group)}')}: {each}" for each in reading.problems]
    entries = content.get("meter", [])
    lines = [number for number, line in enumerate(text.splitlines(), 1) if re.match(r"\s*\[\[\s*meter\s*\]\]", line)]
    if not isinstance(entries, list) or len(lines) != len(entries):
        lines = [1] * len(entries)
    exchanges = content.get("exchanges", [])
    if not isinstance(exchanges, list) or not all(isinstance(each, str) and each for each in exchanges):
        problems.append(f"{name}:1: exchanges: should be a list of names")
        exchanges = []
    definitions = tuple(_each(zip(lines, entries, strict=True), shared, ends, name, problems))
    return DefinitionFile(definitions, tuple(exchanges), tuple(problems))


def _from_yaml(text: str, name: str) -> DefinitionFile:
    try:
        content = yaml.safe_load(text)
        tree = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        return DefinitionFile(
            (), (), (f"{name}:{mark.line + 1 if mark else 1}: not YAML: {' '.join(str(error).split())}",)
        )
    entries = content.get("metric") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        return DefinitionFile((), (), (f"{name}:1: should have a list named metric, as Ceilometer's meters.yaml",))
    nodes = next(value.value for key, value in tree.value if key.value == "metric") if tree else []
    problems: list[str] = []
    tables = []
    for node, entry in zip(nodes, entries, strict=True):
        line = node.start_mark.line + 1
        try:
            tables.append((line, from_ceilometer(entry) if isinstance(entry, dict) else entry))
        except BadDefinition as error:
            problems += _told(error, name, line, entry)
    return DefinitionFile(tuple(_each(tables, {}, {}, name, problems)), (), tuple(problems))


def _each(
    entries: Any, shared: Mapping[str, Metadata], ends: Mapping[str, Ended], name: str, problems: list[str]
) -> Iterator[Definition]:
    interned: dict[str, Metadata] = {}
    for line, entry in entries:
        if not isinstance(entry, dict):
            problems.append(f"{name}:{line}: should be a table of a meter, not {entry!r:.60}")
            continue
        try:
            made = definition(entry, shared, f"{name}:{line}", ends)
        except BadDefinition as error:
            problems += _told(error, name, line, entry)
        else:
            # Definitions that say the same metadata take it from a notification once.
            metadata = interned.setdefault(repr((entry.get("metadata"), entry.get("user_metadata"))), made.metadata)
            yield replace(made, metadata=metadata)


def _told(error: BadDefinition, name: str, line: int, entry: Mapping[str, Any]) -> list[str]:
    return [f"{name}:{line}: meter {entry.get('name', 'without a name')!r:.80}: {each}" for each in error.problems]


def _table(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = content.get(name)
    return value if isinstance(value, dict) else {}


def _line_of(text: str, header: str) -> int:
    found = re.search(rf"^\s*\[\s*{header}\s*\]", text, re.MULTILINE)
    return text.count("\n", 0, found.start(0)) + 1 if found else 1
