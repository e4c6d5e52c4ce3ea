"""``meter-rate import-cloudkitty`` with the answers saved in a file."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC
from datetime import datetime
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python import usage
from twisted.python.failure import Failure

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.rate.import_cloudkitty import ImportCloudkittyOptions
from meter.commands.rate.import_cloudkitty import work
from meter.commands.rate.subcommand import RateContext
from meter.rating.book.price_directory import read_directory

RULES = Path(__file__).parents[3] / "data/rating/cloudkitty-hashmap.json"
PAGE = Path(__file__).parents[4] / "docs/coming-from.rst"


def run(*words: str) -> int:
    options = ImportCloudkittyOptions()
    options.parseOptions(words)
    clock = Clock()
    clock.advance(datetime(2026, 12, 1, tzinfo=UTC).timestamp())
    done: list[int | Failure] = []
    Deferred.fromCoroutine(work(RateContext(clock), options)).addBoth(done.append)
    if isinstance(done[0], Failure):
        done[0].raiseException()
    assert isinstance(done[0], int)
    return done[0]


def test_price_book_is_written_and_what_it_lacks_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "prices" / "cloudkitty.toml"
    output.parent.mkdir()
    options = ("--currency", "EUR", "--timezone", "Europe/Paris", "--issuer", "Example", "--rules", str(RULES))
    assert run(*options, str(output)) == EXIT_FOUND_PROBLEMS
    written = capsys.readouterr().out
    assert "SKU instance: 8 prices\n" in written
    assert "service image.size is left out: it depends on the quantity of one period" in written
    assert written.endswith(f"{output} has 6 SKUs; 2 services or groups are left out\n")
    [book] = read_directory(output.parent).books.values()
    assert (book.currency, book.timezone.key, book.issuer) == ("EUR", "Europe/Paris", "Example")
    before = output.read_bytes()
    with pytest.raises(CommandError, match="exists already"):
        run(*options, str(output))
    assert output.read_bytes() == before


def test_page_shows_what_the_command_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("--currency", "EUR", "--rules", str(RULES), str(tmp_path / "cloudkitty.toml"))
    written = capsys.readouterr().out.replace(str(tmp_path), "prices.d")
    assert "".join(f"    {line}\n" for line in written.splitlines()) in PAGE.read_text()


def test_json_has_an_object_for_each_sku_and_each_group_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--currency", "EUR", "--json", "--rules", str(RULES), str(tmp_path / "a.toml"))
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"sku": "ip.floating", "prices": 1} in objects
    assert [each["left_out"] for each in objects if "left_out" in each] == ["acme.backup.hours", "image.size"]


def test_exit_status_is_0_if_everything_is_carried(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"services": []}))
    assert run("--currency", "EUR", "--rules", str(rules), str(tmp_path / "a.toml")) == EXIT_OK


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", r"rules\.json:1 is not JSON"),
        (" ", r"rules\.json is empty"),
        ("[]", r"rules\.json: these are not the rules of HashMap: the document: should be an object$"),
        ("{}", "services: is missing$"),
        ('{"services": 1}', "services: should be an array$"),
        (None, "No such file"),
    ],
)
def test_file_that_has_no_rules_is_refused_and_nothing_written(
    tmp_path: Path, content: str | None, problem: str
) -> None:
    rules = tmp_path / "rules.json"
    if content is not None:
        rules.write_text(content)
    with pytest.raises(CommandError, match=problem):
        run("--currency", "EUR", "--rules", str(rules), str(tmp_path / "a.toml"))
    assert not (tmp_path / "a.toml").exists()


def test_rules_with_control_characters_are_left_out_and_the_others_carried(tmp_path: Path) -> None:
    document = json.loads(RULES.read_text())
    instance = next(each["service_id"] for each in document["services"] if each["name"] == "instance")
    field = next(each["field_id"] for each in document["fields"] if each["service_id"] == instance)
    for each in document["mappings"]:
        if each["field_id"] == field:
            each["value"] += '"\n[[book]]\n\x1b'
    rules, output = tmp_path / "rules.json", tmp_path / "a.toml"
    rules.write_text(json.dumps(document))
    assert run("--currency", "EUR", "--rules", str(rules), str(output)) == EXIT_FOUND_PROBLEMS
    assert "has the control character U+000A" in output.read_text()
    assert {each["id"] for each in tomllib.loads(output.read_text())["sku"]} >= {"ip.floating", "volume.size"}


def test_currency_that_does_not_exist_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"(?s)the price book would be wrong:.*currency"):
        run("--currency", "euro", "--rules", str(RULES), str(tmp_path / "a.toml"))
    assert not (tmp_path / "a.toml").exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "OUTPUT.toml"),
        (("prices",), "OUTPUT.toml"),
        (("a.toml",), "--currency"),
        (("--currency", "EUR", "--rules", "x", "--url", "http://c", "a.toml"), "--rules reads a file"),
        (("--currency", "EUR", "--url", "c", "a.toml"), "must begin with http"),
        (("--currency", "EUR", "--no-auth", "a.toml"), "needs --url"),
        (("--currency", "EUR", "--period", "0", "a.toml"), "--period must be a whole number"),
        (("--currency", "EUR", "--timeout", "long", "a.toml"), "--timeout must be a whole number"),
    ],
)
def test_wrong_command_lines_say_what_is_right(words: tuple[str, ...], problem: str) -> None:
    with pytest.raises(usage.UsageError, match=problem):
        ImportCloudkittyOptions().parseOptions(words)
