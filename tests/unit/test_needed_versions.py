"""Pages, comments and settings name the same oldest versions of servers and of Python as the code does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from meter.commands.doctor.needed_versions import OLDEST_POSTGRESQL
from meter.commands.doctor.needed_versions import OLDEST_RABBITMQ

TOP = Path(__file__).parents[2]

PAGES = [
    path
    for path in (*TOP.glob("*.rst"), *TOP.glob("docs/**/*.rst"), *TOP.glob("etc/**/*"), *TOP.glob("meter/**/*"))
    if path.suffix in (".rst", ".toml", ".py") and "_build" not in path.parts
]

PYTHON = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]

OLDEST = {
    "RabbitMQ": ".".join(map(str, OLDEST_RABBITMQ)),
    "PostgreSQL": str(OLDEST_POSTGRESQL),
    "Python": PYTHON.removeprefix(">="),
}


@pytest.mark.parametrize("product", OLDEST)
def test_pages_name_the_oldest_version_that_the_code_names(product):
    pattern = re.compile(rf"{product}(?:``)?\s+([0-9][0-9.]*)\s+(?:or|and)\s+(?:newer|later)")
    named = {
        path.relative_to(TOP).as_posix(): versions
        for path in PAGES
        if (versions := set(pattern.findall(path.read_text(encoding="utf-8"))))
    }
    assert len(named) >= 1
    assert {name: versions for name, versions in named.items() if versions != {OLDEST[product]}} == {}


def test_the_makefile_asks_for_the_oldest_python_that_is_supported():
    makefile = (TOP / "Makefile").read_text(encoding="utf-8")
    assert f"sys.version_info < ({OLDEST['Python'].replace('.', ', ')})" in makefile
