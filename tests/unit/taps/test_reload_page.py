"""What the page says about reloading is what the parts of the daemons have registered."""

from __future__ import annotations

import re
from collections import defaultdict
from fnmatch import fnmatchcase
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
[rating]
price_directory = "/nowhere"
[openstack.auth]
auth_url = "https://keystone.example.org/v3"
username = "meter"
password = "x"
project_name = "service"
[api.auth]
mode = "{2}"
keystone = {{auth_url = "https://keystone.example.org/v3", password = "x"}}
[api.tls]
cert_file = "{0}"
key_file = "{1}"
[status.tls]
cert_file = "{0}"
key_file = "{1}"
"""


def documented(page: str) -> set[str]:
    """Return the settings in the first column of the table, as parts register them."""
    section = page.partition("\nReload\n------\n")[2].partition("settings that need a restart")[0]
    found = set()
    for group, name in re.findall(r"^``\[([\w.]+)\]`?`?(?: (\w+)``|, all)?", section, re.MULTILINE):
        if group.endswith(".NAME"):
            found.add(f"{group.removesuffix('.NAME')}.*")
        else:
            found.add(f"{group}.{name or '*'}")
    return found


def needing_a_restart(page: str) -> dict[str, set[str]]:
    """Return the settings in the table of those that need a restart, by section; ``*`` stands for all of a section."""
    rows = page.partition("settings that need a restart\n")[2].partition("``meter_configuration_settings_waiting``")[0]
    found = re.findall(r"^``\[([\w.]+)\]`` +(.+)$", rows, re.MULTILINE)
    return {section: {"*"} if names == "all" else set(re.findall(r"``(\w+)``", names)) for section, names in found}


def registered(name: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the settings that the parts of a daemon can change while it runs."""
    monkeypatch.setattr(composing, "use_monotonic_clock", lambda _: None)
    issued = Authority(directory).issue("api", "localhost")
    kinds, add_parts = DAEMONS[name]
    found: set[str] = set()
    for mode in ("tokens", "keystone"):
        text = CONFIGURATION.format(directory=directory) + MORE.format(issued.cert_file, issued.key_file, mode)
        daemon = composing.Daemon(name, parse(text, name, "test"), kinds, only_checking=True)
        add_diagnostics(daemon)
        add_parts(daemon)
        add_reloads(daemon)
        assert daemon.problems == []
        found |= set(daemon.reload.settings)
    return found


def test_page_has_every_setting_that_changes_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = set().union(*(registered(name, tmp_path, monkeypatch) for name in DAEMONS))
    page = documented(PAGE.read_text())
    assert (found - page, page - found) == (set(), set())


def test_page_has_every_setting_that_needs_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = set().union(*(registered(name, tmp_path, monkeypatch) for name in DAEMONS))
    needed: dict[str, set[str]] = defaultdict(set)
    changed: set[str] = set()
    for section, *key in (each for each in settings_of(Config()) if each[0] not in ("pollsters", "listeners")):
        section, name = ".".join((section, *key[:-1])), key[-1]
        if any(fnmatchcase(f"{section}.{name}", pattern) for pattern in found):
            changed.add(section)
        else:
            needed[section].add(name)
    expected = {section: names if section in changed else {"*"} for section, names in needed.items()}
    assert needing_a_restart(PAGE.read_text()) == expected


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
