"""JSONPath expressions: ``$.payload.size``, ``$.payload.metrics[?(@.name='cpu.percent')].value * 100``.

Only this module imports jsonpath-ng, whose extended grammar is that of Ceilometer's definitions. Most paths are plain
chains of member names; these are evaluated without jsonpath-ng, twenty times as fast.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jsonpath_ng
import jsonpath_ng.ext.arithmetic
import jsonpath_ng.ext.filter
import jsonpath_ng.ext.parser
import jsonpath_ng.ext.string
import re2

MAX_PATH = 500
"""Maximum length of a path, in characters."""

MISSING: Any = object()
"""The result of a path that finds nothing; null is a value."""


class BadPath(ValueError):
    """A path that is invalid or cannot be evaluated; the text says why."""


Follow = Callable[[list[Any]], list[Any]]
"""Maps values to the values found below them."""


@dataclass(frozen=True, slots=True)
class Path:
    """A compiled path, written as ``text``, that finds values in a mapping.

    ``first`` returns the first value that is not null, null if all are, or :data:`MISSING`; ``all`` returns every value,
    nulls included. Both raise :class:`BadPath` if the path cannot be evaluated in the given mapping. ``steps`` are the names
    and indices of a path that has nothing else, ``None`` for other paths.
    """

    text: str
    first: Callable[[Mapping[str, Any]], Any]
    all: Callable[[Mapping[str, Any]], list[Any]]
    steps: tuple[str | int, ...] | None = field(default=None, compare=False)

    @property
    def shown(self) -> str:
        """The name of the value in errors: ``payload.size``."""
        return self.text.removeprefix("$.")


def _walk(steps: tuple[str | int, ...]) -> Callable[[Any], Any]:
    """Return a function that follows ``steps`` into a value, or returns :data:`MISSING`."""
    if len(steps) == 2 and all(isinstance(step, str) for step in steps):
        return _walk_two(*steps)

    def walk(node: Any) -> Any:
        for step in steps:
            if isinstance(node, dict):
                node = node.get(step, MISSING)
            elif isinstance(node, list) and type(step) is int and -len(node) <= step < len(node):
                node = node[step]
            else:
                return MISSING
        return node

    return walk


def _walk_two(outer: str | int, inner: str | int) -> Callable[[Any], Any]:
    """Return what :func:`_walk` returns for two names, such as those of ``$.payload.size``, which is twice as fast."""

    def walk(node: Any) -> Any:
        found = node.get(outer) if isinstance(node, dict) else None
        return found.get(inner, MISSING) if isinstance(found, dict) else MISSING

    return walk


def _plain(text: str, steps: tuple[str | int, ...]) -> Path:
    """Return a path of member names and indices only, by far the most common."""
    first = _walk(steps)

    def every(scope: Mapping[str, Any]) -> list[Any]:
        value = first(scope)
        return [] if value is MISSING else [value]

    return Path(text, first, every, steps)


def _general(text: str, follow: Follow) -> Path:
    """Return a path that may find many values."""

    def every(scope: Mapping[str, Any]) -> list[Any]:
        try:
            return follow([scope])
        except RecursionError as error:
            raise BadPath(f"{text}: the value is nested too deeply") from error
        except Exception as error:
            # jsonpath-ng raises arbitrary exceptions for values that it does not expect.
            raise BadPath(f"{text} cannot be evaluated: {error}") from error

    def first(scope: Mapping[str, Any]) -> Any:
        found = every(scope)
        return next((value for value in found if value is not None), None) if found else MISSING

    return Path(text, first, every)


class _Elements(jsonpath_ng.JSONPath):
    """``[*]`` as before RFC 9535: a value that is not a list counts as a list of it. Ceilometer's ``meters.yaml`` relies on that."""

    def find(self, datum: Any) -> Any:
        datum = jsonpath_ng.DatumInContext.wrap(datum)
        return jsonpath_ng.Wildcard().find(datum) if isinstance(datum.value, list) else [datum]


@lru_cache(maxsize=4096)
def path(text: str, ceilometer: bool = False) -> Path:
    """Compile ``text``; raises :class:`BadPath`. With ``ceilometer``, ``[*]`` has its older meaning."""
    if len(text) > MAX_PATH:
        raise BadPath(f"should have at most {MAX_PATH} characters, not {len(text)}")
    try:
        with warnings.catch_warnings():
            # Ceilometer's meters.yaml omits quotes that jsonpath-ng 2 will require.
            warnings.simplefilter("ignore", DeprecationWarning)
            expression = jsonpath_ng.ext.parser.parse(text)
    except Exception as error:
        raise BadPath(
            f"{text!r:.80} is not a JSONPath such as $.payload.size ({' '.join(str(error).split())[:200]})"
        ) from error
    _limit_time(text, expression)
    if ceilometer:
        for part in _parts(expression):
            if isinstance(getattr(part, "right", None), jsonpath_ng.Wildcard):
                part.right = _Elements()
    steps = _steps(expression)
    if steps is not None:
        return _plain(text, steps)
    found = _general(text, _compiled(expression))
    chosen = _chosen_by_name(expression)
    return found if chosen is None else replace(found, first=_first_chosen(chosen, found.first))


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A path to members of the elements of a list whose ``name`` is ``wanted``: ``$.payload.metrics[?(@.name='cpu.percent')].value``.

    ``before`` leads to the list, and ``after`` from an element to the value, whose product with ``factor`` is meant.
    """

    before: tuple[str | int, ...]
    name: str
    wanted: str
    after: tuple[str | int, ...]
    factor: int | float | None


def _chosen_by_name(node: Any) -> _Chosen | None:
    """Return such an expression in its parts, ``None`` for another one."""
    factor = None
    if isinstance(node, jsonpath_ng.ext.arithmetic.Operation):
        if node.op is not operator.mul or type(node.right) not in (int, float):
            return None
        node, factor = node.left, node.right
    after: tuple[str | int, ...] = ()
    while type(node) is jsonpath_ng.Child and not isinstance(node.right, jsonpath_ng.ext.filter.Filter):
        step = _steps(node.right)
        if step is None:
            return None
        node, after = node.left, (*step, *after)
    chosen = node.right if type(node) is jsonpath_ng.Child else None
    if not isinstance(chosen, jsonpath_ng.ext.filter.Filter) or len(chosen.expressions) != 1:
        return None
    before, name = _steps(node.left), _compared_name(chosen.expressions[0])
    if before is None or name is None or len(name) != 1 or not isinstance(name[0], str):
        return None
    return _Chosen(before, name[0], chosen.expressions[0].value, after, factor)


def _first_chosen(chosen: _Chosen, general: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], Any]:
    """Return what ``general`` does, for a list, in a fifth of the time: definitions of a host's metrics have four such paths each."""
    before, after = _walk(chosen.before), _walk(chosen.after)
    name, wanted, factor = chosen.name, chosen.wanted, chosen.factor

    def first(scope: Mapping[str, Any]) -> Any:
        listed = before(scope)
        if type(listed) is not list:
            return general(scope)
        found = MISSING
        for each in listed:
            if type(each) is dict and each.get(name) == wanted:
                value = after(each)
                if factor is not None and value is not MISSING:
                    try:
                        value = value * factor if type(value) in (int, float) else MISSING
                    except OverflowError:
                        return general(scope)  # raises BadPath, which names the path
                if value is not MISSING and value is not None:
                    return value
                found = value if found is MISSING else found
        return found

    return first


def _limit_time(text: str, expression: Any) -> None:
    """Refuse expressions whose evaluation time is unbounded, because values come from tenants."""
    descents = 0
    for part in _parts(expression):
        if isinstance(part, jsonpath_ng.ext.string.Sub):
            try:
                part.regex = re2.compile(part.expr)
            except re2.error as error:
                raise BadPath(f"{text!r:.80}: sub() takes a regular expression in RE2 syntax") from error
        elif isinstance(part, jsonpath_ng.ext.filter.Expression) and part.op == "=~":
            raise BadPath(f"{text!r:.80}: use = or !=; the time of =~ is unbounded")
        descents += isinstance(part, jsonpath_ng.Descendants)
    if descents > 1:
        raise BadPath(f"{text!r:.80}: '..' is allowed once")


def _parts(node: Any) -> Iterator[Any]:
    """Yield an expression and all its parts."""
    yield node
    for value in vars(node).values() if hasattr(node, "__dict__") else ():
        for part in value if isinstance(value, list | tuple) else (value,):
            if type(part).__module__.startswith("jsonpath_ng"):
                yield from _parts(part)


def _steps(node: Any) -> tuple[str | int, ...] | None:
    """Return the steps of an expression of member names and indices only, else ``None``."""
    if isinstance(node, jsonpath_ng.Root):
        return ()
    if type(node) is jsonpath_ng.Fields and len(node.fields) == 1 and node.fields[0] != "*":
        return (node.fields[0],)
    if isinstance(node, jsonpath_ng.Index) and len(node.indices) == 1 and isinstance(node.indices[0], int):
        return (node.indices[0],)
    if type(node) is jsonpath_ng.Child:
        left, right = _steps(node.left), _steps(node.right)
        return None if left is None or right is None else (*left, *right)
    return None


def _compiled(expression: Any) -> Follow:
    """Return what the library's ``find`` does, without its bookkeeping of parents where no part needs it."""
    if isinstance(expression, jsonpath_ng.ext.arithmetic.Operation) and type(expression.right) not in (int, float):
        return _operation(expression)
    parts = list(_parts(expression))
    if any(isinstance(part, jsonpath_ng.Parent) for part in parts) or _count(parts, jsonpath_ng.Root) > 1:
        return _found(expression)
    return _follow(expression)


def _count(parts: list[Any], kind: type) -> int:
    return sum(isinstance(part, kind) for part in parts)


def _found(node: Any) -> Follow:
    return lambda values: [match.value for each in values for match in node.find(each)]


def _follow(node: Any) -> Follow:
    if type(node) is jsonpath_ng.Child:
        before, after = _follow(node.left), _follow(node.right)
        return lambda values: after(before(values))
    steps = _steps(node)
    if steps is not None:
        walk = _walk(steps)
        return lambda values: [found for each in values if (found := walk(each)) is not MISSING]
    if isinstance(node, jsonpath_ng.ext.filter.Filter) and len(node.expressions) == 1:
        return _filter(node, node.expressions[0])
    if isinstance(node, jsonpath_ng.ext.arithmetic.Operation) and type(node.right) in (int, float):
        left, operate, right = _follow(node.left), node.op, node.right
        return lambda values: [operate(each, right) for each in left(values) if type(each) in (int, float)]
    return _found(node)


def _operation(node: Any) -> Follow:
    """Return a sum of texts such as ``$.payload.host + "_" + $.payload.nodename``, or another operation on two values."""
    sides = [
        _compiled(side) if isinstance(side, jsonpath_ng.JSONPath) else _constant(side)
        for side in (node.left, node.right)
    ]
    of_paths = all(isinstance(side, jsonpath_ng.JSONPath) for side in (node.left, node.right))

    def follow(values: list[Any]) -> list[Any]:
        left, right = (side(values) for side in sides)
        if of_paths and len(left) != len(right):
            return []
        if not of_paths:  # the constant is an operand of each value
            count = len(left) if isinstance(node.left, jsonpath_ng.JSONPath) else len(right)
            left, right = (side * count if len(side) == 1 else side for side in (left, right))
        try:
            return [node.op(*pair) for pair in zip(left, right, strict=True)]
        except TypeError:
            return []

    return follow


def _constant(value: Any) -> Follow:
    return lambda values: [value]


def _compared_name(expression: Any) -> tuple[str | int, ...] | None:
    """Return the steps to what ``[?(@.name='cpu.percent')]`` compares with a text, ``None`` for another condition."""
    target = expression.target
    if type(target) is not jsonpath_ng.Child or type(target.left) is not jsonpath_ng.This:
        return None
    return _steps(target.right) if expression.op in ("=", "==") and type(expression.value) is str else None


def _filter(node: Any, expression: Any) -> Follow:
    """Return a filter; the most common one, ``[?(@.name='cpu.percent')]``, is evaluated without the library."""
    wanted, found = expression.value, _found(node)
    steps = _compared_name(expression)
    if steps is None:
        return found

    walk = _walk(steps)
    name = steps[0] if len(steps) == 1 and isinstance(steps[0], str) else None

    def follow(values: list[Any]) -> list[Any]:
        chosen = []
        for listed in values:
            if isinstance(listed, list) and name is not None:  # without a call for each
                chosen += [each for each in listed if isinstance(each, dict) and each.get(name) == wanted]
            elif isinstance(listed, list):
                chosen += [each for each in listed if walk(each) == wanted]
            else:
                chosen += found([listed])
        return chosen

    return follow
