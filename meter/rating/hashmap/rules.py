"""The rules of HashMap as CloudKitty's API returns them, checked: a document with the answers about all services."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import replace
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Annotated
from typing import Any
from typing import Literal

from pydantic import AfterValidator
from pydantic import BaseModel
from pydantic import BeforeValidator
from pydantic import Field
from pydantic import ValidationError

from meter.positions import counted_from_one
from meter.rating.book.values import MAX_DECIMALS
from meter.settings.plain_words import plain

MAX_RULES = 100_000
MAX_MAGNITUDE = 60
"""Decimal places of a number before and after the point: ``1E+999999999`` is a short text, and takes gigabytes as an integer."""

JUST_MADE = timedelta(minutes=1)
"""A mapping without a start begins when it is made, by the clock of CloudKitty's host, and MySQL rounds that up to a whole second."""

Kind = Literal["flat", "rate"]


class BadRules(ValueError):
    """A document that is no answer of CloudKitty; the text says where and why."""


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or len(str(value)) > 60:
        raise ValueError("should be a number, or the text of one")
    try:
        number = Decimal(str(value))
    except ArithmeticError:
        raise ValueError("should be a number, or the text of one") from None
    if not number.is_finite():
        raise ValueError("should be a finite number")
    if number and abs(number.adjusted()) > MAX_MAGNITUDE:
        raise ValueError(f"should be from 1e-{MAX_MAGNITUDE} to 1e{MAX_MAGNITUDE}")
    return number or Decimal(0)


def _naive(value: datetime | None) -> datetime | None:
    """Return a time as CloudKitty keeps it: in UTC, without a time zone."""
    return value if value is None or value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)


Number = Annotated[Decimal, BeforeValidator(_decimal)]
Time = Annotated[datetime | None, AfterValidator(_naive)]
Id = Annotated[str, Field(min_length=1, max_length=255)]


class _Entry(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=255)]


class ServiceEntry(_Entry):
    """A service: a metric of CloudKitty, by its alternative name if it has one."""

    service_id: Id


class FieldEntry(_Entry):
    """A field of a service: a value of ``groupby`` or of the metadata of its metric."""

    field_id: Id
    service_id: Id


class GroupEntry(_Entry):
    """A group: what is in different ones is added."""

    group_id: Id


class _RuleEntry(BaseModel):
    type: Kind
    cost: Number
    service_id: Id | None = None
    field_id: Id | None = None
    group_id: Id | None = None
    tenant_id: Annotated[str | None, Field(max_length=255)] = None


class MappingEntry(_RuleEntry):
    """A mapping. It is valid from ``start`` on, before ``end``, in times without a zone."""

    mapping_id: Id
    value: Annotated[str | None, Field(max_length=255)] = None
    start: Time = None
    end: Time = None
    deleted: Time = None
    name: str | None = None


class ThresholdEntry(_RuleEntry):
    """A threshold."""

    threshold_id: Id
    level: Number


class RulesDocument(BaseModel):
    """The answers of ``/v1/rating/module_config/hashmap/`` to ``services``, ``fields``, ``groups``, ``mappings`` and ``thresholds``."""

    services: Annotated[list[ServiceEntry], Field(max_length=MAX_RULES)]
    fields: Annotated[list[FieldEntry], Field(max_length=MAX_RULES)] = []
    groups: Annotated[list[GroupEntry], Field(max_length=MAX_RULES)] = []
    mappings: Annotated[list[MappingEntry], Field(max_length=MAX_RULES)] = []
    thresholds: Annotated[list[ThresholdEntry], Field(max_length=MAX_RULES)] = []


@dataclass(frozen=True, slots=True)
class Rule:
    """A mapping, of a ``field`` with a ``value`` or, if both are ``""``, of the service; or a threshold from ``level`` on.

    ``tenant`` is ``""`` for a rule of all projects. ``cost_is_exact`` is false if ``cost`` was rounded to what a price may have.
    """

    kind: Kind
    cost: Decimal
    field: str = ""
    value: str = ""
    level: Decimal | None = None
    tenant: str = ""
    start: datetime | None = None
    end: datetime | None = None
    name: str = ""
    cost_is_exact: bool = True

    def active_at(self, time: datetime) -> bool:
        """Return whether the rule is valid at ``time``."""
        return (self.start is None or self.start <= time) and (self.end is None or time < self.end)

    def __str__(self) -> str:
        what = f"{self.field} = {self.value!r}" if self.value or self.field else "the service"
        if self.level is not None:
            what = f"{self.field or 'the quantity'} from {self.level.normalize():f} on"
        of = f", project {self.tenant!r}" if self.tenant else ""
        when = "".join(
            f", {word} {time:%F %T}" for word, time in (("from", self.start), ("until", self.end)) if time is not None
        )
        named = f", named {self.name!r}" if self.name else ""
        kind = "threshold" if self.level is not None else "mapping"
        return f"{kind} of {what}: {self.kind} {self.cost:f}{of}{when}{named}"


@dataclass(frozen=True, slots=True)
class RuleGroup:
    """All rules of a service in a group, ``""`` for those in none: they give one cost, to which those of other groups are added."""

    service: str
    group: str
    rules: tuple[Rule, ...]


def rule_groups(document: Any, at: datetime) -> list[RuleGroup]:
    """Return the rules in ``document`` that are valid at the time ``at`` (naive, as CloudKitty's) or later; raise :class:`BadRules`."""
    try:
        read = RulesDocument.model_validate(document)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(counted_from_one(detail["loc"])) or "the document"
        raise BadRules(
            f"{where}: {'is missing' if detail['type'] == 'missing' else _in_json(plain(detail['msg']))}"
        ) from None
    services = {each.service_id: each.name for each in read.services}
    fields = {each.field_id: each for each in read.fields}
    groups = {each.group_id: each.name for each in read.groups}
    found: dict[tuple[str, str], list[Rule]] = {}
    for where, entry, rule in _rules(read, at):
        field = fields.get(entry.field_id) if entry.field_id else None
        service = services.get(field.service_id if field else entry.service_id or "")
        group = groups.get(entry.group_id) if entry.group_id else ""
        if service is None or (entry.field_id and field is None) or group is None:
            raise BadRules(f"{where}: its service, field or group is not in the document")
        if isinstance(entry, MappingEntry) and (entry.deleted is not None or (rule.end is not None and rule.end <= at)):
            continue
        found.setdefault((service, group), []).append(_in_field(rule, field.name if field else ""))
    return [RuleGroup(service, group, tuple(rules)) for (service, group), rules in sorted(found.items())]


def _in_json(message: str) -> str:
    """Return ``message``, which has the words of TOML, with those of JSON."""
    return message.replace("a table", "an object")


def _rules(read: RulesDocument, at: datetime) -> Iterator[tuple[str, MappingEntry | ThresholdEntry, Rule]]:
    for number, mapping in enumerate(read.mappings, 1):
        cost, exact = _cost(mapping.cost)
        end = mapping.end
        if end is not None and (end.hour, end.minute, end.second) == (23, 59, 59):
            # CloudKitty makes this of a day. After the last day that there is, no other follows.
            end = None if end.date() == date.max else end.replace(microsecond=0) + timedelta(seconds=1)
        rule = Rule(
            mapping.type,
            cost,
            value=mapping.value or "",
            tenant=mapping.tenant_id or "",
            start=None if mapping.start is not None and _just_made(mapping.start, at) else mapping.start,
            end=end,
            name=mapping.name or "",
            cost_is_exact=exact,
        )
        yield f"mappings.{number}", mapping, rule
    for number, threshold in enumerate(read.thresholds, 1):
        cost, exact = _cost(threshold.cost)
        rule = Rule(threshold.type, cost, level=threshold.level, tenant=threshold.tenant_id or "", cost_is_exact=exact)
        yield f"thresholds.{number}", threshold, rule


def _just_made(start: datetime, at: datetime) -> bool:
    return at < start <= at + JUST_MADE and start.time() != datetime.min.time()


def _in_field(rule: Rule, field: str) -> Rule:
    return replace(rule, field=field)


def _cost(written: Decimal) -> tuple[Decimal, bool]:
    """Return the cost with as many decimals as a price may have, and whether that is what the operator meant.

    SQLite, and CloudKitty's client in older releases, keep costs as binary fractions: 0.06 comes back as 0.0599999999999999977795539507.
    """
    rounded = Decimal(round(Fraction(written) * 10**MAX_DECIMALS)).scaleb(-MAX_DECIMALS).normalize()
    tolerance = abs(written) * Decimal("2.3e-16")
    return rounded, abs(rounded - written) <= tolerance
