"""Expressions: a path into a response, then operations on the value there, as in ``size | value / 1024``.

Ceilometer runs such operations as unrestricted Python code. Here they are evaluated from their syntax tree, and only
what is listed below is allowed: no names but those of the values, no loops, no attributes but a few methods of texts and
mappings.

``lambda`` is allowed, together with ``filter``, because Ceilometer's documentation uses it to find the next page of a
response, and users have copied that::

    next_sample_url_attribute: "links | filter(lambda v: v.get('rel') == 'next', value) | list(value) | value[0] | value.get('href')"
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs,
    "filter": lambda keep, values: [each for each in values if keep(each)],
    "float": float,
    "int": int,
    "len": len,
    "list": list,
    "max": max,
    "min": min,
    "round": round,
    "str": str,
    "sum": sum,
}
METHODS = ("endswith", "get", "join", "lower", "replace", "split", "startswith", "strip", "upper")
MAX_EXPRESSION = 1000
"""Maximum length of an expression, in characters."""

CACHED_EXPRESSIONS = 1024
"""Expressions that are cached after parsing: each is evaluated for every entry of every response."""


class BadFormula(ValueError):
    """The text of an expression is invalid; the message says why."""


class NoValue(Exception):
    """An expression has no value for this entry; the message says why."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A path and the operations on the value there; ``text`` is the source of both."""

    text: str
    path: tuple[str, ...]
    operations: tuple[ast.expr, ...] = ()

    def value(self, entry: Any) -> Any:
        """Return the value for ``entry``, ``None`` where the path does not exist; raise :class:`NoValue` where an operation fails."""
        found = at(entry, self.path)
        for operation in self.operations:
            if found is None:
                return None
            found = _result(self.text, operation, {"value": found})
        return found


@dataclass(frozen=True, slots=True)
class Formula:
    """An operation on several named values; ``text`` is its source."""

    text: str
    operation: ast.expr

    def value(self, names: Mapping[str, Any]) -> Any:
        """Return the result for the values ``names``; raise :class:`NoValue` where the operation fails."""
        return _result(self.text, self.operation, names)


def at(value: Any, path: tuple[str, ...]) -> Any:
    """Return the value at ``path``, ``None`` where it does not exist."""
    for part in path:
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


@lru_cache(maxsize=CACHED_EXPRESSIONS)
def expression(text: str) -> Expression:
    """Parse ``text``; raise :class:`BadFormula`."""
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_EXPRESSION:
        raise BadFormula(
            f"should be a path such as a.b.0.c, at most {MAX_EXPRESSION} characters long, not {text!r:.80}"
        )
    path, *operations = (part.strip() for part in text.split(" | "))
    return Expression(text, _parse_path(path), tuple(_parse_operation(each) for each in operations))


@lru_cache(maxsize=CACHED_EXPRESSIONS)
def formula(text: str, names: tuple[str, ...]) -> Formula:
    """Parse ``text``, an operation on the values ``names``; raise :class:`BadFormula`."""
    if len(text) > MAX_EXPRESSION:
        raise BadFormula(f"should be at most {MAX_EXPRESSION} characters long, not {len(text)}")
    return Formula(text, _parse_operation(text, names))


def _result(text: str, operation: ast.expr, names: Mapping[str, Any]) -> Any:
    try:
        return _evaluate(operation, names)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise NoValue(f"{text}: {type(error).__name__}: {error}") from None


def _parse_path(text: str) -> tuple[str, ...]:
    if text == ".":
        return ()
    parts = tuple(text.split("."))
    if not all(parts):
        raise BadFormula(f"{text!r} should be names separated by dots, or '.' for the whole entry")
    return parts


def _parse_operation(text: str, names: Collection[str] = ("value",)) -> ast.expr:
    try:
        parsed = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadFormula(f"{text!r} is not a valid expression: {error}") from None
    local = {argument.arg for node in ast.walk(parsed) if isinstance(node, ast.arguments) for argument in node.args}
    for node in ast.walk(parsed):
        if not _allowed(node, {*names, *local}):
            allowed = ALLOWED.format(", ".join(names))
            raise BadFormula(f"{text!r}: {type(node).__name__} is not allowed; {allowed}")
    return parsed


ALLOWED = f"allowed are {{}}, numbers, texts, + - * / // %, comparisons, a if b else c, lambda, {', '.join(FUNCTIONS)}"


def _allowed(node: ast.AST, names: Collection[str]) -> bool:
    match node:
        case ast.Name():
            return node.id in names or node.id in FUNCTIONS
        case ast.Attribute():
            return node.attr in METHODS
        case ast.Call():
            named = isinstance(node.func, ast.Attribute) or (
                isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS
            )
            return named and not node.keywords
        case ast.Constant():
            return isinstance(node.value, int | float | str | None)
        case ast.Subscript() | ast.Slice() | ast.IfExp() | ast.BoolOp() | ast.And() | ast.Or() | ast.Load():
            return True
        case ast.BinOp() | ast.UnaryOp() | ast.Compare() | ast.List() | ast.Lambda() | ast.arg():
            return True
        case ast.Dict():
            return None not in node.keys  # {**other}
        case ast.arguments():
            return not (node.vararg or node.kwarg or node.defaults or node.kwonlyargs or node.posonlyargs)
    return type(node) in OPERATORS


def _evaluate(node: Any, names: Mapping[str, Any]) -> Any:
    def of(part: Any) -> Any:
        return _evaluate(part, names)

    match node:
        case ast.Constant():
            return node.value
        case ast.List():
            return [of(each) for each in node.elts]
        case ast.Dict():
            return {of(key): of(each) for key, each in zip(node.keys, node.values, strict=True)}
        case ast.Lambda():
            called = [argument.arg for argument in node.args.args]
            return lambda *given: _evaluate(node.body, {**names, **dict(zip(called, given, strict=True))})
        case ast.Name():
            return names[node.id] if node.id in names else FUNCTIONS[node.id]
        case ast.BinOp():
            left, right = of(node.left), of(node.right)
            if not isinstance(node.op, ast.Add) and (isinstance(left, str | list) or isinstance(right, str | list)):
                raise TypeError("arithmetic takes numbers only")  # 'a' * 10**12, or '%s' % x
            return OPERATORS[type(node.op)](left, right)
        case ast.UnaryOp():
            return OPERATORS[type(node.op)](of(node.operand))
        case ast.Compare():
            left = of(node.left)
            for sign, right_node in zip(node.ops, node.comparators, strict=True):
                right = of(right_node)
                if not OPERATORS[type(sign)](left, right):
                    return False
                left = right
            return True
        case ast.BoolOp():
            found = None
            for each in node.values:
                found = of(each)
                if bool(found) is isinstance(node.op, ast.Or):
                    break
            return found
        case ast.IfExp():
            return of(node.body) if of(node.test) else of(node.orelse)
        case ast.Subscript():
            key = node.slice
            if isinstance(key, ast.Slice):
                bounds = [of(bound) if bound else None for bound in (key.lower, key.upper, key.step)]
                return of(node.value)[slice(*bounds)]
            return of(node.value)[of(key)]
        case ast.Attribute():
            owner = of(node.value)
            if not isinstance(owner, str | dict):
                raise TypeError(f"{type(owner).__name__} has no method {node.attr}")
            return getattr(owner, node.attr)
        case _:  # ast.Call is the only other node that is allowed
            return of(node.func)(*(of(each) for each in node.args))
