"""Nothing tells users to install what is called ``meter`` on the package index: that belongs to somebody else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOLDERS = ("benchmarks", "docs", "etc", "meter", "newsfragments", "tests")
EXTRAS = "|".join(PROJECT["optional-dependencies"])

OF_ANOTHER = re.compile(
    rf"""(?<![\w-])meter\[(?:{EXTRAS})[],]  # an extra
    |pip\ (?:install|download|uninstall|show)\b[^\n`;&|]*?\s['"]?meter(?![\w./-])  # by its name alone
    """,
    re.VERBOSE,
)


def texts() -> dict[str, str]:
    """Every text of the project but for this one, by its path."""
    paths = [
        path for folder in FOLDERS for path in sorted((TOP / folder).rglob("*")) if "__pycache__" not in path.parts
    ]
    paths += [path for path in TOP.iterdir() if not path.name.startswith(".") and path.name != "var"]
    return {
        path.relative_to(TOP).as_posix(): path.read_text(encoding="utf-8", errors="replace")
        for path in paths
        if path.is_file() and path != Path(__file__).resolve()
    }


def test_everything_names_the_distribution_by_its_own_name() -> None:
    found = [(path, match[0]) for path, text in texts().items() for match in OF_ANOTHER.finditer(text)]
    assert found == []


def test_the_extra_of_all_extras_is_of_the_same_distribution() -> None:
    name = PROJECT["name"]
    assert name != "meter"
    assert [each.partition("[")[0] for each in PROJECT["optional-dependencies"]["all"]] == [name]


@pytest.mark.parametrize(
    "text",
    [
        "pip install 'meter[compute]'",
        "pip install meter",
        "/opt/meter/bin/pip install --upgrade 'meter'",
        "the extra meter[all,focus]",
        "pip install 'meter==1.0'",
    ],
)
def test_the_name_of_another_distribution_is_found(text: str) -> None:
    assert OF_ANOTHER.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "pip install 'meter-cloud[compute]'",
        "pip install /opt/meter/dist/x.whl",
        "key = of_meter[0].key",
        'meter["all"]',
        "pip install meter-cloud; then twistd meter",
        "/opt/meter/bin/pip install meter-cloud",
    ],
)
def test_the_name_of_this_distribution_and_of_other_things_is_not_found(text: str) -> None:
    assert not OF_ANOTHER.search(text)
