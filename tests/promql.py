"""Evaluation of PromQL over a store, without HTTP."""

from __future__ import annotations

from collections.abc import Coroutine
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from datetime import timedelta
from typing import Any
from typing import TypeVar

from twisted.internet.task import Clock

from meter.api.auth.requester import Requester
from meter.api.auth.visibility import VisibleStore
from meter.api.prometheus.evaluation import evaluate_instant
from meter.api.prometheus.evaluation import evaluate_range
from meter.api.prometheus.limits import PromqlLimits
from meter.api.prometheus.results import Labels
from meter.api.prometheus.results import Matrix
from meter.api.prometheus.results import PromqlAnswer
from meter.api.prometheus.results import ScalarPoint
from meter.api.prometheus.results import StringPoint
from meter.api.prometheus.results import Vector
from meter.api.prometheus.source import PromqlSource
from meter.daemon.shared_slices import SharedSlices
from meter.interfaces import IStore
from tests.store_messages import NOON

T = TypeVar("T")

ADMIN = Requester(is_admin=True)


def source_of(
    store: IStore,
    requester: Requester = ADMIN,
    limits: PromqlLimits = PromqlLimits(),  # noqa: B008 (frozen)
    metadata_labels: Mapping[str, str] | None = None,
) -> PromqlSource:
    """Return a source of what ``requester`` sees, whose evaluation never pauses."""
    return PromqlSource(
        store=VisibleStore(store, requester),
        slices=SharedSlices(Clock(), 1e9, 1e9).of("tests"),
        visible_project=None if requester.is_admin else requester.project_id,
        limits=replace(limits, metadata_labels=metadata_labels or {}),
    )


def seconds(time: datetime | float) -> float:
    """Return ``time`` in seconds since 1970; a number is of seconds after noon."""
    return (time if isinstance(time, datetime) else NOON + timedelta(seconds=time)).timestamp()


def result_of(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of ``work``, which waits for nothing: the memory store answers at once."""
    try:
        work.send(None)
    except StopIteration as stopped:
        result: T = stopped.value
        return result
    raise AssertionError("the work is not done")


async def instant(expression: str, at: datetime | float, source: PromqlSource) -> Any:
    """Return the value: a number, a text, or values by labels without the name of the metric and the unit and user."""
    return plain(await evaluate_instant(expression, seconds(at), source))


async def over_range(
    expression: str, start: datetime | float, end: datetime | float, step: float, source: PromqlSource
) -> dict[str, dict[float, float]]:
    """Return the values of each series by seconds after the first time."""
    answer = await evaluate_range(expression, seconds(start), seconds(end), step, source)
    assert isinstance(answer.result, Matrix)
    first = seconds(start)
    return {
        short(each.labels): {point.time - first: point.value for point in each.points} for each in answer.result.series
    }


def plain(answer: PromqlAnswer) -> Any:
    """Return what is in an answer."""
    match answer.result:
        case Vector(samples):
            return {short(each.labels): each.point.value for each in samples}
        case Matrix(series):
            return {short(each.labels): [point.value for point in each.points] for each in series}
        case ScalarPoint(point):
            return point.value
        case StringPoint(_, text):
            return text


def short(labels: Labels) -> str:
    """Return the labels that tell series of tests apart: ``resource=r1 project=p1``."""
    return " ".join(f"{name}={value}" for name, value in labels if name not in ("__name__", "unit", "user"))
