"""What the page says about reloading is what the parts of the daemons have registered."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meter.settings import Config
from meter.settings.config_file import DAEMONS as NAMES
from meter.settings.config_file import parse
from meter.settings.daemon_sections import FOREIGN_SECTIONS
from meter.settings.differences import settings_of
from meter.taps import daemon as composing
from meter.taps.parts.diagnostics import add_diagnostics
from meter.taps.parts.reloads import add_reloads
from tests.servers.certificates import Authority
from tests.unit.taps.test_metrics import CONFIGURATION
from tests.unit.taps.test_metrics import DAEMONS

PAGE = Path(__file__).parents[3] / "docs" / "operating.rst"

MORE = """
[signing]
key = "a key that is only for this test"
[api.auth]
mode = "tokens"
[api.tls]
cert_file = "{0}"
key_file = "{1}"
[status.tls]
cert_file = "{0}"
key_file = "{1}"
"""


def documented(page: str) -> set[str]:
    """Return the settings in the first column of the table, as parts register them."""
    section = page.partition("\nReload\n------\n")[2].partition("\nAlerts\n------\n")[0]
    found = set()
    for group, name in re.findall(r"^``\[([\w.]+)\]`?`?(?: (\w+)``|, all)?", section, re.MULTILINE):
        if group.endswith(".NAME"):
            found.add(f"{group.removesuffix('.NAME')}.*")
        else:
            found.add(f"{group}.{name or '*'}")
    return found


def registered(name: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the settings that the parts of a daemon can change while it runs."""
    monkeypatch.setattr(composing, "use_monotonic_clock", lambda _: None)
    issued = Authority(directory).issue("api", "localhost")
    text = CONFIGURATION.format(directory=directory) + MORE.format(issued.cert_file, issued.key_file)
    kinds, add_parts = DAEMONS[name]
    daemon = composing.Daemon(name, parse(text, name, "test"), kinds, only_checking=True)
    add_diagnostics(daemon)
    add_parts(daemon)
    add_reloads(daemon)
    assert daemon.problems == []
    return set(daemon.reload.settings)


def test_page_has_every_setting_that_changes_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = set().union(*(registered(name, tmp_path, monkeypatch) for name in DAEMONS))
    page = documented(PAGE.read_text())
    assert (found - page, page - found) == (set(), set())


def test_every_registered_setting_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {".".join(each) for each in settings_of(Config())}
    for name in DAEMONS:
        for setting in registered(name, tmp_path, monkeypatch):
            plugins = setting in ("pollsters.*", "listeners.*")
            prefix = setting.removesuffix("*")
            assert plugins or any(each == setting or each.startswith(prefix) for each in known), setting


def test_sections_of_other_daemons_exist() -> None:
    assert set(FOREIGN_SECTIONS) == set(NAMES)
    for sections in FOREIGN_SECTIONS.values():
        assert sections <= set(Config.model_fields)
