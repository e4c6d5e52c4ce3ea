"""What pages, docstrings and comments refer to exists: files, modules and their members, settings, commands."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from meter.settings import Config

TOP = Path(__file__).parents[2]

FILE = re.compile(
    r"(?<![\w/.<-])(?:meter|tests|docs|etc|benchmarks|twisted)/[\w./-]*\w\.(?:py|rst|toml(?:\.off)?|sql|xml|service)\b"
)
MEMBER = re.compile(r":(?:mod|class|func|meth|data|attr|exc):`[^`<]*?~?(meter\.[\w.]+)`")
SETTING = re.compile(r"``\[([a-z_.]+)\] ([a-z_]+)")
SETTING_OF_A_TEMPLATE = re.compile(
    r"<code>(?P<key>[a-z_]+)</code> in the section <code>\[(?P<section>[a-z_.]+)\]</code>"
)
PAGE = re.compile(r":doc:`(?:[^`<]*<)?/?([\w/-]+)>?`")
COMMAND = re.compile(r"(?:``|^ +(?:\$ )?(?:twistd .*)?)(meter-[a-z-]+)(?= [a-z-])", re.M)

EXAMPLES = {"meter/pollsters/acme.py", "meter/pollsters/tape.py"}
"""Files of plugins that pages use as examples."""


@cache
def texts() -> dict[str, str]:
    """Pages, and sources with their docstrings and comments, by their paths."""
    pages = [*TOP.glob("*.rst"), *TOP.glob("docs/**/*.rst"), *TOP.glob("meter/**/*.rst"), *TOP.glob("etc/**/*.rst")]
    pages = [page for page in pages if "_build" not in page.parts]
    sources = [path for kind in ("py", "sql", "xml") for path in TOP.glob(f"meter/**/*.{kind}")]
    tests = [
        path for path in TOP.glob("tests/**/*.py") if path.name not in ("test_house_rules.py", "test_documents.py")
    ]
    return {
        path.relative_to(TOP).as_posix(): path.read_text(encoding="utf-8")
        for path in (*pages, *sources, *tests, *TOP.glob("benchmarks/*"))
        if path.is_file()
    }


def references(pattern: re.Pattern[str], *, pages_only: bool = False) -> Iterator[tuple[str, Any]]:
    """Every match of ``pattern`` with the path of the text that it is in."""
    for path, text in texts().items():
        if not pages_only or path.endswith(".rst"):
            yield from ((path, match) for match in pattern.finditer(text))


def exists(name: str) -> bool:
    """Whether ``name`` is a module, or a member of one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not (hasattr(found, part) or part in getattr(found, "__annotations__", {}) or part in members(found)):
                return False
            found = getattr(found, part, None)
        return True
    return False


def members(found: Any) -> list[str]:
    """Names in an interface of zope.interface."""
    return list(found) if hasattr(found, "namesAndDescriptions") else []


def has_setting(section: str, key: str) -> bool:
    """Whether there is a setting ``key`` in ``section``; sections of plugins have any."""
    model: Any = Config
    if section.split(".")[0] in ("pollsters", "listeners"):
        return True
    for part in section.split("."):
        field = model.model_fields.get(part) if isinstance(model, type) and issubclass(model, BaseModel) else None
        if field is None:
            return part not in Config.model_fields and part == section.split(".")[0]  # of another program
        model = field.annotation
    return not (isinstance(model, type) and issubclass(model, BaseModel)) or key in model.model_fields


def commands() -> set[str]:
    """The console scripts and the daemons."""
    scripts = set(tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["scripts"])
    daemons = re.findall(r'"(meter-[a-z]+)"', (TOP / "twisted/plugins/meter_daemons.py").read_text())
    return scripts | set(daemons)


def test_every_file_that_is_named_exists() -> None:
    missing = {(path, match[0]) for path, match in references(FILE) if not (TOP / match[0]).exists()}
    assert {each for each in missing if each[1] not in EXAMPLES} == set()


def test_every_page_that_is_referred_to_exists() -> None:
    found = {
        (path, match[1])
        for path, match in references(PAGE, pages_only=True)
        if not ((TOP / path).parent / f"{match[1]}.rst").exists() and not (TOP / f"docs/{match[1]}.rst").exists()
    }
    assert found == set()


def pages_by_task() -> dict[str, list[str]]:
    """The pages of each table of contents in docs/index.rst, by its caption."""
    found: dict[str, list[str]] = {}
    for tree in (TOP / "docs/index.rst").read_text(encoding="utf-8").split(".. toctree::")[1:]:
        [caption] = re.findall(r"^   :caption: (.*)$", tree, re.M)
        found[caption] = re.findall(r"^   ([\w/*-]+)$", tree, re.M)
    return found


def test_every_page_belongs_to_one_task() -> None:
    tasks = pages_by_task()
    assert list(tasks) == ["Install", "Operate", "Ask", "Bill", "Extend", "Understand", "Decisions"]
    assert tasks["Decisions"] == ["decisions/*"]
    listed = [page for task, pages in tasks.items() if task != "Decisions" for page in pages]
    assert sorted(listed) == sorted({page.stem for page in TOP.glob("docs/*.rst")} - {"index"})


def test_readme_lists_the_pages_in_the_order_of_the_index() -> None:
    table = (TOP / "README.rst").read_text(encoding="utf-8").partition(".. list-table::")[2].partition(".. _")[0]
    rows = re.findall(r"^   \* - (.*)\n((?:     .*\n)*)", table, re.M)
    listed = {task.capitalize(): re.findall(r"`docs/([\w-]+)(?:\.rst)?`_", text) for task, text in rows}
    index = pages_by_task()
    assert listed == {**index, "Decisions": ["decisions"]}
    assert list(listed) == list(index)


def test_every_member_that_is_referred_to_exists() -> None:
    assert {(path, match[1]) for path, match in references(MEMBER) if not exists(match[1])} == set()


def test_every_setting_that_a_page_names_exists() -> None:
    found = {
        (path, match[0]) for path, match in references(SETTING, pages_only=True) if not has_setting(*match.groups())
    }
    assert found == set()


def test_every_setting_that_a_page_of_the_dashboard_names_exists() -> None:
    named = [
        (path.name, match["section"], match["key"])
        for path in TOP.glob("meter/**/templates/*.html")
        for match in SETTING_OF_A_TEMPLATE.finditer(path.read_text(encoding="utf-8"))
    ]
    assert named
    assert [each for each in named if not has_setting(*each[1:])] == []


def test_every_command_that_a_page_names_exists() -> None:
    named = {(path, match[1]) for path, match in references(COMMAND, pages_only=True)}
    assert {each for each in named if each[1] not in commands()} == set()


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (FILE, "see ``meter/nowhere.py``"),
        (MEMBER, ":func:`~meter.sample.nothing`"),
        (SETTING, "``[bus] uri``"),
        (COMMAND, "``meter-nothing list``"),
    ],
)
def test_a_reference_to_nothing_is_seen(pattern: re.Pattern[str], text: str) -> None:
    [match] = pattern.finditer(text)
    assert not (TOP / match[0]).exists()
    if pattern is MEMBER:
        assert not exists(match[1])
    if pattern is SETTING:
        assert not has_setting(*match.groups())
    if pattern is COMMAND:
        assert match[1] not in commands()
