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


MAX_DEPTH = 60
"""Maximum number of nested operations in an expression: evaluation and Python's own parser recurse."""

MAX_STEPS = 100_000
"""Maximum number of operations for one value, elements that functions look at included."""

MAX_SIZE = 1_000_000
"""Maximum length of a text or list that an operation gives, and maximum number of bits of an integer."""


MAX_DIGITS = 100
"""Maximum number of digits to which ``round`` rounds."""


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


class _TooMuch(ValueError):
    """An operation takes more steps, or gives a larger value, than is allowed."""


class _Budget:
    """The steps that are left for one value."""

    def __init__(self) -> None:
        self._left = MAX_STEPS

    def spend(self, steps: int = 1) -> None:
        """Take ``steps``; raises :class:`_TooMuch` when none is left."""
        self._left -= steps
        if self._left < 0:
            raise _TooMuch(f"more than {MAX_STEPS} steps")


def _result(text: str, operation: ast.expr, names: Mapping[str, Any]) -> Any:
    try:
        return _evaluate(operation, names, _Budget())
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise NoValue(f"{text}: {type(error).__name__}: {error}") from None


def _size(value: Any) -> int:
    """Return the length of a text, list or mapping, or the number of bits of an integer; 0 for other values."""
    if isinstance(value, str | list | dict):
        return len(value)
    return value.bit_length() if isinstance(value, int) else 0


def _checked(value: Any) -> Any:
    if _size(value) > MAX_SIZE:
        raise _TooMuch(f"a result of more than {MAX_SIZE} characters, elements or bits")
    return value


def _called(function: Callable[..., Any], given: list[Any], budget: _Budget) -> Any:
    """Return the result of an allowed function or method, whose size is checked before it is made, if it may grow."""
    budget.spend(sum(len(each) for each in given if isinstance(each, list | dict)))
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__name__", "")
    if isinstance(owner, str):
        budget.spend(len(owner) // 1000)
        if name == "replace" and len(given) >= 2 and isinstance(given[0], str) and isinstance(given[1], str):
            _check_length(len(owner) + owner.count(given[0]) * max(0, len(given[1]) - len(given[0])))
        elif name == "join" and given and isinstance(given[0], list | dict):
            _check_length(sum(len(each) + len(owner) for each in given[0] if isinstance(each, str)))
    elif function is round and len(given) > 1 and not (isinstance(given[1], int) and abs(given[1]) <= MAX_DIGITS):
        raise ValueError(f"round() takes at most {MAX_DIGITS} digits")
    elif function is sum and len(given) > 1 and not isinstance(given[1], int | float):
        raise TypeError("sum() adds numbers")
    return _checked(function(*given))


def _check_length(length: int) -> None:
    if length > MAX_SIZE:
        raise _TooMuch(f"a text of {length} characters; the limit is {MAX_SIZE}")


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
    if _depth(parsed) > MAX_DEPTH:
        raise BadFormula(f"{text!r:.80} has more than {MAX_DEPTH} nested operations")
    local = {argument.arg for node in ast.walk(parsed) if isinstance(node, ast.arguments) for argument in node.args}
    for node in ast.walk(parsed):
        if not _allowed(node, {*names, *local}):
            allowed = ALLOWED.format(", ".join(names))
            raise BadFormula(f"{text!r}: {_shown(text, node)} is not allowed; {allowed}")
    return parsed


ALLOWED = f"allowed are {{}}, numbers, texts, + - * / // %, comparisons, a if b else c, lambda, {', '.join(FUNCTIONS)}"


def _shown(text: str, node: ast.AST) -> str:
    """Return the part of ``text`` that is ``node``; operators have no place in a text, so that Python names them."""
    part = ast.get_source_segment(text, node) if hasattr(node, "lineno") else None
    return repr(part) if part else type(node).__name__


def _depth(parsed: ast.expr) -> int:
    """Return the number of nested nodes, without recursion."""
    deepest, waiting = 0, [(parsed, 1)]
    while waiting:
        node, depth = waiting.pop()
        deepest = max(deepest, depth)
        waiting += [(each, depth + 1) for each in ast.iter_child_nodes(node)]  # type: ignore[misc]
    return deepest


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


def _evaluate(node: Any, names: Mapping[str, Any], budget: _Budget) -> Any:
    def of(part: Any) -> Any:
        return _evaluate(part, names, budget)

    budget.spend()

    match node:
        case ast.Constant():
            return node.value
        case ast.List():
            return [of(each) for each in node.elts]
        case ast.Dict():
            return {of(key): of(each) for key, each in zip(node.keys, node.values, strict=True)}
        case ast.Lambda():
            called = [argument.arg for argument in node.args.args]
            return lambda *given: _evaluate(node.body, {**names, **dict(zip(called, given, strict=True))}, budget)
        case ast.Name():
            return names[node.id] if node.id in names else FUNCTIONS[node.id]
        case ast.BinOp():
            left, right = of(node.left), of(node.right)
            if not isinstance(node.op, ast.Add) and (isinstance(left, str | list) or isinstance(right, str | list)):
                raise TypeError("arithmetic takes numbers only")  # 'a' * 10**12, or '%s' % x
            budget.spend((_size(left) + _size(right)) // 1000)
            return _checked(OPERATORS[type(node.op)](left, right))
        case ast.UnaryOp():
            return OPERATORS[type(node.op)](of(node.operand))
        case ast.Compare():
            left = of(node.left)
            for sign, right_node in zip(node.ops, node.comparators, strict=True):
                right = of(right_node)
                budget.spend((_size(left) + _size(right)) // 1000)
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
            return _called(of(node.func), [of(each) for each in node.args], budget)
