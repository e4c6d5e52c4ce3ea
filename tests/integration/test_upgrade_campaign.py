"""How the upgrade campaign compares answers, chooses the earlier version, and reads the commands of docs/upgrade.rst."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from meter.store.migrations import migrations
from tests.upgrade import versions
from tests.upgrade.backups import missing_and_added
from tests.upgrade.freezing import freeze_between_transactions
from tests.upgrade.page import block
from tests.upgrade.page import blocks
from tests.upgrade.questions import differences
from tests.upgrade.questions import unanswered

GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose commits have the first steps of the schema, all but the last of them, all, and another one instead of the last."""
    monkeypatch.setattr(versions, "TOP", tmp_path)
    folder = tmp_path / versions.STEPS
    folder.mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)

    def commit(name: str) -> None:
        subprocess.run(["git", "-C", tmp_path, "add", "--all"], check=True)
        subprocess.run([*GIT, "-C", tmp_path, "commit", "--quiet", "--message", name], check=True)
        subprocess.run(["git", "-C", tmp_path, "tag", name], check=True)

    *earlier, last = [f"{step.number:04}_{step.name}.sql" for step in migrations()]
    for name in earlier[:3]:
        (folder / name).touch()
    commit("three")
    for name in earlier:
        (folder / name).touch()
    commit("earlier")
    (folder / f"{last[:5]}flying_cars.sql").touch()
    commit("other")
    (folder / f"{last[:5]}flying_cars.sql").unlink()
    (folder / last).touch()
    commit("present")
    return tmp_path


def test_earlier_version_is_the_last_one_that_this_one_can_upgrade(history: Path) -> None:
    assert versions.git("rev-parse", versions.last_with_earlier_schema()) == versions.git("rev-parse", "earlier")
    assert [versions.schema_of(name) for name in ("three", "earlier", "present")] == [
        3,
        len(migrations()) - 1,
        len(migrations()),
    ]
    with pytest.raises(versions.NoCheckout, match="the schema of other is not an earlier version"):
        versions.schema_of("other")


def test_source_without_its_history_says_that_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "TOP", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(versions.NoCheckout, match="needs a git checkout with its history"):
        versions.last_with_earlier_schema()


def test_answers_that_differ_in_the_last_digits_are_told_apart_from_other_answers() -> None:
    before = {
        "same": b'{"a": 0.3}',
        "digits": b'[{"a": 0.3}]',
        "number": b'{"a": 0.3}',
        "text": b'{"a": "0.3"}',
        "lost": b"[1]",
    }
    after = {
        "same": b'{"a": 0.3}',
        "digits": b'[{"a": 0.30000000000000004}]',
        "number": b'{"a": 0.3001}',
        "text": b'{"a": "0.30000000000000004"}',
        "lost": b"503: away",
    }

    wrong, digits = differences(before, after)

    assert [each.partition("\n")[0] for each in wrong] == ["number", "text", "lost"]
    assert digits == ["digits"]
    assert [each.partition(":")[0] for each in unanswered(after)] == ["lost"]


def test_restored_samples_are_compared_both_ways_and_by_number() -> None:
    one, two, three = ("r1", "m"), ("r2", "m"), ("r3", "m")
    assert missing_and_added(Counter([one, two]), Counter([one, one, three])) == [
        "not restored: r2/m",
        "stored after the point in time: r1/m",
        "stored after the point in time: r3/m",
    ]


def test_commands_of_the_page_are_found() -> None:
    assert [block(each).split()[0] for each in ("pg_dump", "pg_restore", "meter-verify")] == [
        "pg_dump",
        "pg_restore",
        "meter-verify",
    ]
    assert block("pgbackrest --stanza=meter stanza-create").count("pgbackrest") == 2
    assert len(blocks("sh")) == 7


def test_process_is_frozen_when_the_server_has_done_what_it_asked_and_no_transaction_waits_for_it(monkeypatch):
    """The first time it is stopped between two statements of a transaction, the second time while one ends its transaction."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        port = client.getsockname()[1]
        answers = [[(port, False)], [(port, True)], [(port, False)], [(port + 1, True)]]
        sent = []

        freeze_between_transactions(os.getpid(), sent.append, lambda _: answers.pop(0))

    assert sent == [signal.SIGSTOP, signal.SIGCONT, signal.SIGSTOP]
    assert answers == []
