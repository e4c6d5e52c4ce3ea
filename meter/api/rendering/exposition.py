"""Prometheus' text format: the newest value of each series, with its time, as ``/federate`` has it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from itertools import groupby

from meter.api.prometheus.results import METRIC_NAME
from meter.api.prometheus.results import Labels
from meter.api.prometheus.results import VectorSample
from meter.api.rendering.prometheus import value_text
from meter.daemon.shared_slices import OwnedSlices

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SAMPLES_PER_CHUNK = 500

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


async def exposition(
    samples: Sequence[VectorSample], types: Mapping[str, str], warnings: Sequence[str], slices: OwnedSlices
) -> AsyncIterator[bytes]:
    """Yield the text in chunks: the samples of each metric together, after its type, ``untyped`` where ``types`` has none."""
    if warnings:
        yield "".join(f"# warning: {' '.join(each.split())}\n" for each in warnings).encode()
    ordered = sorted(samples, key=lambda sample: (metric_of(sample.labels), sample.labels))
    for metric, group in groupby(ordered, lambda sample: metric_of(sample.labels)):
        yield f"# TYPE {metric} {types.get(metric, 'untyped')}\n".encode()
        async for batch in slices.batches(list(group), SAMPLES_PER_CHUNK):
            yield "".join(_line(metric, sample) for sample in batch).encode()


def metric_of(labels: Labels) -> str:
    """Return the name of the metric, empty if there is none."""
    return dict(labels).get(METRIC_NAME, "")


def _line(metric: str, sample: VectorSample) -> str:
    pairs = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in sample.labels if name != METRIC_NAME)
    braced = f"{{{pairs}}}" if pairs else ""
    return f"{metric}{braced} {value_text(sample.point.value)} {round(sample.point.time * 1000)}\n"
