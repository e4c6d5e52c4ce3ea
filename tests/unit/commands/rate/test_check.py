"""``meter-rate check``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.rate.check import CheckOptions
from meter.commands.rate.check import work
from meter.commands.rate.subcommand import RateContext

BOOK = '[[book]]\nname = "a"\ncurrency = "EUR"\ntimezone = "UTC"\nissuer = "x"\n'
BUDGET = '[[budget]]\nid = "b"\nproject = "p"\namount = 1\nwebhooks = ["pager"]\n'


def run(directory: Path, *words: str, config: str | None = None) -> int:
    options = CheckOptions()
    options.parseOptions(words)
    done: list[int] = []
    Deferred.fromCoroutine(work(RateContext(Clock(), config, str(directory)), options)).addCallback(done.append)
    return done[0]


def test_good_directory_is_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text(BOOK)
    assert run(tmp_path) == EXIT_OK
    assert capsys.readouterr().out.startswith("book a: EUR, UTC, 0 SKUs, 0 prices, 0 accounts, default, sha256 ")
    assert run(tmp_path, "--json") == EXIT_OK
    assert json.loads(capsys.readouterr().out)["currency"] == "EUR"


def test_all_problems_are_written_and_the_exit_status_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.toml").write_text(BOOK.replace("EUR", "eur").replace("UTC", "utc"))
    assert run(tmp_path) == EXIT_FOUND_PROBLEMS
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("a.toml:3: [[book]] currency")
    assert second.startswith("a.toml:4: [[book]] timezone")
    assert run(tmp_path, "--json") == EXIT_FOUND_PROBLEMS
    problem = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (problem["level"], problem["file"], problem["line"]) == ("error", "a.toml", 3)


def test_webhooks_are_checked_if_there_is_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text(BOOK + BUDGET)
    config = tmp_path / "meter.conf"
    config.write_text(f'[meter]\nstate_dir = "{tmp_path}"\n')
    assert run(tmp_path) == EXIT_OK
    assert run(tmp_path, config=str(config)) == EXIT_FOUND_PROBLEMS
    assert "unknown webhook 'pager'" in capsys.readouterr().out


def test_what_is_only_suspicious_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sku = (
        '[[sku]]\nid = "x"\nusage = "increase"\nmeter = "network.outgoing.byte"\nunit = "GB"\nfactor = "1/1000000000"\n'
    )
    (tmp_path / "a.toml").write_text(BOOK + sku + '[[price]]\nsku = "x"\nprice = "1"\n')
    assert run(tmp_path) == EXIT_OK
    assert capsys.readouterr().out.startswith(
        "a.toml:9: warning: [[sku]] no plugin of this host makes the meter network.outgoing.byte; did you mean"
    )


def test_example_of_the_project_is_not_suspicious(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Path(__file__).parents[4] / "etc/prices.d") == EXIT_OK
    assert "warning" not in capsys.readouterr().out
