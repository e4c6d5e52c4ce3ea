"""docs/doctor.rst lists the checks and the steps as the code has them."""

from __future__ import annotations

from pathlib import Path

from meter.commands.doctor.checks import CHECKS
from meter.commands.doctor.examination import GROUPS
from meter.commands.doctor.why import STEPS

PAGE = (Path(__file__).parents[4] / "docs/doctor.rst").read_text(encoding="utf-8")


def table(heading):
    """The rows of the simple table whose first column is ``heading``, as pairs."""
    lines = PAGE.splitlines()
    first = next(number for number, line in enumerate(lines) if line.split("  ")[0].strip() == heading) + 2
    rows = {}
    for line in lines[first:]:
        if line.startswith("==="):
            return rows
        name, _, text = line.partition("  ")
        rows[name.strip()] = text.strip()
    return rows


def test_the_page_has_every_check_in_order():
    assert list(table("Check").items()) == list(CHECKS.items())


def test_the_page_has_every_step_in_order():
    assert tuple(table("Step")) == STEPS


def test_every_check_belongs_to_one_group():
    assert [name for names, _ in GROUPS for name in names] == list(CHECKS)
