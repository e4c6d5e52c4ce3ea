"""Loads a directory of definitions; they become pollsters that are listed, configured and disabled like any other."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic import ValidationError

from meter.declarative.definition_files import definition_paths
from meter.declarative.exposition import ExpositionDefinition
from meter.declarative.exposition import exposition_pollsters
from meter.declarative.exposition.definition import MetricDefinition
from meter.declarative.request_fields import RequestFields
from meter.declarative.rest.definition import RENAMED
from meter.declarative.rest.definition import RestDefinition
from meter.declarative.rest.definition import from_ceilometer
from meter.declarative.rest.pollster import RestPollster
from meter.interfaces import ICentralPollster
from meter.plugins.registry import CENTRAL
from meter.plugins.registry import Decision
from meter.positions import counted_from_one
from meter.settings.plain_words import plain
from meter.toml_lines import Path as TomlPath
from meter.toml_lines import innermost_line
from meter.toml_lines import toml_fault_line
from meter.toml_lines import toml_lines
from meter.yaml_faults import yaml_fault
from meter.yaml_faults import yaml_fault_line

SUFFIXES = (".toml", ".yaml", ".yml")

MODELS: Mapping[str, type[BaseModel]] = {"pollster": RestDefinition, "exposition": ExpositionDefinition}
"""The tables of a TOML file, and the definitions in them."""

CEILOMETER_FIELDS = {ours: theirs for theirs, ours in RENAMED.items()} | {
    "service": "endpoint_type",
    "path": "url_path",
}
"""Meter's names of fields, and Ceilometer's in its YAML files."""


def load_user_pollsters(directory: str) -> tuple[list[Decision], list[str]]:
    """Return a pending decision per valid definition in ``directory``, and a message per invalid one.

    ``""`` and a directory that does not exist have none.
    """
    decisions: dict[str, Decision] = {}
    problems: list[str] = []
    try:
        paths = definition_paths(directory, SUFFIXES)
    except OSError as error:
        return [], [f"{directory}: cannot be read: {error}"]
    for path in paths:
        text = ""
        try:
            text = path.read_text(encoding="utf-8")
            entries, lines = list(_entries(path, text)), _lines(path, text)
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            fault = yaml_fault(error) if isinstance(error, yaml.YAMLError) else " ".join(str(error).split())
            problems.append(f"{_place_of_fault(path, text, error)}: {_fault(error)}: {fault}")
            continue
        numbers: dict[str, int] = {}
        for table, entry in entries:
            numbers[table] = numbers.get(table, 0) + 1
            shown = f"{table} {numbers[table]} ({_name(entry)})"
            place = (table, numbers[table] - 1)
            where = f"{path}:{innermost_line(lines, place)}: {shown}"
            model = MODELS[table]
            try:
                pollsters = _pollsters(table, entry, ceilometer=path.suffix != ".toml")
            except ValidationError as error:
                names = CEILOMETER_FIELDS if path.suffix != ".toml" else {}
                for detail in error.errors(include_url=False):
                    message = _message(detail, model, names)
                    line = innermost_line(lines, (*place, *_keys(detail, message, names)))
                    problems.append(f"{path}:{line}: {shown}: {message}")
            except (ValueError, TypeError) as error:
                line = innermost_line(lines, (*place, str(error).partition(":")[0]))
                problems.append(f"{path}:{line}: {shown}: {error}")
            else:
                for pollster in pollsters:
                    if pollster.name in decisions:
                        origin = decisions[pollster.name].origin
                        problems.append(f"{where}: the name {pollster.name} is already used in {origin}")
                        continue
                    decisions[pollster.name] = Decision(
                        kind=CENTRAL, name=pollster.name, origin=str(path), state="pending", plugin=pollster
                    )
    return list(decisions.values()), problems


def _entries(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """Yield the definitions in the text of the file, each with the name of its table."""
    if path.suffix == ".toml":
        document = tomllib.loads(text)
        unknown = sorted(set(document) - set(MODELS))
        if unknown:
            raise ValueError(
                f"{', '.join(unknown)}: unknown; the file may have {' and '.join(f'[[{each}]]' for each in MODELS)}"
            )
        for table in MODELS:
            yield from ((table, entry) for entry in document.get(table, []))
        return
    document = yaml.safe_load(text)
    entries = document if isinstance(document, list) else [] if document is None else [document]
    yield from (("pollster", entry) for entry in entries)


def _lines(path: Path, text: str) -> Mapping[TomlPath, int]:
    """Return the lines of the definitions in a valid text, and of their keys, by table, position and key."""
    if path.suffix == ".toml":
        return toml_lines(text)
    root = yaml.compose(text, yaml.SafeLoader)
    lines: dict[TomlPath, int] = {}
    for number, node in enumerate(root.value if isinstance(root, yaml.SequenceNode) else [root] if root else []):
        lines["pollster", number] = node.start_mark.line + 1
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            lines["pollster", number, str(key.value)] = key.start_mark.line + 1
    return lines


def _place_of_fault(path: Path, text: str, error: Exception) -> str:
    """Return the file and, if the ``error`` tells it, the line that is no TOML or YAML."""
    line = yaml_fault_line(error) if isinstance(error, yaml.YAMLError) else None
    if isinstance(error, tomllib.TOMLDecodeError):
        line = toml_fault_line(text, error)
    return f"{path}:{line}" if line else str(path)


def _fault(error: Exception) -> str:
    """Return what is wrong with a file of which nothing is used."""
    if isinstance(error, tomllib.TOMLDecodeError):
        return "not TOML"
    return "not YAML" if isinstance(error, yaml.YAMLError) else "cannot be read"


def _pollsters(table: str, entry: Any, *, ceilometer: bool) -> Sequence[ICentralPollster]:
    if not isinstance(entry, Mapping):
        raise ValueError("should be a mapping")  # what stands there may be a secret
    if table == "exposition":
        return exposition_pollsters(ExpositionDefinition.model_validate(entry))
    return [RestPollster(RestDefinition.model_validate(from_ceilometer(entry) if ceilometer else entry))]


def _name(entry: Any) -> str:
    return str(entry.get("name") or entry.get("meter") or "unnamed") if isinstance(entry, Mapping) else "?"


def _keys(detail: Any, message: str, names: Mapping[str, str]) -> TomlPath:
    """Return where in the definition a problem is; of one of the whole, the text begins with the key."""
    first, *others = detail["loc"] or (message.partition(":")[0],)
    return names.get(str(first), first), *others


def _message(detail: Any, model: type[BaseModel], names: Mapping[str, str]) -> str:
    """Return what is wrong with a field, which the file calls as ``names`` says."""
    where = ".".join(
        counted_from_one([names.get(str(each), each) for each in detail["loc"][:1]] + [*detail["loc"][1:]])
    )
    message = plain(detail["msg"])
    if detail["type"] == "missing":
        message = "is missing"
    if detail["type"] == "extra_forbidden":
        known = MetricDefinition if len(detail["loc"]) > 1 and detail["loc"][0] == "meters" else model
        fields = sorted(known.model_fields, key=lambda name: name in RequestFields.model_fields)
        message = f"unknown field; known are {', '.join(fields)}"
    return f"{where}: {message}" if where else message
