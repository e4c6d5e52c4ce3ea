"""docs/completeness.rst: its examples are what the API and the command return, its table of causes is that of the code."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from datetime import timedelta
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from meter.commands import completeness
from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.completeness import Options
from meter.commands.completeness import answer
from meter.commands.completeness import query_of
from meter.completeness.ledger.causes import CAUSES
from meter.completeness.ledger.causes import EXPLANATIONS
from meter.completeness_query import ReasonCode
from meter.settings.config_file import parse
from meter.testing import MemoryStore
from tests.api_client import ApiClient
from tests.api_client import message
from tests.ledger_rows import LedgerRows
from tests.store_messages import NOON
from tests.store_messages import after

PAGE = (Path(__file__).parents[3] / "docs" / "completeness.rst").read_text()
EXAMPLES = re.findall(r"\$ curl -s 'http://localhost:8777(.*?)' \| jq \.\n((?:    .*\n)+)", PAGE)
COMMANDS = re.findall(r"\$ meter-completeness (.*)\n((?:    .*\n)+)", PAGE)
LATER = NOON + timedelta(days=2)


def killed_and_started_again(store: MemoryStore) -> None:
    rows = LedgerRows()
    agent = rows.agent()
    rows.run(agent, 0, 600)
    rows.run(agent, 1800, 86100, boot="00000000-0000-0000-0000-000000000002")
    rows.metered(agent, "vm-1", project="blue")
    rows.into_memory(store)
    samples = [
        message(
            resource_id="vm-1",
            project_id="blue",
            timestamp=after(at),
            resource_metadata={"_meter": {"interval": 300}},
            message_id=str(at),
        )
        for at in range(0, 86400, 300)
        if not 600 < at < 1800
    ]
    Deferred.fromCoroutine(store.write(samples))


@pytest.mark.parametrize(("path", "example"), EXAMPLES, ids=[path for path, _ in EXAMPLES])
def test_example_is_the_response(path: str, example: str) -> None:
    api = ApiClient()
    killed_and_started_again(api.store)
    assert api(path).json == json.loads(textwrap.dedent(example))


def test_page_has_examples() -> None:
    assert (len(EXAMPLES), len(COMMANDS)) == (3, 1)


def outcome(arguments: list[str]) -> int:
    store = MemoryStore()
    killed_and_started_again(store)
    options = Options()
    options.parseOptions(arguments)
    query = query_of(options, LATER)
    statuses: list[int] = []
    closable, as_json = bool(options["closable"]), bool(options["json"])
    Deferred.fromCoroutine(answer(store, query, LATER, closable=closable, as_json=as_json)).addCallback(statuses.append)
    [status] = statuses
    return status


@pytest.mark.parametrize(("arguments", "example"), COMMANDS)
def test_example_is_the_output_of_the_command(arguments: str, example: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(shlex.split(arguments)) == EXIT_FOUND_PROBLEMS
    assert capsys.readouterr().out == textwrap.dedent(example)


def test_hours_are_final_when_the_setting_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr(completeness, "PostgresStore", lambda *_, **settings: given.update(settings))
    config = parse("[store]\nfinalize_after_seconds = 7200\nstatement_timeout_seconds = 7", "meter-collector")

    completeness.store_of(None, config, "postgresql:///meter")

    assert (given["finalize_after_seconds"], given["statement_timeout_seconds"]) == (7200, 7)


def test_complete_period_has_the_exit_status_0(capsys: pytest.CaptureFixture[str]) -> None:
    period = ["--start", "2026-11-18T13:00", "--end", "2026-11-18T15:00"]
    assert outcome([*period, "--json", "--by", "hour"]) == EXIT_OK
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["start"], row["percent"]) for row in rows] == [
        ("2026-11-18T13:00:00", 100),
        ("2026-11-18T14:00:00", 100),
    ]
    assert outcome([*period, "--closable"]) == EXIT_OK
    assert capsys.readouterr().out == "the period may be closed\n"


def test_reasons_against_closing_are_written_as_text_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    period = ["--start", "2026-11-18T12:00", "--end", "2026-11-18T13:00", "--closable"]
    assert outcome(period) == EXIT_FOUND_PROBLEMS
    assert "3 samples are missing (agent not running)" in capsys.readouterr().out
    assert outcome([*period, "--json"]) == EXIT_FOUND_PROBLEMS
    assert json.loads(capsys.readouterr().out)["reasons"][0]["samples"] == 3


@pytest.mark.parametrize("as_json", [False, True])
def test_gaps_that_are_not_written_are_said(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(completeness, "MAX_GAPS", 0)
    period = ["--start", "2026-11-18T12:00", "--end", "2026-11-18T13:00"]
    assert outcome([*period, *(["--json"] if as_json else [])]) == EXIT_FOUND_PROBLEMS
    last = capsys.readouterr().out.splitlines()[-1]
    text = "only the first 0 gaps are written: narrow the period, or what is selected"
    assert (json.loads(last) == {"incomplete": "gaps", "text": text}) if as_json else (last == text)


def test_empty_period_is_an_error() -> None:
    with pytest.raises(CommandError, match="--start must be before --end"):
        outcome(["--start", "2026-11-18", "--end", "2026-11-17"])


def rows_of_table(header: str) -> dict[str, str]:
    """The first two columns of the table with this header."""
    [table] = re.findall(rf"\n{header} +meaning\n=+  =+\n(.*?)\n=+  =+\n", PAGE, re.DOTALL)
    rows: dict[str, str] = {}
    name = ""
    for line in table.splitlines():
        first, _, text = line.partition("  ") if not line.startswith(" ") else ("", "", line)
        name = first.strip("`") or name
        rows[name] = f"{rows.get(name, '')} {text.strip()}".strip()
    return rows


def test_table_of_causes_is_that_of_the_code() -> None:
    assert rows_of_table("cause") == {cause: EXPLANATIONS[cause] for cause in CAUSES}


def test_table_of_reasons_has_all_codes() -> None:
    assert set(rows_of_table("code")) == set(ReasonCode.__args__)
