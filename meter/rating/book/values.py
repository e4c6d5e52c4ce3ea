"""Values in the files of the price directory: decimals, fractions, days, ids and texts, each checked as it is read."""

from __future__ import annotations

import re
import unicodedata
from datetime import date
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Annotated
from typing import Any

from pydantic import AfterValidator
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from meter.rating.exact import plain

MAX_CHARACTERS = 255
"""Maximum length of ids and names."""

MAX_TEXT_CHARACTERS = 4000
"""Maximum length of a billing address."""

MAX_INTEGER_DIGITS = 15
MAX_DECIMALS = 12
"""Limits of amounts, prices and quantities: with them every product of a month is exact."""

FIRST_YEAR, LAST_YEAR = 1970, 9998

_DECIMAL = re.compile(r"(-?)(\d+)(?:\.(\d+))?", re.ASCII)
_FRACTION = re.compile(r"(\d{1,30})\s*/\s*(\d{1,30})", re.ASCII)
_BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Characters of other categories than Cf that are shown as nothing, or as a blank: joiners and selectors, fillers, empty Braille.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)


class FloatText(str):
    """A TOML float, as it was written: it is read as a text so that nothing is lost, and refused with what to write instead."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def wrong(text: str) -> PydanticCustomError:
    """Return an error whose text is told as it is, after the name of the key."""
    return PydanticCustomError("price_book", text.replace("{", "{{").replace("}", "}}"))


def shown(value: Any) -> str:
    """Return a value of a TOML file as a short text for a message."""
    text = repr(value) if isinstance(value, str) else str(value)
    text = text.lower() if isinstance(value, bool) else text
    return text if len(text) <= 60 else f"{text[:57]}..."


def exact_decimal(value: Any) -> Decimal:
    """Return the decimal that a text or a TOML integer states."""
    if isinstance(value, FloatText):
        raise wrong(f'must be written as a text, so that it stays exact: "{value}"')
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise wrong(f'must be a decimal such as "0.0125", not {shown(value)}')
    match = _DECIMAL.fullmatch(str(value))
    if match is None:
        comma = _DECIMAL.fullmatch(str(value).replace(",", "."))
        hint = f'; did you mean "{comma[0]}"?' if comma else ""
        raise wrong(f'must be a decimal such as "0.0125", not {shown(value)}{hint}')
    digits, decimals = match[2].lstrip("0"), (match[3] or "").rstrip("0")
    if len(digits) > MAX_INTEGER_DIGITS or len(decimals) > MAX_DECIMALS:
        raise wrong(
            f"may have {MAX_INTEGER_DIGITS} digits before and {MAX_DECIMALS} after the point; {shown(value)} has more"
        )
    return plain(Decimal(match[0]))


def _not_negative(value: Decimal) -> Decimal:
    if value < 0:
        raise wrong(f"must not be negative; it is {value}")
    return value


def not_negative_decimal(text: str) -> Decimal:
    """Return the decimal of a command line; ``ValueError``, with what would be right, if it is none or negative."""
    return _not_negative(exact_decimal(text))


def _positive(value: Decimal) -> Decimal:
    if value <= 0:
        raise wrong(f"must be above 0; it is {value}")
    return value


def _at_most_100(value: Decimal) -> Decimal:
    if value > 100:
        raise wrong(f"must be at most 100; it is {value}")
    return value


def _fraction(value: Any) -> Fraction:
    if isinstance(value, str) and not isinstance(value, FloatText) and (match := _FRACTION.fullmatch(value.strip())):
        if not int(match[2]):
            raise wrong(f"the denominator of {shown(value)} must not be 0")
        fraction = Fraction(int(match[1]), int(match[2]))
    else:
        try:
            fraction = Fraction(exact_decimal(value))
        except PydanticCustomError as fault:
            example = 'must be a fraction such as "1/1073741824", a decimal text or a whole number'
            raise wrong(
                fault.message() if isinstance(value, FloatText) else f"{example}, not {shown(value)}"
            ) from fault
    if fraction <= 0:
        raise wrong(f"must be above 0; it is {shown(value)}")
    return fraction


def _day(value: Any) -> date:
    if isinstance(value, datetime) or not isinstance(value, date):
        quoted = isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value)
        hint = f"; remove the quotes: {value}" if quoted else ""
        raise wrong(f"must be a day such as 2026-01-01, without quotes and time, not {shown(value)}{hint}")
    if not FIRST_YEAR <= value.year <= LAST_YEAR:
        raise wrong(f"must be a day of the years {FIRST_YEAR} to {LAST_YEAR}, not {value}")
    return value


def _text(value: Any, *, most: int, lines: bool = False) -> str:
    if not isinstance(value, str) or isinstance(value, FloatText):
        raise wrong(f"must be a text in quotes, not {shown(value)}")
    if len(value) > most:
        raise wrong(f"may have {most} characters; it has {len(value)}")
    if (control := control_character(value, "\n\t" if lines else "")) is not None:
        raise wrong(f"must not contain the control character U+{ord(control):04X}")
    return value


def control_character(text: str, allowed: str = "") -> str | None:
    """Return the first character that no text of a price book may have, but for those in ``allowed``; ``None`` if there is none."""
    for each in text:
        if (unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") or each in _BIDIRECTIONAL) and each not in allowed:
            return each
    return None


def _name(value: Any) -> str:
    return unicodedata.normalize("NFC", _text(value, most=MAX_CHARACTERS))


def _foreign_id(value: Any) -> str:
    text = _text(value, most=MAX_CHARACTERS)
    if not text:
        raise wrong("must not be empty")
    if text != text.strip():
        raise wrong(f"must not begin or end with a blank: {shown(value)}")
    return _visible(text)


def _visible(text: str) -> str:
    """Return ``text``, if it can be told from another one that looks the same: one with an invisible character would be billed wrongly."""
    for each in text:
        if unicodedata.category(each) == "Cf" or _INVISIBLE.match(each):
            raise wrong(f"must not contain the invisible character U+{ord(each):04X}: {shown(text)}")
        if unicodedata.category(each) == "Zs" and each != " ":
            raise wrong(f"must have plain blanks, not the character U+{ord(each):04X}: {shown(text)}")
    return text


def _matched(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _visible(_text(value, most=MAX_CHARACTERS))


ExactDecimal = Annotated[Decimal, BeforeValidator(exact_decimal)]
Amount = Annotated[Decimal, BeforeValidator(exact_decimal), AfterValidator(_not_negative)]
PositiveDecimal = Annotated[Decimal, BeforeValidator(exact_decimal), AfterValidator(_positive)]
Percent = Annotated[PositiveDecimal, AfterValidator(_at_most_100)]
TaxPercent = Annotated[Amount, AfterValidator(_at_most_100)]
Factor = Annotated[Fraction, BeforeValidator(_fraction)]
Day = Annotated[date, BeforeValidator(_day)]
Name = Annotated[str, BeforeValidator(_name)]
"""A text for people, in normal form C. It may have invisible characters, which some languages need; nothing is found by it."""
LongText = Annotated[str, BeforeValidator(lambda value: _text(value, most=MAX_TEXT_CHARACTERS, lines=True))]
OwnId = Annotated[str, BeforeValidator(_foreign_id), AfterValidator(lambda value: unicodedata.normalize("NFC", value))]
"""An id of the price directory itself, in normal form C and without invisible characters: two that look the same are the same."""
ForeignId = Annotated[str, BeforeValidator(_foreign_id)]
"""An id of a project, domain or resource, or a key of metadata: as the store has it, without invisible characters."""
MatchedValue = Annotated[str, BeforeValidator(_matched)]
"""A value of metadata; whole numbers are texts there."""
