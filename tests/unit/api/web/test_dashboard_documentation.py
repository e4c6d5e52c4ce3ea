"""docs/dashboard.rst has every page that a person opens."""

from __future__ import annotations

from pathlib import Path

import pytest

from meter.api.web.pages import PAGES

PAGE = (Path(__file__).parents[4] / "docs/dashboard.rst").read_text()

OTHERS = {"/sign-in", "/sign-out", "/favicon.ico"}
"""Sign in and out are described as a whole under *Sign in*; the icon is no page."""


@pytest.mark.parametrize("path", sorted({each.path for each in PAGES if "/static" not in each.path} - OTHERS))
def test_every_page_is_documented(path: str) -> None:
    assert f"``{path}``" in PAGE or f"``{path}?" in PAGE
