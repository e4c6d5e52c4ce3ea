"""Fragments of SQL with their parameters, from which statements are composed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from string import Formatter
from typing import Any


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
