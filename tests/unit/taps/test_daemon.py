"""What a daemon as it is composed says of its state directory, its key and its ports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from meter.plugins.registry import CENTRAL
from meter.settings.config_file import parse
from meter.taps import central
from meter.taps import daemon as composing
from meter.taps.parts.diagnostics import add_diagnostics

TEXT = '[meter]\nstate_dir = "{}"\n[bus]\nurl = "amqp://h/"\n[store]\ndsn = "postgresql://h/d"\n'


def composed(text: str, monkeypatch: pytest.MonkeyPatch, *, only_checking: bool = True) -> composing.Daemon:
    monkeypatch.setattr(composing, "use_monotonic_clock", lambda _: None)
    return composing.Daemon(
        "meter-central", parse(text, "meter-central", "test"), [CENTRAL], only_checking=only_checking
    )


@pytest.mark.parametrize(("place", "problem"), [("file/state", "file is not a directory"), ("new/state", "")])
def test_check_names_a_state_directory_in_which_no_file_can_be_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, problem: str
) -> None:
    (tmp_path / "file").write_text("")
    daemon = composed(TEXT.format(tmp_path / place) + '[signing]\nkey = "k"\n', monkeypatch)
    central.compose(daemon)
    assert daemon.problems == ([f"[meter] state_dir: {tmp_path}/{problem}"] if problem else [])
    assert not (tmp_path / place).exists()


def test_generated_signing_key_is_logged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = TEXT.format(tmp_path)
    logged: list[str] = []

    def observer(event: dict[str, Any]) -> None:
        if "signing key" in str(event["log_format"]):
            logged.append(str(event.get("path")))

    globalLogPublisher.addObserver(observer)
    try:
        assert composed(text, monkeypatch).keys
        assert logged == []
        for _ in range(2):
            assert composed(text, monkeypatch, only_checking=False).keys
    finally:
        globalLogPublisher.removeObserver(observer)
    assert logged == [f"{tmp_path}/signing.key"]


def test_status_port_that_is_not_open_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = composed(TEXT.format(tmp_path) + '[status]\nlisten = "tcp:8779:interface=127.0.0.1"\n', monkeypatch)
    add_diagnostics(daemon)
    [state] = [each for each in daemon.readinesses() if each.name == "status"]
    assert (state.ready, state.needed) == (False, False)
    assert state.reason == "nobody can read its status pages and metrics: not listening yet"
