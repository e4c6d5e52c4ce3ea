"""The text of a price book, as it is stored with statements: all by which they were rated, and nothing else.

The text is JSON in its canonical form (RFC 8785). It does not depend on the names and the order of files, on comments or on
how a number was written. It has all accounts, as those of other books say which projects are not accounts of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo
from zoneinfo import ZoneInfoNotFoundError

import msgspec
import rfc8785

from meter.rating.book.price_book import Account
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory

FORMAT = "meter-price-book-1"

_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode

_LISTS = ("prices", "fixed_charges", "discounts", "minimums", "credits", "taxes")


def with_text(book: PriceBook, accounts: Iterable[Account]) -> PriceBook:
    """Return ``book`` in its canonical order, with its text and the hash of it."""
    changes: dict[str, Any] = {name: tuple(sorted(getattr(book, name), key=_order)) for name in _LISTS}
    ordered = replace(book, skus={id: book.skus[id] for id in sorted(book.skus)}, **changes)
    content = _plain(ordered)
    del content["text"], content["sha256"]
    for name in _LISTS:
        for each in content[name]:
            del each["place"]
    document = {
        "format": FORMAT,
        "book": content,
        "accounts": [_plain(canonical_account(each)) for each in sorted(accounts, key=lambda account: account.id)],
    }
    text = canonical_json(document)
    return replace(ordered, text=text, sha256=hashlib.sha256(text.encode()).hexdigest())


def canonical_json(value: Any, levels: int = 4) -> str:
    """Return ``value``, which has no floats, as :func:`rfc8785.dumps` does, in a fifth of its time for a large book.

    The outer ``levels`` are written one element at a time, so that no single call holds other threads up.
    """
    if levels and isinstance(value, list):
        return f"[{','.join(canonical_json(each, levels - 1) for each in value)}]"
    if levels and isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return f"{{{','.join(f'{_encode(name)}:{canonical_json(value[name], levels - 1)}' for name in names)}}}"
    text = _encode(value)
    # RFC 8785 sorts by UTF-16, which differs from the order of code points for what is beyond the surrogates.
    return text if text.isascii() or max(text) < "\ud800" else rfc8785.dumps(value).decode()


def canonical_account(account: Account) -> Account:
    """Return ``account`` with its members in their canonical order."""

    def ordered(kind: str) -> Any:
        return tuple(sorted(getattr(account, kind), key=lambda each: (each.id, str(each.validity.since or ""))))

    return replace(account, projects=ordered("projects"), domains=ordered("domains"))


def directory_from_text(text: str) -> PriceDirectory:
    """Return the book whose ``text`` was stored, with all accounts of its time; other books and budgets are not in it.

    The book of an account that had another one is not in the directory either.

    :raises ValueError: it is not the text of a price book.
    """
    try:
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        content = document["book"] | {"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
        book = msgspec.convert(content, PriceBook, dec_hook=_read)
        accounts = msgspec.convert(document["accounts"], tuple[Account, ...], dec_hook=_read)
    except (ValueError, KeyError, TypeError, RecursionError, msgspec.MsgspecError) as fault:
        raise ValueError(f"this is not the text of a price book: {fault}") from fault
    return PriceDirectory(books={book.name: book}, accounts={each.id: each for each in accounts})


def _order(record: Any) -> tuple[str, ...]:
    """Return what records of one kind are sorted by: their ids, and, of taxes, their categories and days."""
    since = str(record.validity.since or "")
    return (record.category, since) if not hasattr(record, "id") else (record.id, since)


def _plain(record: Any) -> Any:
    return msgspec.to_builtins(record, enc_hook=_written, builtin_types=())


def _written(value: Any) -> Any:
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, ZoneInfo):
        return value.key
    raise NotImplementedError(f"{type(value).__name__} in a price book")


def _read(kind: type, value: Any) -> Any:
    if kind is Fraction:
        return Fraction(value)
    if kind is ZoneInfo:
        try:
            return ZoneInfo(value)
        except ZoneInfoNotFoundError as fault:
            raise ValueError(str(fault)) from fault
    raise NotImplementedError(f"{kind.__name__} in a price book")
