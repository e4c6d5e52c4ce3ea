"""The page of cases tried and right values names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "billing-cases.rst").read_text(encoding="utf-8")
FILES = sorted(set(re.findall(r"tests/[\w/.-]+\.\w+", PAGE)))
TEST_NAME = re.compile(r"\btest_\w+\b(?!\.py)")
NAMES = set(TEST_NAME.findall(PAGE))
SECTIONS = re.split(r"(?m)^(?=[^\n]+\n-{4,}$)", PAGE)[1:]


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_page_names_many_tests() -> None:
    assert len(NAMES) > 80
    assert len(SECTIONS) == 11
    assert len(FILES) > 20


@pytest.mark.parametrize("path", FILES)
def test_a_file_that_the_page_names_exists(path: str) -> None:
    assert (TESTS.parent / path).is_file()


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.splitlines()[0])
def test_every_test_that_a_section_names_is_in_a_file_that_it_names(section: str) -> None:
    found: set[str] = set()
    for path in re.findall(r"tests/[\w/]+\.py", section):
        found |= functions(TESTS.parent / path)
    assert [name for name in TEST_NAME.findall(section) if name not in found] == []


def test_each_row_names_a_test() -> None:
    rows = re.split(r"(?m)^   \* - ", PAGE)[1:]
    without = [row.splitlines()[0] for row in rows if not row.startswith("Case\n") and "``test_" not in row]
    assert without == []
