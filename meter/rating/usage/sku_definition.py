"""The definition of a SKU: the part of it on which its quantities depend. SKUs with the same definition share what is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from zoneinfo import ZoneInfo

from meter.rating.book.price_book import Sku

VERSION = 1
"""Grows when the same samples give other quantities: what was kept before is computed again."""

LONGEST_VALUE = 255
"""Characters of a value that prices match on; the rest of a longer one is cut."""


def sku_definition(sku: Sku, timezone: ZoneInfo) -> str:
    """Return what the quantities of ``sku`` depend on, as JSON: its minimum does not, because it is added to what is kept."""
    return json.dumps(
        {
            "version": VERSION,
            "timezone": timezone.key,
            "usage": sku.usage,
            "meter": sku.meter,
            "resource_kind": sku.resource_kind,
            "states": sorted(sku.states),
            "times_size": sku.times_size,
            "by": sorted(sku.by),
            "factor": str(sku.factor),
            "started": sku.started,
            "round_up_to": None if sku.round_up_to is None else f"{sku.round_up_to.normalize():f}",
        },
        sort_keys=True,
    )


def fingerprint(definition: str) -> bytes:
    """Return the SHA-256 of a definition."""
    return hashlib.sha256(definition.encode()).digest()


def number_text(value: Decimal) -> str:
    """Return a size as prices match on it: ``10`` for 10.0, ``2.5``, without an exponent."""
    return f"{value.normalize():f}"


def values_text(values: Mapping[str, str]) -> str:
    """Return ``values`` as JSON, as PostgreSQL writes ``jsonb``. The order of usage is another: :func:`values_order`."""
    in_order = {name: values[name] for name in sorted(values, key=lambda name: (len(name.encode()), name.encode()))}
    return json.dumps(in_order, ensure_ascii=False)


def values_order(values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return what usage with different values is sorted by: the values in the order of their names, compared by code points."""
    return tuple(sorted(values.items()))
