"""The memory of the daemons is stated by one page, which agrees with the figures that were measured last."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[3]
RESULTS = (TOP / "benchmarks/RESULTS.rst").read_text(encoding="utf-8")
PAGE = TOP / "docs/install.rst"

MEASURED = {
    "a collector": (("collector", r"memory (?:without work|at its largest)"), ("daemons", "meter-collector: memory")),
    "``meter-api``": (("daemons", "meter-api: memory"),),
    "``meter-compute``": (("compute_cycle --memory", r"memory after \d+ cycles"), ("daemons", "meter-compute: memory")),
}
"""What the page has a row of, and the commands and rows that have measured it."""


def figures(command: str, row: str) -> list[float]:
    """Return the medians of the rows that ``row`` describes, in all blocks of ``command``."""
    blocks = re.findall(rf"^    command: python -m benchmarks\.{command}\b.*?(?=^\S|\Z)", RESULTS, re.M | re.S)
    return [float(each) for block in blocks for each in re.findall(rf"^    {row} +([\d.]+) \(.*MiB", block, re.M)]


@pytest.mark.parametrize("daemon", MEASURED)
def test_page_states_the_memory_that_was_measured(daemon):
    page = PAGE.read_text(encoding="utf-8")
    stated = re.search(rf"\* - memory of {re.escape(daemon)}\n     - (\d+) to (\d+) MiB", page)
    assert stated is not None
    found = [figure for command, row in MEASURED[daemon] for figure in figures(command, row)]
    assert found
    low, high = float(stated[1]), float(stated[2])
    assert [each for each in found if not low <= each <= high] == []
    assert high - max(found) < 20, "the page states far more than was measured"


def test_no_other_page_states_the_memory_of_a_daemon():
    states = re.compile(r"(?:collector|API process|``meter-(?:api|compute|central)``)[^.:]{0,60}\d MiB")
    pages = [path for path in (TOP / "docs").glob("*.rst") if path != PAGE]
    assert [path.name for path in pages if states.search(path.read_text(encoding="utf-8"))] == []
