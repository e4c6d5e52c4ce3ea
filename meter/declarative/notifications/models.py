"""What may be written in a definition, as typed models, and how a written definition becomes one that works."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from types import MappingProxyType
from typing import Annotated
from typing import Any
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import ValidationError

from meter.declarative.notifications.definition import FIELDS
from meter.declarative.notifications.definition import Definition
from meter.declarative.notifications.definition import Metadata
from meter.declarative.notifications.paths import BadPath
from meter.declarative.notifications.paths import path
from meter.declarative.notifications.patterns import BadPattern
from meter.declarative.notifications.patterns import Pattern
from meter.declarative.notifications.patterns import regular_expression
from meter.declarative.notifications.patterns import shell_pattern
from meter.declarative.notifications.resource_end import Ended
from meter.declarative.notifications.values import Source
from meter.declarative.notifications.values import Span
from meter.sample import SAMPLE_TYPES
from meter.sample import MeterDefinition

Text = Annotated[str, Field(min_length=1, max_length=512)]
Place = Text | Annotated[list[Text], Field(min_length=1)]
"""A path, which begins with ``$``; a literal text; or several, of which the first that is there counts."""


_PLACES = dict.fromkeys(
    ("resource", "project", "user", "timestamp", "requires", "each", "user_metadata"),
    "a path that begins with $, or several in a list",
)
WANTED = _PLACES | {
    "event_types": "an event type with * and ?, or several in a list",
    "except": "an event type with * and ?, or several in a list",
    "volume": "a number, a path that begins with $, several, or { from = …, to = … }",
    "metadata": "a table, or the name of one under [metadata]",
    "ended": "a table, or the name of one under [ended]",
}
"""What would be right where more than one kind of value is."""


class BadDefinition(ValueError):
    """A definition that cannot work; ``problems`` has a clause for each thing that is wrong, and what would be right."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Model(BaseModel):
    """Unknown keys are mistakes, and ``"1"`` is not ``1``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class SpanTable(Model):
    """Seconds between two times."""

    start: Place = Field(alias="from")
    end: Place = Field(alias="to")


class EndedTable(Model):
    """How notifications say that a resource no longer exists, as ``[ended.NAME]`` or in a definition."""

    event_types: Place = []
    where: dict[Text, Text | list[Text]] = {}
    known: Place = []
    unless: dict[Text, Text | list[Text]] = {}
    at: Place = []
    latest: Place = []
    earliest: Place = []


class DefinitionTable(Model):
    """One ``[[meter]]`` of a file, or one of ``meters.yaml`` told as such."""

    name: Text
    names: list[Text] = []
    event_types: Place
    without: Place = Field(default=[], alias="except")
    type: Text = "gauge"
    unit: Text
    volume: int | float | Place | SpanTable = 1
    resource: Place
    project: Place | None = None
    user: Place | None = None
    timestamp: Place | None = None
    optional: list[Literal["user", "project", "timestamp"]] = []
    requires: Place = []
    each: Place | None = None
    lookup: list[str] = []
    metadata: str | dict[str, Any] = {}
    user_metadata: Place | None = None
    ended: Text | EndedTable | None = None
    ceilometer: bool = False


@dataclass(slots=True)
class Reading:
    """What is found wrong while a definition is read; ``ceilometer``: its paths and patterns are those of ``meters.yaml``."""

    ceilometer: bool = False
    problems: list[str] = field(default_factory=list)


def definition(
    table: Mapping[str, Any],
    shared: Mapping[str, Metadata],
    origin: str,
    ends: Mapping[str, Ended] = MappingProxyType({}),
) -> Definition:
    """Return the definition that ``table`` describes; raises :class:`BadDefinition`.

    ``shared`` has metadata and ``ends`` what ends a resource, by name.
    """
    try:
        model = DefinitionTable.model_validate(table)
    except ValidationError as error:
        raise BadDefinition(list(_problems(error))) from error
    reading = Reading(model.ceilometer)
    patterns = tuple(_patterns(model, reading))
    fields: dict[str, Source | Span] = {}
    for name in FIELDS:
        written = getattr(model, name)
        if isinstance(written, SpanTable):
            span = {end: _source(getattr(written, end), name, reading) for end in ("start", "end")}
            fields[name] = Span(span["start"], span["end"])
        elif written is not None:
            fields[name] = _source(written, name, reading)
    requires = [_source(text, "requires", reading) for text in _listed(model.requires)]
    if model.type not in SAMPLE_TYPES and "type" not in model.lookup and not model.type.startswith("$"):
        reading.problems.append(f"type: should be {', '.join(SAMPLE_TYPES)} or a path, not {model.type!r}")
    if unknown := [name for name in model.lookup if name not in FIELDS]:
        reading.problems.append(f"lookup: {', '.join(unknown)}: should be of {', '.join(FIELDS)}")
    each = None if model.each is None else _source(model.each, "each", reading)
    metadata = _described(model, shared, reading)
    ended = _ended(model, ends, reading)
    if reading.problems:
        raise BadDefinition(reading.problems)
    return Definition(
        meters=_promised(model),
        patterns=patterns,
        fields=fields,
        metadata=metadata,
        origin=origin,
        requires=tuple(each for source in requires for each in source.paths),
        optional=frozenset(model.optional),
        each=each,
        lookup=frozenset(model.lookup),
        names=frozenset(model.names),
        ended=ended,
    )


def _ended(model: DefinitionTable, ends: Mapping[str, Ended], reading: Reading) -> Ended | None:
    if model.ended is not None and (model.type != "gauge" or model.lookup):
        reading.problems.append("ended: is for a gauge without lookup: of other types nothing lasts")
    if not isinstance(model.ended, str):
        return None if model.ended is None else end_of(model.ended.model_dump(), reading)
    if model.ended not in ends:
        known = ", ".join(ends) or "none"
        reading.problems.append(f"ended: there is no [ended.{model.ended}] in this file; there are: {known}")
    return ends.get(model.ended)


def end_of(table: Any, reading: Reading) -> Ended:
    """Return what the table ``[ended.NAME]`` describes."""
    try:
        model = EndedTable.model_validate(table)
    except ValidationError as error:
        reading.problems += [
            f"ended.{'.'.join(map(str, detail['loc']))}: {detail['msg']}; known are {', '.join(EndedTable.model_fields)}"
            for detail in error.errors(include_url=False)
        ]
        return Ended()
    event_types = _listed(model.event_types)
    if any(character in event_type for event_type in event_types for character in "*?["):
        reading.problems.append("ended.event_types: should be whole event types, without * and ?")
    if not (event_types or model.where or model.known):
        reading.problems.append("ended: should have event_types, where or known")

    def texts(name: str, table: Mapping[str, Any]) -> tuple[tuple[Source, frozenset[str]], ...]:
        return tuple(
            (_source(place, f"ended.{name}", reading), frozenset(str(each).lower() for each in _listed(wanted)))
            for place, wanted in table.items()
        )

    def sources(name: str, places: Any) -> tuple[Source, ...]:
        return tuple(_source(place, f"ended.{name}", reading) for place in _listed(places))

    return Ended(
        event_types=frozenset(event_types),
        where=texts("where", model.where),
        known=sources("known", model.known),
        unless=texts("unless", model.unless),
        at=sources("at", model.at),
        latest=sources("latest", model.latest),
        earliest=sources("earliest", model.earliest),
    )


def _promised(model: DefinitionTable) -> tuple[MeterDefinition, ...]:
    """Return what can be known of the meters before they are heard: ``storage.$.each.name`` is ``storage.*``."""
    name, _, found = model.name.partition("$.")
    kind: Any = model.type if model.type in SAMPLE_TYPES else "gauge"
    unit = "*" if "$." in model.unit else model.unit
    names = model.names or [f"{name}*" if found or not name else name]
    return tuple(MeterDefinition(each, kind, unit) for each in names)


def _patterns(model: DefinitionTable, reading: Reading) -> Iterator[Pattern]:
    without = "|".join(_expression(text, reading) for text in _listed(model.without))
    for text in _listed(model.event_types):
        try:
            pattern = regular_expression(text) if model.ceilometer else shell_pattern(text)
        except BadPattern as error:
            reading.problems.append(f"event_types: {error}")
        else:
            yield Pattern(pattern.wanted, without, pattern.shell) if without else pattern


def _expression(text: str, reading: Reading) -> str:
    try:
        return shell_pattern(text).wanted
    except BadPattern as error:
        reading.problems.append(f"except: {error}")
        return ""


def _source(written: Any, name: str, reading: Reading) -> Source:
    texts = _listed(written)
    if not any(isinstance(text, str) and "$." in text for text in texts):
        if len(texts) > 1:
            reading.problems.append(f"{name}: should be one text or paths that begin with $, not {texts!r:.80}")
        return Source(literal=texts[0])
    paths = []
    prefix = ""
    for text in texts:
        if len(texts) == 1 and not text.startswith(("$", "(")):
            prefix, _, rest = text.partition("$.")
            text = f"$.{rest}"
        try:
            paths.append(path(text, reading.ceilometer))
        except BadPath as error:
            reading.problems.append(f"{name}: {error}")
    return Source(tuple(paths), prefix=prefix)


def _described(model: DefinitionTable, shared: Mapping[str, Metadata], reading: Reading) -> Metadata:
    if isinstance(model.metadata, str):
        if model.metadata not in shared:
            known = ", ".join(shared) or "none"
            reading.problems.append(
                f"metadata: there is no [metadata.{model.metadata}] in this file; there are: {known}"
            )
            return Metadata({})
        if model.user_metadata is None:
            return shared[model.metadata]
        reading.problems.append(f"user_metadata: should stand in [metadata.{model.metadata}]")
    table = dict(model.metadata) if isinstance(model.metadata, dict) else {}
    if model.user_metadata is not None:
        table["user_metadata"] = model.user_metadata
    return described(table, reading)


def described(table: Mapping[str, Any], reading: Reading) -> Metadata:
    """Return the metadata that ``table`` describes, with where a notification is from."""
    sources = {
        "event_type": Source((path("$.event_type"),)),
        "host": Source((path("$.host"),)),
        **_sources({name: place for name, place in table.items() if name != "user_metadata"}, "metadata", reading),
    }
    user = table.get("user_metadata")
    return Metadata(sources, None if user is None else _source(user, "user_metadata", reading))


def _sources(table: Mapping[str, Any], where: str, reading: Reading) -> dict[str, Source | Metadata]:
    sources: dict[str, Source | Metadata] = {}
    for name, place in table.items():
        if isinstance(place, dict):
            sources[name] = Metadata(_sources(place, f"{where}.{name}", reading))
        elif isinstance(place, str | int | float) or (isinstance(place, list) and place):
            sources[name] = _source(place, f"{where}.{name}", reading)
        else:
            reading.problems.append(f"{where}.{name}: should be a path, a text, a number or a table, not {place!r:.60}")
    return sources


def _listed(written: Any) -> list[Any]:
    return written if isinstance(written, list) else [written]


def _problems(error: ValidationError) -> Iterable[str]:
    """Say in a clause what pydantic found; of a union's branches the first that matters."""
    seen: set[str] = set()
    for detail in error.errors(include_url=False):
        name = str(detail["loc"][0]) if detail["loc"] else "definition"
        if name in seen:
            continue
        seen.add(name)
        if detail["type"] == "extra_forbidden":
            known = ", ".join(
                each.alias or key for key, each in DefinitionTable.model_fields.items() if key != "ceilometer"
            )
            yield f"{name}: there is no such key; known are {known}"
        elif detail["type"] == "missing" and len(detail["loc"]) == 1:
            yield f"{name}: is missing"
        elif name in WANTED:
            yield f"{name}: should be {WANTED[name]}, not {detail['input']!r:.60}"
        else:
            yield f"{name}: {detail['msg'][:1].lower()}{detail['msg'][1:]}, not {detail['input']!r:.60}"
