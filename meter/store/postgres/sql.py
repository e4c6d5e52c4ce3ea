"""Fragments of SQL with their parameters, from which statements are composed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter
from typing import Any

Parameters = Sequence[Any] | Mapping[str, Any] | None
"""The values of a statement: by position, by name, or none."""


@dataclass(frozen=True, slots=True)
class Sql:
    """A fragment of SQL and its parameters, in order."""

    text: str
    parameters: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return self.text


def filled(template: str, **parts: Sql | str | int) -> Sql:
    """Return ``template`` with ``parts`` in place of their names in braces, and their parameters in the resulting order."""
    texts: list[str] = []
    parameters: list[Any] = []
    for literal, name, _, _ in Formatter().parse(template):
        texts.append(literal)
        if name is not None:
            part = parts[name]
            texts.append(str(part))
            parameters.extend(part.parameters if isinstance(part, Sql) else ())
    return Sql("".join(texts), tuple(parameters))


def listing(expressions: Iterable[Sql]) -> Sql:
    """Return ``expressions`` as a list with commas in between."""
    given = list(expressions)
    return Sql(", ".join(map(str, given)), tuple(value for expression in given for value in expression.parameters))


def following(expressions: Iterable[Sql]) -> Sql:
    """Return ``expressions`` as the continuation of a list: each with a comma before it."""
    given = [Sql(f", {expression}", expression.parameters) for expression in expressions]
    return Sql("".join(map(str, given)), tuple(value for expression in given for value in expression.parameters))


def both(conditions: Iterable[Sql]) -> Sql:
    """Return the conjunction of ``conditions``; true if there are none."""
    return _joined(" AND ", conditions, "true")


def either(conditions: Iterable[Sql]) -> Sql:
    """Return the disjunction of ``conditions``; false if there are none."""
    return _joined(" OR ", conditions, "false")


def negated(condition: Sql) -> Sql:
    """Return the negation of ``condition``, which must never be null."""
    return Sql(f"NOT ({condition})", condition.parameters)


def _joined(word: str, conditions: Iterable[Sql], of_none: str) -> Sql:
    given = list(conditions)
    text = word.join(f"({condition})" for condition in given) or of_none
    return Sql(text, tuple(value for condition in given for value in condition.parameters))


# A comment of SQL: the text is a statement for one server as it is.
_ALTERNATIVE = "/*one server:*/{one_server}/*spread: {spread} */"
_ALTERNATIVES = re.compile(r"/\*one server:\*/(.*?)/\*spread: (.*?) \*/", re.DOTALL)
_PLACEHOLDERS = re.compile(r"%[%s]")


def alternative(one_server: Sql | str, spread: Sql | str) -> Sql:
    """Return SQL that is ``one_server`` in a store on one server, and ``spread`` in one that is spread over several.

    Both variants travel with the statement; :func:`chosen` takes the one of the store. Alternatives cannot contain others.
    """
    if any(_ALTERNATIVES.search(str(each)) or "*/" in str(each) for each in (one_server, spread)):
        raise ValueError("an alternative within another one")
    return filled(_ALTERNATIVE, one_server=one_server, spread=spread)


def combined(one_server: Sql, spread: Sql) -> Sql:
    """Return SQL that is ``one_server`` in a store on one server and ``spread`` in another, each of which may have alternatives."""
    return alternative(variant(one_server, spread=False), variant(spread, spread=True))


def chosen(statement: str, parameters: Parameters, *, spread: bool) -> tuple[str, Parameters]:
    """Return the variant of ``statement`` for a store that is ``spread`` or not, and the parameters that this one has."""
    if "/*spread: " not in statement:
        return statement, parameters
    text, kept = _variant(statement, spread)
    if parameters is None or isinstance(parameters, Mapping):
        return text, parameters
    return text, [parameters[n] for n in kept]


def variant(sql: Sql, *, spread: bool) -> Sql:
    """Return ``sql`` as it is for one kind of store, without alternatives."""
    text, parameters = chosen(sql.text, sql.parameters, spread=spread)
    return Sql(text, tuple(parameters or ()))


@lru_cache(maxsize=512)
def _variant(statement: str, spread: bool) -> tuple[str, tuple[int, ...]]:
    """Return the text of a variant, and which positional parameters it has."""
    texts: list[str] = []
    kept: list[int] = []
    position = 0

    def add(text: str, *, is_chosen: bool) -> None:
        nonlocal position
        count = _PLACEHOLDERS.findall(text).count("%s")
        if is_chosen:
            texts.append(text)
            kept.extend(range(position, position + count))
        position += count

    end = 0
    for found in _ALTERNATIVES.finditer(statement):
        add(statement[end : found.start()], is_chosen=True)
        add(found[1], is_chosen=not spread)
        add(found[2], is_chosen=spread)
        end = found.end()
    add(statement[end:], is_chosen=True)
    return "".join(texts), tuple(kept)
