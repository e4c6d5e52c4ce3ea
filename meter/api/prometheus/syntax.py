"""The syntax tree of an expression: what of PromQL is served. :mod:`meter.api.prometheus.parsing` makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meter.api.prometheus.matchers import LabelMatcher

ArithmeticOperator = Literal["+", "-", "*", "/", "%", "^", "atan2"]
ComparisonOperator = Literal["==", "!=", "<", "<=", ">", ">="]
SetOperator = Literal["and", "or", "unless"]


@dataclass(frozen=True, slots=True)
class NumberNode:
    """A number."""

    value: float


@dataclass(frozen=True, slots=True)
class TextNode:
    """A text."""

    value: str


@dataclass(frozen=True, slots=True)
class SelectorNode:
    """An instant vector selector. ``offset`` is in seconds; ``at`` is the time of ``@``, in seconds since 1970."""

    matchers: tuple[LabelMatcher, ...]
    offset: float = 0.0
    at: float | Literal["start", "end"] | None = None


@dataclass(frozen=True, slots=True)
class RangeNode:
    """A range vector selector: the samples of the last ``seconds``."""

    selector: SelectorNode
    seconds: float


@dataclass(frozen=True, slots=True)
class AggregationNode:
    """An aggregation over series. ``by`` says whether ``labels`` are kept, or all others."""

    operator: str
    operand: Node
    parameter: Node | None
    by: bool
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NegationNode:
    """A unary minus."""

    operand: Node


@dataclass(frozen=True, slots=True)
class VectorMatching:
    """How elements of two vectors are matched: on ``labels``, or on all but them.

    ``many`` is the side that may have several elements in a match, and ``include`` the labels that are copied from the other.
    """

    on: bool = False
    labels: tuple[str, ...] = ()
    many: Literal["left", "right"] | None = None
    include: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BinaryNode:
    """A binary operator. ``as_bool``: a comparison has the value 0 or 1 instead of filtering."""

    operator: str
    left: Node
    right: Node
    as_bool: bool
    matching: VectorMatching


@dataclass(frozen=True, slots=True)
class CallNode:
    """A call of a function."""

    function: str
    arguments: tuple[Node, ...]


Node = NumberNode | TextNode | SelectorNode | RangeNode | AggregationNode | NegationNode | BinaryNode | CallNode
