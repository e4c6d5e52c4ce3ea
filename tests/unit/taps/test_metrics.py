"""The metrics of the daemons as they are composed, and the page that documents them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from meter.plugins.registry import CENTRAL
from meter.plugins.registry import COMPUTE
from meter.plugins.registry import LISTENER
from meter.plugins.registry import Kind
from meter.settings.config_file import parse
from meter.taps import api
from meter.taps import central
from meter.taps import collector
from meter.taps import compute
from meter.taps import daemon as composing
from meter.taps import single
from meter.taps.parts.diagnostics import add_diagnostics

PAGE = Path(__file__).parents[3] / "docs" / "operating.rst"
DAEMONS: dict[str, tuple[list[Kind], Callable[[composing.Daemon], None]]] = {
    "meter-api": ([], api.compose),
    "meter-central": ([CENTRAL], central.compose),
    "meter-collector": ([LISTENER], collector.compose),
    "meter-compute": ([COMPUTE], compute.compose),
    "meter": ([COMPUTE, CENTRAL, LISTENER], single.compose),
}
CONFIGURATION = """
[meter]
state_dir = "{directory}"
[compute]
libvirt_uri = "test:///default"
[store]
dsn = "postgresql:///nowhere"
"""
RATING = """
[rating]
price_directory = "/nowhere"
"""


@pytest.fixture
def compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], CollectorRegistry]:
    """Compose a daemon, as for ``--check``, and return its registry; nothing of it starts."""
    monkeypatch.setattr(composing, "use_monotonic_clock", lambda _: None)

    def composed(name: str) -> CollectorRegistry:
        kinds, add_parts = DAEMONS[name]
        config = parse(CONFIGURATION.format(directory=tmp_path) + RATING, name, "test")
        daemon = composing.Daemon(name, config, kinds, only_checking=True)
        add_diagnostics(daemon)
        add_parts(daemon)
        assert daemon.problems == []
        return daemon.registry

    return composed


def exported(registry: CollectorRegistry) -> set[str]:
    """Return the names of metrics as Prometheus has them."""
    suffixes = {"counter": "_total", "info": "_info"}
    return {family.name + suffixes.get(family.type, "") for family in registry.collect()}


def documented(page: str) -> set[str]:
    """Return the names in the first column of the table; in ``a_b``, ``…_c`` the second is ``a_c``."""
    names = set()
    for first, suffix in re.findall(r"^    ``(meter_\w+)``(?:, ``…(_\w+)``)?", page, re.MULTILINE):
        names |= {first, first.rpartition("_")[0] + suffix} if suffix else {first}
    return names


def test_the_page_has_every_metric_of_the_daemons_and_no_other(compose: Callable[[str], CollectorRegistry]) -> None:
    found = {name for daemon in DAEMONS for name in exported(compose(daemon))}
    page = documented(PAGE.read_text())
    assert (found - page, page - found) == (set(), set())


@pytest.mark.parametrize("name", ["meter-compute", "meter-central", "meter"])
def test_each_daemon_that_polls_tells_how_long_its_spool_waits(
    compose: Callable[[str], CollectorRegistry], name: str
) -> None:
    assert compose(name).get_sample_value("meter_spool_oldest_seconds") == 0


@pytest.mark.parametrize("name", ["meter-collector", "meter"])
def test_each_daemon_that_collects_counts_the_deliveries_of_its_queue(
    compose: Callable[[str], CollectorRegistry], name: str
) -> None:
    assert compose(name).get_sample_value("meter_deliveries_total", {"queue": "meter.metering"}) == 0
