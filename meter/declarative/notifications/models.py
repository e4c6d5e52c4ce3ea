"""Validates the tables of definitions with pydantic models, and makes :class:`Definition` records of them."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
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
from meter.declarative.notifications.deletion import Conditions
from meter.declarative.notifications.deletion import Deletion
from meter.declarative.notifications.metadata import Metadata
from meter.declarative.notifications.paths import BadPath
from meter.declarative.notifications.paths import path
from meter.declarative.notifications.patterns import BadPattern
from meter.declarative.notifications.patterns import Pattern
from meter.declarative.notifications.patterns import regular_expression
from meter.declarative.notifications.patterns import shell_pattern
from meter.declarative.notifications.values import Span
from meter.declarative.notifications.values import ValueSource
from meter.declarative.notifications.values import number
from meter.sample import SAMPLE_TYPES
from meter.sample import MeterDefinition
from meter.settings.plain_words import plain
from meter.settings.plain_words import toml_text

Text = Annotated[str, Field(min_length=1, max_length=512)]
OneOrMore = Text | Annotated[list[Text], Field(min_length=1)]
"""A path, which begins with ``$``, or a literal text; or several, of which the first path that finds a value is used."""


_PATHS = dict.fromkeys(
    ("resource", "project", "user", "timestamp", "requires", "each", "user_metadata"),
    "a path that begins with $, or several in a list",
)
WANTED = _PATHS | {
    "event_types": "an event type with * and ?, or several in a list",
    "except": "an event type with * and ?, or several in a list",
    "volume": "a number, a path that begins with $, several, or { from = …, to = … }",
    "metadata": "a table, or the name of a table under [metadata]",
    "deletion": "a table, or the name of a table under [deletion]",
    "conditions": "the name of a table under [conditions]",
    "unless": "a table of paths that begin with $, each with a text or several in a list",
}
"""What is allowed for keys that take several kinds of values, for error texts."""


class BadDefinition(ValueError):
    """An invalid definition; ``problems`` has a text for each error, with what is allowed."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Model(BaseModel):
    """Base of the models: unknown keys are errors, and values are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class SpanTable(Model):
    """The seconds between two times."""

    start: OneOrMore = Field(alias="from")
    end: OneOrMore = Field(alias="to")


class DeletionTable(Model):
    """How notifications report that a resource is deleted: ``[deletion.NAME]``, or ``deletion`` in a definition."""

    event_types: OneOrMore = []
    where: dict[Text, Text | list[Text]] = {}
    all_set: OneOrMore = []
    unless: dict[Text, Text | list[Text]] = {}
    at: OneOrMore = []
    latest: OneOrMore = []
    earliest: OneOrMore = []
    ids_reused: bool = False


class ConditionsTable(Model):
    """Of which notifications no samples are made: ``[conditions.NAME]``; the keys are those of a definition."""

    without: OneOrMore = Field(default=[], alias="except")
    unless: dict[Text, Text | list[Text]] = {}


class DefinitionTable(Model):
    """One ``[[meter]]`` of a file, or a converted entry of ``meters.yaml``."""

    name: Text
    names: list[Text] = []
    event_types: OneOrMore
    without: OneOrMore = Field(default=[], alias="except")
    type: Text = "gauge"
    unit: Text
    volume: int | float | OneOrMore | SpanTable = 1
    resource: OneOrMore
    project: OneOrMore | None = None
    user: OneOrMore | None = None
    timestamp: OneOrMore | None = None
    state_when_sent: bool = False
    optional: list[Literal["user", "project", "timestamp"]] = []
    requires: OneOrMore = []
    unless: dict[Text, Text | list[Text]] = {}
    conditions: Text | None = None
    each: OneOrMore | None = None
    lookup: list[str] = []
    metadata: str | dict[str, Any] = {}
    user_metadata: OneOrMore | None = None
    deletion: Text | DeletionTable | None = None
    ceilometer: bool = False


@dataclass(slots=True)
class ReadContext:
    """Collects the problems of a table; with ``ceilometer`` paths and patterns have the syntax of ``meters.yaml``."""

    ceilometer: bool = False
    problems: list[str] = field(default_factory=list)


def make_definition(
    table: Mapping[str, Any],
    shared: Mapping[str, Metadata],
    origin: str,
    deletions: Mapping[str, Deletion] = MappingProxyType({}),
    conditions: Mapping[str, ConditionsTable | None] = MappingProxyType({}),
) -> Definition:
    """Return the definition in ``table``; raises :class:`BadDefinition`.

    ``shared``, ``deletions`` and ``conditions`` are the tables under ``[metadata]``, ``[deletion]`` and ``[conditions]``, by name;
    of the last ones ``None`` has problems of its own.
    """
    try:
        model = DefinitionTable.model_validate(table)
    except ValidationError as error:
        raise BadDefinition(list(_problems(error))) from error
    context = ReadContext(model.ceilometer)
    common = _common_conditions(model, conditions, context)
    without = [*_listed(model.without), *_listed(common.without)]
    patterns = tuple(_patterns(model, without, context))
    fields: dict[str, ValueSource | Span] = {}
    for name in FIELDS:
        written = getattr(model, name)
        if isinstance(written, SpanTable):
            span = {end: _source(getattr(written, end), name, context) for end in ("start", "end")}
            fields[name] = Span(span["start"], span["end"])
        elif written is not None:
            fields[name] = _source(written, name, context)
    if isinstance(model.volume, int | float):
        try:
            number(model.volume, "volume")
        except ValueError as error:
            context.problems.append(str(error))
    requires = [_source(text, "requires", context) for text in _listed(model.requires)]
    if model.type not in SAMPLE_TYPES and "type" not in model.lookup and not model.type.startswith("$"):
        context.problems.append(f"type: should be {', '.join(SAMPLE_TYPES)} or a path, not {model.type!r}")
    if unknown := [name for name in model.lookup if name not in FIELDS]:
        context.problems.append(f"lookup: {', '.join(unknown)}: should be one of {', '.join(FIELDS)}")
    unless = _conditions(model.unless, "unless", context) + _conditions(common.unless, "unless", context)
    each = None if model.each is None else _source(model.each, "each", context)
    metadata = _metadata_of(model, shared, context)
    deletion = _deletion(model, deletions, context)
    if context.problems:
        raise BadDefinition(context.problems)
    return Definition(
        meters=_meters(model),
        patterns=patterns,
        fields=fields,
        metadata=metadata,
        origin=origin,
        requires=tuple(each for source in requires for each in source.paths),
        unless=unless,
        optional=frozenset(model.optional),
        each=each,
        lookup=frozenset(model.lookup),
        names=frozenset(model.names),
        deletion=deletion,
        state_when_sent=model.state_when_sent,
    )


def _deletion(model: DefinitionTable, deletions: Mapping[str, Deletion], context: ReadContext) -> Deletion | None:
    if model.deletion is not None and (model.type != "gauge" or model.lookup):
        context.problems.append("deletion: is only for gauges without lookup")
    if not isinstance(model.deletion, str):
        return None if model.deletion is None else read_deletion(model.deletion.model_dump(exclude_unset=True), context)
    if model.deletion not in deletions:
        known = ", ".join(deletions) or "none"
        context.problems.append(f"deletion: there is no [deletion.{model.deletion}] in this file, only: {known}")
    return deletions.get(model.deletion)


def read_deletion(table: Any, context: ReadContext) -> Deletion:
    """Return the :class:`Deletion` in the table ``[deletion.NAME]``."""
    try:
        model = DeletionTable.model_validate(table)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            message = "unknown key" if detail["type"] == "extra_forbidden" else plain(detail["msg"])
            context.problems.append(
                f"deletion.{'.'.join(map(str, detail['loc']))}: {message}; keys are {', '.join(DeletionTable.model_fields)}"
            )
        return Deletion()
    event_types = _listed(model.event_types)
    if any(character in event_type for event_type in event_types for character in "*?["):
        context.problems.append("deletion.event_types: should be event types without wildcards")
    if not (event_types or model.where or model.all_set):
        context.problems.append("deletion: should have event_types, where or all_set")

    def sources(name: str, texts: Any) -> tuple[ValueSource, ...]:
        return tuple(_source(written, f"deletion.{name}", context) for written in _listed(texts))

    return Deletion(
        event_types=frozenset(event_types),
        where=_conditions(model.where, "deletion.where", context),
        all_set=sources("all_set", model.all_set),
        unless=_conditions(model.unless, "deletion.unless", context),
        at=sources("at", model.at),
        latest=sources("latest", model.latest),
        earliest=sources("earliest", model.earliest),
        ids_reused=model.ids_reused,
    )


def read_conditions(table: Any, context: ReadContext) -> ConditionsTable | None:
    """Return the table ``[conditions.NAME]``, or ``None`` if it has problems: without it samples would be made that must not be."""
    if not isinstance(table, dict):
        context.problems.append(f"conditions: should be a table with except or unless, not {toml_text(table)}")
        return None
    try:
        model = ConditionsTable.model_validate(table)
    except ValidationError as error:
        context.problems += _problems(error, ConditionsTable)
        return None
    before = len(context.problems)
    if not (model.without or model.unless):
        context.problems.append("conditions: should have except or unless")
    for text in _listed(model.without):
        _expression(text, context)
    _conditions(model.unless, "unless", context)
    return model if len(context.problems) == before else None


def _common_conditions(
    model: DefinitionTable, conditions: Mapping[str, ConditionsTable | None], context: ReadContext
) -> ConditionsTable:
    if model.conditions is None:
        return ConditionsTable()
    if model.conditions not in conditions:
        known = ", ".join(conditions) or "none"
        context.problems.append(f"conditions: there is no [conditions.{model.conditions}] in this file, only: {known}")
    elif conditions[model.conditions] is None:
        context.problems.append(f"conditions: [conditions.{model.conditions}] is not valid")
    return conditions.get(model.conditions) or ConditionsTable()


def _conditions(table: Mapping[str, Any], name: str, context: ReadContext) -> Conditions:
    return tuple(
        (_source(written, name, context), frozenset(str(each).lower() for each in _listed(wanted)))
        for written, wanted in table.items()
    )


def _meters(model: DefinitionTable) -> tuple[MeterDefinition, ...]:
    """Return the meters that the definition can make, as far as known before a notification: ``storage.*``."""
    name, _, found = model.name.partition("$.")
    kind: Any = model.type if model.type in SAMPLE_TYPES else "gauge"
    unit = "*" if "$." in model.unit else model.unit
    names = model.names or [f"{name}*" if found or not name else name]
    return tuple(MeterDefinition(each, kind, unit) for each in names)


def _patterns(model: DefinitionTable, unwanted: Sequence[str], context: ReadContext) -> Iterator[Pattern]:
    without = "|".join(_expression(text, context) for text in unwanted)
    for text in _listed(model.event_types):
        try:
            pattern = regular_expression(text) if model.ceilometer else shell_pattern(text)
        except BadPattern as error:
            context.problems.append(f"event_types: {error}")
        else:
            yield Pattern(pattern.wanted, without, pattern.shell) if without else pattern


def _expression(text: str, context: ReadContext) -> str:
    try:
        return shell_pattern(text).wanted
    except BadPattern as error:
        context.problems.append(f"except: {error}")
        return ""


def _source(written: Any, name: str, context: ReadContext) -> ValueSource:
    texts = _listed(written)
    if not any(isinstance(text, str) and "$." in text for text in texts):
        if len(texts) > 1:
            context.problems.append(f"{name}: should be one text or paths that begin with $, not {texts!r:.80}")
        return ValueSource(literal=texts[0])
    paths = []
    prefix = ""
    for text in texts:
        if len(texts) == 1 and not text.startswith(("$", "(")):
            prefix, _, rest = text.partition("$.")
            text = f"$.{rest}"
        try:
            paths.append(path(text, context.ceilometer))
        except BadPath as error:
            context.problems.append(f"{name}: {error}")
    return ValueSource(tuple(paths), prefix=prefix)


def _metadata_of(model: DefinitionTable, shared: Mapping[str, Metadata], context: ReadContext) -> Metadata:
    if isinstance(model.metadata, str):
        if model.metadata not in shared:
            known = ", ".join(shared) or "none"
            context.problems.append(f"metadata: there is no [metadata.{model.metadata}] in this file, only: {known}")
            return Metadata({})
        if model.user_metadata is None:
            return shared[model.metadata]
        context.problems.append(f"user_metadata: should be in [metadata.{model.metadata}]")
    table = dict(model.metadata) if isinstance(model.metadata, dict) else {}
    if model.user_metadata is not None:
        table["user_metadata"] = model.user_metadata
    return read_metadata(table, context)


def read_metadata(table: Mapping[str, Any], context: ReadContext) -> Metadata:
    """Return the metadata in ``table``, with ``event_type`` and ``host`` added."""
    sources = {
        "event_type": ValueSource((path("$.event_type"),)),
        "host": ValueSource((path("$.host"),)),
        **_sources({name: written for name, written in table.items() if name != "user_metadata"}, "metadata", context),
    }
    user = table.get("user_metadata")
    return Metadata(sources, None if user is None else _source(user, "user_metadata", context))


def _sources(table: Mapping[str, Any], where: str, context: ReadContext) -> dict[str, ValueSource | Metadata]:
    sources: dict[str, ValueSource | Metadata] = {}
    for name, written in table.items():
        if isinstance(written, dict):
            sources[name] = Metadata(_sources(written, f"{where}.{name}", context))
        elif isinstance(written, str | int | float) or (isinstance(written, list) and written):
            sources[name] = _source(written, f"{where}.{name}", context)
        else:
            context.problems.append(
                f"{where}.{name}: should be a path, a text, a number or a table, not {toml_text(written)}"
            )
    return sources


def _listed(written: Any) -> list[Any]:
    return written if isinstance(written, list) else [written]


def _problems(error: ValidationError, table: type[Model] = DefinitionTable) -> Iterable[str]:
    """Yield a text for each key with an error: of the branches of a union only the first."""
    seen: set[str] = set()
    for detail in error.errors(include_url=False):
        name = str(detail["loc"][0]) if detail["loc"] else "definition"
        if name in seen:
            continue
        seen.add(name)
        if detail["type"] == "extra_forbidden":
            known = ", ".join(each.alias or key for key, each in table.model_fields.items() if key != "ceilometer")
            yield f"{name}: unknown key; should be one of {known}"
        elif detail["type"] == "missing" and len(detail["loc"]) == 1:
            yield f"{name}: is missing"
        elif name in WANTED:
            yield f"{name}: should be {WANTED[name]}, not {toml_text(detail['input'])}"
        else:
            yield f"{name}: {plain(detail['msg'])}, not {toml_text(detail['input'])}"
