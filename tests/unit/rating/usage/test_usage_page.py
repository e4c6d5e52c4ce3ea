"""The examples on the page about usage are what is computed, and every kind of usage is on it."""

from __future__ import annotations

import re
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import get_args

import pytest

from meter.query import StoredSample
from meter.rating.book.price_book import UsageKind
from meter.rating.usage.existence import ExistenceSpan
from meter.testing.usage_measuring import MEASURES
from meter.testing.usage_measuring import SampledWindow
from tests.usage_books import sku

PAGE = (Path(__file__).parents[4] / "docs/usage.rst").read_text(encoding="utf-8")
START = datetime(2026, 10, 10, tzinfo=UTC)
TYPES = {"integral": "gauge", "increase": "cumulative", "sum": "delta", "maximum": "gauge"}


def table(marker: str) -> list[list[str]]:
    rows = PAGE.split(f".. {marker}\n", 1)[1].strip().split("\n\n")[0].splitlines()
    edges = [match.span() for match in re.finditer("=+", rows[0])]
    return [[row[first:last].strip() for first, last in edges] for row in rows[3:-1]]


def stored(kind: str, number: int, text: str) -> StoredSample:
    minute, volume, origin = re.fullmatch(r"(\d+): ([\d.]+) (\w)", text).groups()
    polled = {"_meter": {"interval": 300, "run": origin}}
    return StoredSample(
        message_id=str(number),
        name="m",
        type=TYPES[kind],
        unit="x",
        volume=float(volume),
        resource_id="r",
        user_id=None,
        project_id="p",
        source="s",
        timestamp=START + timedelta(minutes=int(minute)),
        recorded_at=START,
        metadata={} if origin == "n" else polled,
        signature="",
        key_id=None,
        scheme=None,
    )


def test_every_kind_of_usage_is_described():
    for kind in get_args(UsageKind):
        assert re.search(rf"^{kind} +", PAGE, re.MULTILINE)


@pytest.mark.parametrize("row", table("usage-examples"), ids=lambda row: " ".join(row[:2]))
def test_an_example_is_computed(row):
    kind, samples, life, expected, unmetered = row
    spans = []
    if life != "unknown":
        first, last = (START + timedelta(minutes=int(minute)) for minute in life.split(" to "))
        spans = [ExistenceSpan("p", first, last)]
    rows = [stored(kind, number, text) for number, text in enumerate(samples.split(", "))]
    window = SampledWindow(sku("x", kind, "m"), rows, START, START + timedelta(days=1), spans)
    scale = Fraction(1, 10**6) if kind == "integral" else 1
    [found] = MEASURES[kind](window).values()
    assert (found.total * scale, found.unmetered_microseconds) == (Fraction(expected), int(unmetered) * 10**6)
