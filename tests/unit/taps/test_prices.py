"""The price directory of the daemons as they are composed."""

from __future__ import annotations

from pathlib import Path

import pytest

from meter.rating.book.watched_directory import WatchedPriceDirectory
from meter.settings.config_file import parse
from meter.taps import api
from meter.taps import daemon as composing
from meter.taps.parts.prices import add_prices
from tests.unit.taps.test_metrics import CONFIGURATION


def composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rating: str) -> composing.Daemon:
    monkeypatch.setattr(composing, "use_monotonic_clock", lambda _: None)
    text = CONFIGURATION.format(directory=tmp_path).partition("[rating]")[0] + rating
    daemon = composing.Daemon("meter-api", parse(text, "meter-api", "test"), [], only_checking=True)
    api.compose(daemon)
    return daemon


def test_daemon_without_a_price_directory_watches_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = composed(tmp_path, monkeypatch, "")
    assert add_prices(daemon) is None
    assert "price directory" not in [each.name for each in daemon.readinesses()]


def test_all_parts_of_a_daemon_share_one_price_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = composed(tmp_path, monkeypatch, f'[rating]\nprice_directory = "{tmp_path}"\n')
    watched = add_prices(daemon)
    assert isinstance(watched, WatchedPriceDirectory)
    assert add_prices(daemon) is watched
    [state] = [each for each in daemon.readinesses() if each.name == "price directory"]
    assert not state.needed


def test_check_warns_of_a_faulty_price_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.toml").write_text("[[bok]]\n")
    daemon = composed(tmp_path, monkeypatch, f'[rating]\nprice_directory = "{tmp_path}"\n')
    assert "[rating] price_directory: a.toml:1: unknown table [[bok]]; did you mean book?" in daemon.warnings
    assert daemon.problems == []
