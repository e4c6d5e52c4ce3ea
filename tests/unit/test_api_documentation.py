"""What docs/api.rst shows is what the API answers."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import pytest

from meter.api.declarations import OPERATIONS
from meter.api.declarations import Operation
from tests.asking import Asking

PAGE = (Path(__file__).parents[2] / "docs" / "api.rst").read_text()
EXAMPLES = re.findall(r"\$ curl -s 'http://localhost:8777(.*?)' \| jq \.\n((?:   .*\n)+)", PAGE)


@pytest.fixture(scope="module")
def ask() -> Asking:
    return Asking()


@pytest.mark.parametrize(("path", "shown"), EXAMPLES, ids=[path for path, _ in EXAMPLES])
def test_an_example_shows_what_is_answered(ask: Asking, path: str, shown: str) -> None:
    assert json.loads(textwrap.dedent(shown)) == ask(path, headers={"Host": "localhost:8777"}).json


@pytest.mark.parametrize("operation", OPERATIONS, ids=[operation.name for operation in OPERATIONS])
def test_every_operation_and_parameter_is_described_and_shown(operation: Operation) -> None:
    path = operation.path
    assert f"``GET {path}``" in PAGE
    pattern = re.sub(r"\\{\w+\\}", ".+", re.escape(path))
    assert any(re.fullmatch(pattern, shown.partition("?")[0]) for shown, _ in EXAMPLES)
    for parameter in operation.parameters:
        names = [f"{parameter.name}.{member}" for member in parameter.members if member in ("func", "param")]
        assert all(f"``{name}``" in PAGE for name in names or [parameter.name])
