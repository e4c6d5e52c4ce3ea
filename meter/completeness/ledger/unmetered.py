"""Resources that are listed and not metered, and metered and not listed: the last samples of the reconciliation meters.

The central agent compares the resources that the services of a cloud list with those that have samples
(:mod:`meter.pollsters.openstack.reconciliation`); the metadata of its samples have the first ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Protocol

from meter.completeness_query import Unmetered
from meter.query import Marker
from meter.query import Order
from meter.query import SampleFilter
from meter.query import StoredSample

MISSES = "meter.reconciliation.misses"
GHOSTS = "meter.reconciliation.ghosts"
MAX_SAMPLES = 100
"""Newest samples of each meter that are read; there is one for each kind of resource and day."""


class NewestSamples(Protocol):
    """The method of a store that is used here."""

    async def samples(
        self, filter: SampleFilter, limit: int, order: Sequence[Order] = (), after: Marker | None = None
    ) -> Sequence[StoredSample]:
        """Return at most ``limit`` matching samples, newest first."""


async def unmetered(store: NewestSamples) -> list[Unmetered]:
    """Return the result of the last reconciliation of each kind of resource, by kind."""
    misses = _by_kind(await store.samples(SampleFilter(equals={"meter": MISSES}), MAX_SAMPLES))
    ghosts = _by_kind(await store.samples(SampleFilter(equals={"meter": GHOSTS}), MAX_SAMPLES))
    found = []
    for kind in sorted(misses.keys() | ghosts.keys()):
        missed, metered = misses.get(kind), ghosts.get(kind)
        found.append(
            Unmetered(
                kind=kind,
                at=max(each.timestamp for each in (missed, metered) if each is not None),
                not_metered=int(missed.volume) if missed else 0,
                not_metered_ids=_ids(missed),
                not_listed=int(metered.volume) if metered else 0,
                not_listed_ids=_ids(metered),
            )
        )
    return found


def _by_kind(samples: Iterable[StoredSample]) -> Mapping[str, StoredSample]:
    newest: dict[str, StoredSample] = {}
    for sample in samples:
        kind = sample.metadata.get("kind")
        if isinstance(kind, str):
            newest.setdefault(kind, sample)
    return newest


def _ids(sample: StoredSample | None) -> tuple[str, ...]:
    ids = sample.metadata.get("ids") if sample is not None else None
    return tuple(each for each in ids if isinstance(each, str)) if isinstance(ids, list) else ()
