"""Statistics of samples by way of signed messages and an in-memory store, without servers."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from meter.notification import Notification
from meter.notification import stable_ids
from meter.query import Aggregate
from meter.query import AggregateFunction
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.sample import Sample
from meter.signing_keys import keyring
from meter.testing.memory_store import MemoryStore
from tests.signed import received

KEYS = keyring(["secret"])


async def metered(samples: Sequence[Sample], function: AggregateFunction) -> float:
    """Return the statistic ``function`` of ``samples``, which have one meter and unit; 0 without samples."""
    store = MemoryStore()
    result = await store.write([received(sample, KEYS, "test") for sample in samples])
    assert (result.stored, result.refused) == (len(samples), ())
    rows = await store.statistics(StatisticsQuery(filter=SampleFilter(), aggregates=(Aggregate(function),)))
    return sum(row.values[function] for row in rows)


def with_stable_ids(origin: Notification, samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples of a notification with their :func:`~meter.notification.stable_ids`."""
    return [replace(sample, message_id=id_) for sample, id_ in zip(samples, stable_ids(origin, samples), strict=True)]
