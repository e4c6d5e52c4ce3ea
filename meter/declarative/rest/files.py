"""Loads a directory of definitions; each becomes a pollster that is listed, configured and disabled like any other."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from meter.declarative.rest.definition import RestDefinition
from meter.declarative.rest.definition import from_ceilometer
from meter.declarative.rest.pollster import RestPollster
from meter.plugins.registry import CENTRAL
from meter.plugins.registry import Decision

SUFFIXES = (".toml", ".yaml", ".yml")


def load_user_pollsters(directory: str) -> tuple[list[Decision], list[str]]:
    """Return a pending decision per valid definition in ``directory``, and a message per invalid one.

    ``""`` and a directory that does not exist have none.
    """
    decisions: dict[str, Decision] = {}
    problems: list[str] = []
    try:
        paths = sorted(path for path in Path(directory).iterdir() if path.suffix in SUFFIXES) if directory else []
    except FileNotFoundError:
        paths = []
    except OSError as error:
        return [], [f"{directory}: cannot be read: {error}"]
    for path in paths:
        try:
            entries = list(_entries(path))
        except (OSError, ValueError, yaml.YAMLError) as error:
            problems.append(f"{path}: cannot be read: {error}")
            continue
        for number, entry in enumerate(entries, 1):
            where = f"{path}: pollster {number} ({_name(entry)})"
            try:
                definition = _definition(entry, ceilometer=path.suffix != ".toml")
            except ValidationError as error:
                problems += [f"{where}: {_message(detail)}" for detail in error.errors(include_url=False)]
            except (ValueError, TypeError) as error:
                problems.append(f"{where}: {error}")
            else:
                pollster = RestPollster(definition)
                if pollster.name in decisions:
                    problems.append(f"{where}: the name is already used in {decisions[pollster.name].origin}")
                else:
                    decisions[pollster.name] = Decision(
                        kind=CENTRAL, name=pollster.name, origin=str(path), state="pending", plugin=pollster
                    )
    return list(decisions.values()), problems


def _entries(path: Path) -> Iterator[Any]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        document = tomllib.loads(text)
        unknown = sorted(set(document) - {"pollster"})
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: unknown; the file may have [[pollster]] only")
        yield from document.get("pollster", [])
        return
    document = yaml.safe_load(text)
    yield from document if isinstance(document, list) else [] if document is None else [document]


def _definition(entry: Any, *, ceilometer: bool) -> RestDefinition:
    if not isinstance(entry, Mapping):
        raise ValueError(f"should be a mapping, not {entry!r:.80}")
    return RestDefinition.model_validate(from_ceilometer(entry) if ceilometer else entry)


def _name(entry: Any) -> str:
    return str(entry.get("name") or entry.get("meter") or "unnamed") if isinstance(entry, Mapping) else "?"


def _message(detail: Any) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        message = f"unknown field; known are {', '.join(RestDefinition.model_fields)}"
    return f"{where}: {message}" if where else message
