"""``meter-rate quote``, with the examples of docs/prices.rst."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python import usage

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.rate.quote import QuoteOptions
from meter.commands.rate.quote import work
from meter.commands.rate.subcommand import RateContext

TOP = Path(__file__).parents[4]
PAGE = (TOP / "docs/prices.rst").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"   \$ meter-rate quote (.*)\n((?:   (?!\$).*\n)+)", PAGE)


def run(*words: str, prices: Path = TOP / "etc/prices.d") -> int:
    options = QuoteOptions()
    options.parseOptions(words)
    clock = Clock()
    clock.advance(1_795_000_000)  # in November 2026
    done: list[object] = []
    context = RateContext(clock, None, str(prices))
    Deferred.fromCoroutine(work(context, options)).addCallbacks(done.append, lambda failure: done.append(failure.value))
    [result] = done
    if isinstance(result, Exception):
        raise result
    assert isinstance(result, int)
    return result


def test_page_has_examples() -> None:
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize(("words", "output"), EXAMPLES)
def test_example_of_the_page_is_what_the_command_writes(
    words: str, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*shlex.split(words)) == EXIT_OK
    assert capsys.readouterr().out == textwrap.dedent(output)


def test_one_wish_can_be_written_with_options(capsys: pytest.CaptureFixture[str]) -> None:
    run("--sku", "instance", "--flavor", "m1.small", "--count", "2", "--hours", "10")
    with_options = capsys.readouterr().out
    run("instance,flavor=m1.small,count=2,hours=10")
    assert capsys.readouterr().out == with_options


def test_json_has_lines_and_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("instance,flavor=m1.small,hours=10", "instance,flavor=huge,hours=1", "--json") == EXIT_FOUND_PROBLEMS
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["kind"] for each in objects] == ["usage", "tax", "unpriced", "total"]
    assert objects[-1] == {
        "kind": "total",
        "book": "standard",
        "month": "2026-11",
        "currency": "EUR",
        "net": "0.13",
        "tax": "0.03",
        "total": "0.16",
    }


@pytest.mark.parametrize(
    "words",
    [[], ["--sku", "instance", "volume,size=1"], ["--flavor", "x", "instance"], ["--hours", "1", "instance"]],
)
def test_incomplete_or_contradictory_command_line_is_a_usage_error(words: list[str]) -> None:
    with pytest.raises(usage.UsageError):
        run(*words)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["instance,flavor"], "write NAME=VALUE"),
        (["instance,hours=1,hours=2"], "stands twice"),
        (["instance,hours=1h"], "must be a decimal"),
        (["instance,hours=-1"], "must not be negative"),
        (["instance,count=x"], "must be a whole number"),
        (["instance,count=²"], "must be a whole number"),
        (["instance,count=99999999999999999999"], "count must be"),
        (["instance", "--account", "acne"], "did you mean acme"),
        (["instance", "--book", "x"], "unknown book 'x'"),
        (["instance", "--month", "2026"], "not a billing period"),
        (["instans"], "did you mean instance"),
    ],
)
def test_wrong_wish_is_refused_with_what_would_be_right(words: list[str], problem: str) -> None:
    with pytest.raises(CommandError, match=problem):
        run(*words)


@pytest.mark.parametrize(("month", "name"), [("2026-10", "japan"), ("2026-12", "standard")])
def test_account_is_that_of_the_stated_month(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], month: str, name: str
) -> None:
    (tmp_path / "prices.toml").write_text(
        """
[[book]]
name = "standard"
currency = "EUR"
timezone = "Europe/Paris"
issuer = "x"
default = true
[[book]]
name = "japan"
currency = "JPY"
timezone = "Asia/Tokyo"
issuer = "x"
[[sku]]
id = "vm"
usage = "exists"
resource_kind = "instance"
unit = "Hours"
[[price]]
book = ["standard", "japan"]
sku = "vm"
price = "1"
[[account]]
id = "kyoto"
book = "japan"
projects = [{id = "p1", until = 2026-12-01}]
""",
        encoding="utf-8",
    )
    assert run("vm,hours=1", "--project", "p1", "--month", month, prices=tmp_path) == EXIT_OK
    assert f"by the book {name}:" in capsys.readouterr().out
