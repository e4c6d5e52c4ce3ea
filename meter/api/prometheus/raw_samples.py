"""The samples of a range vector selector as they are stored: an instant query for ``ceilometer_cpu[1h]``."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from meter.api.prometheus.matchers import all_match
from meter.api.prometheus.questions import SeriesQuestions
from meter.api.prometheus.results import Labels
from meter.api.prometheus.results import Matrix
from meter.api.prometheus.results import MatrixSeries
from meter.api.prometheus.results import Point
from meter.api.prometheus.results import PromqlError
from meter.api.prometheus.syntax import RangeNode
from meter.api.prometheus.times import EvaluationTimes
from meter.api.prometheus.times import selected_times

CONVERTED_SAMPLES = 200
"""Samples that are converted between two looks at the clock."""


async def raw_samples(node: RangeNode, time: float, questions: SeriesQuestions) -> Matrix:
    """Return the samples of the window of ``node`` that ends at ``time``, oldest first."""
    at = selected_times(node.selector, EvaluationTimes(time, 1.0, 1))
    source, matchers = questions.source, node.selector.matchers
    limit = source.limits.max_rows
    points: defaultdict[Labels, list[Point]] = defaultdict(list)
    known: dict[tuple[str | None, ...], Labels | None] = {}
    count = 0
    for meter in await questions.meters(matchers):
        filter = await questions.filter(meter, matchers, at.start - node.seconds, at.start)
        samples = await source.store.samples(filter, limit + 1 - count)
        count += len(samples)
        if count > limit:
            raise PromqlError(
                "execution", f"the selector has more than {limit} samples: select fewer series or less time"
            )
        async for batch in source.slices.consume(list(reversed(samples)), CONVERTED_SAMPLES):
            for sample in batch:
                group = (
                    sample.resource_id,
                    sample.project_id,
                    sample.user_id,
                    *(_text_at(sample.metadata, key) for key in source.metadata_labels.values()),
                )
                key = (meter.name, sample.unit, *group)
                if key not in known:
                    labels = questions.labels(meter, sample.unit, dict(zip(questions.groupings(), group, strict=True)))
                    known[key] = labels if all_match(matchers, labels) else None
                selected = known[key]
                if selected is not None:
                    points[selected].append(Point(sample.timestamp.timestamp(), float(sample.volume)))
    if len(points) > source.limits.max_series:
        raise PromqlError("execution", f"the selector matches more than {source.limits.max_series} series")
    return Matrix([MatrixSeries(labels, points[labels]) for labels in sorted(points)])


def _text_at(metadata: Mapping[str, Any], key: str) -> str | None:
    """Return the value under the dotted ``key``, as JSON unless it is a text; ``None`` if there is none."""
    found = next((value for value in _values_at(metadata, key) if value is not None), None)
    return found if found is None or isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _values_at(metadata: Any, key: str) -> Iterator[Any]:
    """Yield the values that ``key`` can mean: ``a.b`` is ``b`` within ``a``, or the name of a member."""
    if isinstance(metadata, dict):
        for cut in [*(at for at, character in enumerate(key) if character == "."), len(key)]:
            if key[:cut] in metadata:
                value = metadata[key[:cut]]
                if cut == len(key):
                    yield value
                else:
                    yield from _values_at(value, key[cut + 1 :])
