"""Full garbage collections of the daemons as they are composed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from meter.daemon.full_collections import FullCollections
from meter.settings.config_file import parse
from meter.taps import api
from meter.taps import collector
from meter.taps import daemon as composing
from meter.taps import single
from tests.unit.taps.test_metrics import CONFIGURATION


@pytest.mark.parametrize(
    ("name", "compose", "parts"),
    [("meter-api", api.compose, 1), ("meter-collector", collector.compose, 1), ("meter", single.compose, 2)],
)
def test_full_collections_are_postponed_by_every_part_that_they_would_interrupt(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    compose: Callable[[composing.Daemon], None],
    parts: int,
) -> None:
    monkeypatch.setattr(composing, "use_monotonic_clock", lambda _: None)
    daemon = composing.Daemon(
        name, parse(CONFIGURATION.format(directory=tmp_path), name, "test"), [], only_checking=True
    )
    compose(daemon)
    [collections] = [each for each in daemon.root if isinstance(each, FullCollections)]
    assert len(daemon.busy) == parts
    assert not collections._busy()
    for number in range(parts):
        busy = daemon.busy[number]
        daemon.busy[number] = lambda: True
        assert collections._busy()
        daemon.busy[number] = busy
