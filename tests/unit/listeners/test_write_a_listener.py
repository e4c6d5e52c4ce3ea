"""The code in docs/write-a-listener.rst works."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
from msgspec.structs import replace
from zope.interface.verify import verifyObject

from meter.interfaces import IListener

PAGE = Path(__file__).parents[3] / "docs" / "write-a-listener.rst"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The page's code, run from top to bottom as one module."""
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", PAGE.read_text(), flags=re.MULTILINE)
    assert len(blocks) == 2
    module = ModuleType("booking_metering")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile("".join(textwrap.dedent(block) for block in blocks), str(PAGE), "exec"), vars(module))
    return module


def test_documented_listener_makes_its_sample(page: ModuleType) -> None:
    assert verifyObject(IListener, page.booking_listener)
    assert page.sample.resource_metadata == {"lease_name": "night"}


def test_documented_listener_reports_a_bad_value(page: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"payload\.hours must be a whole number, not 'many'"):
        list(page.booking_listener.samples(replace(page.notification, payload={"id": "x", "hours": "many"})))
