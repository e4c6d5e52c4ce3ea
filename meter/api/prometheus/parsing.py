"""Parses an expression with ``promql_parser`` and refuses, by name, what is outside of the served subset of PromQL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from typing import Literal
from typing import TypeVar

import promql_parser

from meter.api.prometheus.matchers import LabelMatcher
from meter.api.prometheus.matchers import MatchOperator
from meter.api.prometheus.matchers import compiled
from meter.api.prometheus.names import LABEL_NAME
from meter.api.prometheus.results import METRIC_NAME
from meter.api.prometheus.results import PromqlError
from meter.api.prometheus.syntax import AggregationNode
from meter.api.prometheus.syntax import BinaryNode
from meter.api.prometheus.syntax import CallNode
from meter.api.prometheus.syntax import NegationNode
from meter.api.prometheus.syntax import Node
from meter.api.prometheus.syntax import NumberNode
from meter.api.prometheus.syntax import RangeNode
from meter.api.prometheus.syntax import SelectorNode
from meter.api.prometheus.syntax import TextNode
from meter.api.prometheus.syntax import VectorMatching

T = TypeVar("T")

AGGREGATIONS = frozenset(
    {"sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "topk", "bottomk", "quantile"}
)

RANGE_FUNCTIONS = frozenset(
    {
        "rate",
        "increase",
        "delta",
        "avg_over_time",
        "min_over_time",
        "max_over_time",
        "sum_over_time",
        "count_over_time",
        "last_over_time",
        "quantile_over_time",
        "stddev_over_time",
        "stdvar_over_time",
        "present_over_time",
        "absent_over_time",
    }
)

FUNCTIONS = RANGE_FUNCTIONS | {
    "abs",
    "absent",
    "ceil",
    "clamp",
    "clamp_max",
    "clamp_min",
    "exp",
    "floor",
    "label_replace",
    "ln",
    "log10",
    "log2",
    "round",
    "scalar",
    "sgn",
    "sort",
    "sort_desc",
    "sqrt",
    "time",
    "timestamp",
    "vector",
}

MAX_OPERATORS = 250
"""Operators and parentheses of an expression: the parser takes a time that grows with their square."""

MAX_NESTING = 60
"""Levels of nesting of an expression."""

MAX_MATCHERS = 50
"""Matchers of a selector."""

MAX_PATTERNS = 20
"""Regular expressions of an expression, each of which can take some milliseconds to compile."""

_TEXT = r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`'
_TEXTS = re.compile(rf"(?P<operator>[=!]~(?:\s|#[^\n]*\n)*)(?P<pattern>{_TEXT})|#[^\n]*|{_TEXT}", re.DOTALL)
_OPERATORS = re.compile(r"[-+*/%^(<>]|[!=]=|\b(?:and|or|unless|atan2)\b", re.IGNORECASE)
_NEGATIVE_TIME = re.compile(r"@\s*-")
# The enumerations of promql_parser 0.12 cannot be hashed, so these are no mappings.
_MATCH_OPERATORS: Sequence[tuple[Any, MatchOperator]] = (
    (promql_parser.MatchOp.Equal, "="),
    (promql_parser.MatchOp.NotEqual, "!="),
    (promql_parser.MatchOp.Re, "=~"),
    (promql_parser.MatchOp.NotRe, "!~"),
)
_MANY_SIDES: Sequence[tuple[Any, Literal["left", "right"] | None]] = (
    (promql_parser.VectorMatchCardinality.ManyToOne, "left"),
    (promql_parser.VectorMatchCardinality.OneToMany, "right"),
    (promql_parser.VectorMatchCardinality.OneToOne, None),
    (promql_parser.VectorMatchCardinality.ManyToMany, None),
)


def parse(expression: str, max_bytes: int) -> Node:
    """Return the syntax tree of ``expression``. Raises :class:`PromqlError` ``bad_data``."""
    if len(expression.encode("utf-8", "replace")) > max_bytes:
        raise _invalid(f"the expression has more than {max_bytes} bytes")
    if "\0" in expression:
        raise _invalid("the expression has a NUL character")
    patterns: list[str] = []
    shortened = _TEXTS.sub(lambda found: _without_pattern(found, patterns), expression)
    outside_of_texts = _TEXTS.sub(" ", expression)
    if len(_OPERATORS.findall(outside_of_texts)) > MAX_OPERATORS:
        raise _invalid(f"the expression has more than {MAX_OPERATORS} operators and parentheses")
    if outside_of_texts.count("=") > MAX_OPERATORS:
        raise _invalid(f"the expression has more than {MAX_OPERATORS} matchers and comparisons")
    if len(patterns) > MAX_PATTERNS:
        raise _invalid(f"the expression has more than {MAX_PATTERNS} regular expressions")
    if _NEGATIVE_TIME.search(outside_of_texts):  # promql_parser 0.12 panics
        raise _invalid("a time of @ must not be before 1970")
    with _parser_errors():
        parsed = promql_parser.parse(shortened)
        values = [str(getattr(promql_parser.parse(each), "val", "")) for each in patterns]
        reader = _TreeReader(values)
        node = reader.node(parsed, MAX_NESTING)
    if reader.read != len(values):
        raise _invalid("parse error: a regular expression must follow its operator")
    return node


@contextmanager
def _parser_errors() -> Iterator[None]:
    """Raise :class:`PromqlError` for what the parser raises: also for a panic of Rust, which is no :class:`Exception`."""
    try:
        yield
    except (ValueError, OverflowError) as error:
        raise _invalid(f"parse error: {error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise _invalid("parse error: the parser cannot read the expression") from error


def _without_pattern(found: re.Match[str], patterns: list[str]) -> str:
    """Return a text of an expression, or in place of a regular expression the number of it in ``patterns``.

    The parser would compile it, which can take a tenth of a second, with limits of its own.
    """
    if not found["operator"]:
        return found[0]
    patterns.append(found["pattern"])
    return f'{found["operator"]}"{len(patterns) - 1}"'


def parse_selector(expression: str, max_bytes: int) -> SelectorNode:
    """Return an expression that must be an instant vector selector without offset and ``@``."""
    node = parse(expression, max_bytes)
    if not isinstance(node, SelectorNode) or node.offset or node.at is not None:
        raise _invalid(f'{expression[:200]!r} is not a series selector, such as ceilometer_cpu{{project="p"}}')
    return node


def _named(names: Sequence[tuple[Any, T]], value: Any) -> T:
    return next(name for each, name in names if each == value)


def _invalid(text: str) -> PromqlError:
    return PromqlError("bad_data", text)


def _outside(what: str) -> PromqlError:
    return _invalid(f"{what} is outside of the subset of PromQL that this server evaluates")


class _TreeReader:
    """Makes a syntax tree of what the parser returns; ``patterns`` are the regular expressions by their number."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        self.read = 0

    def node(self, parsed: Any, depth: int) -> Node:
        if depth == 0:
            raise _invalid(f"the expression is nested more than {MAX_NESTING} levels deep")
        match parsed:
            case promql_parser.ParenExpr():
                return self.node(parsed.expr, depth - 1)
            case promql_parser.NumberLiteral():
                return NumberNode(parsed.val)
            case promql_parser.StringLiteral():
                return TextNode(parsed.val)
            case promql_parser.VectorSelector():
                return self.selector(parsed)
            case promql_parser.MatrixSelector():
                return RangeNode(self.selector(parsed.vector_selector), parsed.range.total_seconds())
            case promql_parser.UnaryExpr():
                return NegationNode(self.node(parsed.expr, depth - 1))
            case promql_parser.AggregateExpr():
                return self.aggregation(parsed, depth)
            case promql_parser.BinaryExpr():
                return self.binary(parsed, depth)
            case promql_parser.Call():
                name = parsed.func.name
                if name not in FUNCTIONS:
                    raise _outside(f"the function {name}()")
                return CallNode(name, tuple(self.node(argument, depth - 1) for argument in parsed.args))
            case promql_parser.SubqueryExpr():
                raise _outside("a subquery, such as [1h:5m],")
        raise _outside(f"an expression of the kind {type(parsed).__name__}")

    def selector(self, parsed: Any) -> SelectorNode:
        if parsed.matchers.or_matchers:
            raise _outside("a selector with the operator or")
        matchers = [self.matcher(each) for each in parsed.matchers.matchers]
        if parsed.name is not None:
            matchers.insert(0, LabelMatcher(METRIC_NAME, "=", parsed.name))
        if len(matchers) > MAX_MATCHERS:
            raise _invalid(f"a selector has more than {MAX_MATCHERS} matchers")
        if all(matcher.matches("") for matcher in matchers):
            raise _invalid("parse error: vector selector must contain at least one non-empty matcher")
        at: Any = None
        if parsed.at is not None:
            kind = parsed.at.type
            at = (
                "start"
                if kind == promql_parser.AtModifierType.Start
                else "end"
                if kind == promql_parser.AtModifierType.End
                else parsed.at.at.timestamp()
            )
        offset: timedelta | None = parsed.offset
        return SelectorNode(tuple(matchers), offset.total_seconds() if offset else 0.0, at)

    def matcher(self, parsed: Any) -> LabelMatcher:
        operator = _named(_MATCH_OPERATORS, parsed.op)
        if operator not in ("=~", "!~"):
            return LabelMatcher(parsed.name, operator, parsed.value)
        self.read += 1
        if not parsed.value.isdecimal() or int(parsed.value) >= len(self._patterns):
            raise _invalid("parse error: a regular expression must follow its operator")
        pattern = self._patterns[int(parsed.value)]
        compiled(pattern)
        return LabelMatcher(parsed.name, operator, pattern)

    def aggregation(self, parsed: Any, depth: int) -> AggregationNode:
        operator = str(parsed.op)
        if operator not in AGGREGATIONS:
            raise _outside(f"the aggregation {operator}()")
        modifier = parsed.modifier
        by = modifier is None or modifier.type == promql_parser.AggModifierType.By
        return AggregationNode(
            operator,
            self.node(parsed.expr, depth - 1),
            None if parsed.param is None else self.node(parsed.param, depth - 1),
            by,
            () if modifier is None else _label_names(modifier.labels),
        )

    def binary(self, parsed: Any, depth: int) -> BinaryNode:
        modifier, matching, as_bool = parsed.modifier, VectorMatching(), False
        if modifier is not None:
            if modifier.fill_values.lhs is not None or modifier.fill_values.rhs is not None:
                raise _outside("the modifier fill()")
            as_bool = modifier.return_bool
            given = modifier.matching
            matching = VectorMatching(
                given is not None and given.type == promql_parser.LabelModifierType.Include,
                () if given is None else _label_names(given.labels),
                None if modifier.card is None else _named(_MANY_SIDES, modifier.card),
                _label_names(modifier.group_labels or ()),
            )
        return BinaryNode(
            str(parsed.op), self.node(parsed.lhs, depth - 1), self.node(parsed.rhs, depth - 1), as_bool, matching
        )


def _label_names(names: Any) -> tuple[str, ...]:
    for name in names:
        if not LABEL_NAME.fullmatch(name):
            raise _invalid(f"{name!r} is not the name of a label")
    return tuple(names)
