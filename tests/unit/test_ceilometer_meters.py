"""The page that says what Meter has for each meter of Ceilometer 27 is made from the plugins.

    METER_REWRITE_GOLDEN_FILES=1 .venv/bin/python -m pytest tests/unit/test_ceilometer_meters.py

writes it anew.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from meter.plugins.registry import find
from meter.sample import MeterDefinition

TOP = Path(__file__).parents[2]
PAGE = TOP / "docs/ceilometer-meters.rst"
METERS = TOP / "tests/data/ceilometer-27.0.0-polled-and-notified.csv"
REWRITE = "METER_REWRITE_GOLDEN_FILES"

HEAD = """Meters of Ceilometer
====================

What Meter has for each meter of Ceilometer 27. *Pollster* and *listener* are names for ``[plugins] disable``; their
pages list what Meter has beyond these. Meters that Ceilometer has removed are in the lists of the pollsters and listeners, too.

"""

NONE: dict[str, str] = {}
"""Meters without a plugin, and why."""


def plugins_by_meter() -> dict[str, list[tuple[str, MeterDefinition]]]:
    found: dict[str, list[tuple[str, MeterDefinition]]] = {}
    for decision in find():
        role = "listener" if decision.kind.name == "listener" else "pollster"
        assert decision.plugin is not None
        for meter in decision.plugin.meters:
            found.setdefault(meter.name, []).append((f"{role} {decision.name}", meter))
    return found


def rows() -> Iterator[tuple[str, ...]]:
    yield ("Meter", "Type", "Unit", "In Ceilometer", "In Meter")
    plugins = plugins_by_meter()
    for row in csv.DictReader(METERS.read_text().splitlines()):
        name, type, unit = row["meter"], row["type"], row["unit"]
        parts = []
        for plugin, meter in plugins.get(name, []):
            differences = [text for text, theirs in ((meter.type, type), (meter.unit, unit)) if text != theirs]
            parts.append(f"{plugin} ({', '.join(differences)})" if differences else plugin)
        yield (name, type, unit, row["source"], "; ".join(dict.fromkeys(parts)) or NONE[name])


def page() -> str:
    table = list(rows())
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return HEAD + "\n".join([rule, lines[0], rule, *lines[1:], rule, ""])


def test_page_says_what_the_plugins_have() -> None:
    if os.environ.get(REWRITE):
        PAGE.write_text(page())
    assert PAGE.read_text() == page()


def test_meter_without_a_plugin_is_named_as_such() -> None:
    assert set(NONE) == {row[0] for row in rows() if row[4].startswith("nothing")}
