"""Files of others are served exactly as their authors published them, with their licence beside them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from meter.api.web.static_files import static_files

UPLOT = {
    "uplot.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uplot.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uplot-LICENSE.txt": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}
"""SHA-256 of dist/uPlot.iife.min.js, dist/uPlot.min.css and LICENSE in uplot-1.6.32.tgz of registry.npmjs.org."""


@pytest.mark.parametrize("name", UPLOT)
def test_a_vendored_file_is_as_it_was_published(name: str) -> None:
    assert hashlib.sha256(static_files()[name].content).hexdigest() == UPLOT[name]


def test_a_vendored_script_names_its_version() -> None:
    assert b"uPlot (v1.6.32)" in static_files()["uplot.js"].content[:100]


def test_the_accessibility_checker_of_the_browser_tests_is_as_it_was_published() -> None:
    folder = Path(__file__).parents[3] / "browser" / "axe"
    sha256, name = (folder / "SHA256SUMS").read_text().split()
    assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
