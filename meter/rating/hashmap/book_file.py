"""The file of a price book that costs what the rules of HashMap cost, with what it cannot have in comments."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from meter.counts import counted
from meter.rating.book.values import control_character
from meter.rating.exact import plain
from meter.rating.hashmap.effective_prices import EffectivePrice
from meter.rating.hashmap.effective_prices import NotCarried
from meter.rating.hashmap.effective_prices import effective_prices
from meter.rating.hashmap.effective_prices import values_of
from meter.rating.hashmap.metered_services import MeteredService
from meter.rating.hashmap.rules import RuleGroup

STARTED = {3600: "hour", 60: "minute"}
"""The period that was begun counts as a whole, as in CloudKitty, if it is one of these (s)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BookSettings:
    """What CloudKitty does not know: the name, currency, time zone and issuer of the book, and the period of CloudKitty (s)."""

    name: str
    currency: str
    timezone: str
    issuer: str = ""
    period_seconds: int = 3600


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A service and group whose rules the book does not have, and why."""

    service: str
    group: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return _inline(f"{described(self.service, self.group)} is left out: {'; '.join(self.reasons)}")


@dataclass(frozen=True, slots=True)
class BookFile:
    """The text of a file, and what it lacks. ``prices`` are numbers of prices by SKU."""

    text: str
    prices: Mapping[str, int]
    left_out: tuple[LeftOut, ...]


def described(service: str, group: str) -> str:
    """Return a service and group as text."""
    return f"service {shown(service)}" + (f", group {shown(group)}" if group else "")


def book_file(
    groups: Sequence[RuleGroup],
    services: Mapping[str, MeteredService],
    settings: BookSettings,
    *,
    source: str,
    at: datetime,
) -> BookFile:
    """Return the file for ``groups`` as they are valid from ``at`` on; ``source`` says where they are from."""
    lines = list(_head(settings, source, at))
    prices: dict[str, int] = {}
    left_out: list[LeftOut] = []
    for group in groups:
        try:
            service = services.get(group.service)
            if service is None:
                raise NotCarried(
                    [f"Meter does not know how {shown(group.service)} is measured: describe it in a file (--services)"]
                )
            found = effective_prices(group, service, at, settings.period_seconds)
            if (control := control_character("".join(_texts(group)))) is not None:
                raise NotCarried([f"a name or value of its rules has the control character U+{ord(control):04X}"])
        except NotCarried as error:
            left_out.append(LeftOut(group.service, group.group, error.reasons))
            lines += _left_out(group, error.reasons)
            continue
        sku = _sku_id(group, prices)
        prices[sku] = len(found)
        lines += _sku(sku, group, service, found, settings)
        for each in found:
            lines += _price(sku, each)
    return BookFile("\n".join(lines) + "\n", prices, tuple(left_out))


def _head(settings: BookSettings, source: str, at: datetime) -> Iterator[str]:
    yield f"# Made by meter-rate import-cloudkitty from {_inline(source)}: the rules of CloudKitty's HashMap as of {at:%F %T}."
    yield "# What the book cannot have, and what is measured in another way, stands in comments: search for LEFT OUT and DIFFERENT."
    yield "# CloudKitty charges nothing for what no flat rule covers; here it is listed as unpriced usage, and is not charged either."
    yield "# Quantities are in the units of CloudKitty's default metrics.yml: compare unit and factor with those of your own."
    yield "# Days are those of the book's time zone; CloudKitty's are in UTC. Taxes, accounts and discounts are not in HashMap."
    yield ""
    yield "[[book]]"
    yield f"name = {_text(settings.name)}"
    yield f"currency = {_text(settings.currency)}"
    yield f"timezone = {_text(settings.timezone)}"
    yield f"issuer = {_text(settings.issuer)}"


def _texts(group: RuleGroup) -> Iterator[str]:
    """Yield the texts of CloudKitty that stand in prices."""
    yield from (group.service, group.group)
    for rule in group.rules:
        yield from (rule.value, rule.tenant)


def _left_out(group: RuleGroup, reasons: Sequence[str]) -> Iterator[str]:
    yield ""
    yield f"# LEFT OUT: {_inline(described(group.service, group.group))}, with all of its rules, because"
    yield from (f"#   {_inline(reason)}" for reason in reasons)
    yield "# Its rules are:"
    yield from (f"#   {_inline(str(rule))}" for rule in group.rules)


def _sku(
    sku: str, group: RuleGroup, service: MeteredService, prices: Sequence[EffectivePrice], settings: BookSettings
) -> Iterator[str]:
    by = values_of(prices)
    started = STARTED.get(settings.period_seconds) if service.usage == "exists" else None
    yield ""
    count = len(group.rules)
    yield f"# {_inline(described(group.service, group.group))}, of {counted(count, 'rule')}"
    if group.group:
        yield "# What groups cost is added: each is a SKU of its own."
    if service.remark:
        yield f"# DIFFERENT: {_inline(service.remark)}."
    if service.usage == "exists" and started is None:
        yield (
            f"# DIFFERENT: CloudKitty counts each period of {settings.period_seconds} s that was begun as a whole, Meter its seconds."
        )
    yield "[[sku]]"
    yield f"id = {_text(sku)}"
    name = service.name or group.service
    yield f"name = {_text(f'{name} ({group.group})' if group.group else name)}"
    if service.service:
        yield f"service = {_text(service.service)}"
    yield f"category = {_text(service.category)}"
    yield f"usage = {_text(service.usage)}"
    for key, value in (("resource_kind", service.resource_kind), ("meter", service.meter), ("factor", service.factor)):
        if value:
            yield f"{key} = {_text(value)}"
    if service.times_size:
        yield "times_size = true"
    if service.states:
        yield f"states = [{', '.join(map(_text, service.states))}]"
    if started is not None:
        yield f"started = {_text(started)}"
    if by:
        yield f"by = [{', '.join(map(_text, by))}]"
    yield f"unit = {_text(service.unit)}"
    yield f"book = {_text(settings.name)}"


def _price(sku: str, price: EffectivePrice) -> Iterator[str]:
    yield ""
    yield "[[price]]"
    yield f"sku = {_text(sku)}"
    if price.match:
        inside = ", ".join(f"{_text(name)} = {_text(value)}" for name, value in price.match)
        yield f"match = {{{inside}}}"
    if price.project:
        yield f"project = {_text(price.project)}"
    yield f"price = {_text(str(plain(price.price)))}"
    if price.start is not None:
        yield f"from = {price.start.isoformat()}"
    if price.end is not None:
        yield f"until = {price.end.isoformat()}"


def _sku_id(group: RuleGroup, taken: Mapping[str, int]) -> str:
    """Return an id made of the names of service and group that no other SKU has."""
    parts = [re.sub(r"[^\w.-]+", "-", each).strip("-") for each in (group.service, group.group) if each]
    wanted = "-".join(part for part in parts if part)[:200] or "service"
    number = 1
    while (found := wanted if number == 1 else f"{wanted}-{number}") in taken:
        number += 1
    return found


def _text(value: str) -> str:
    """Return a TOML string."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _inline(text: str) -> str:
    """Return ``text`` for a comment or a terminal: whatever is not printable is escaped, so that nothing ends the comment."""
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in text)


def shown(name: str) -> str:
    """Return a name of CloudKitty's for people."""
    normal = unicodedata.normalize("NFC", name)
    return normal if normal.isprintable() and " " not in normal else repr(name)
