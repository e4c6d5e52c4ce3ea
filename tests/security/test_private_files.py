"""What a daemon writes can be read by its user alone, whatever the umask is; existing files are tightened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from meter.agent.spool import Spool
from meter.daemon.private_files import open_to_others
from meter.daemon.process_lock import LockFile
from meter.interfaces import Publication
from meter.settings.config_file import keyring
from meter.settings.config_file import parse
from meter.store.postgres.embedded import EmbeddedPostgres


@pytest.fixture(params=[0o000, 0o022, 0o277], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(top: Path) -> dict[str, int]:
    return {
        str(path.relative_to(top.parent)): stat.S_IMODE(path.stat().st_mode)
        for path in (top, *top.rglob("*"))
        if not path.is_symlink()
    }


def check(top: Path) -> None:
    found = modes(top)
    assert found
    assert {name: oct(mode) for name, mode in found.items() if mode & 0o077} == {}
    assert all(mode & 0o600 == 0o600 for mode in found.values())


def spool_in(directory: Path) -> Spool:
    return Spool(directory / "a.spool", max_bytes=10**6, max_age_seconds=10**6, clock=Clock(), run=maybeDeferred)


@pytest.mark.usefixtures("umask")
@pytest_twisted.ensureDeferred
async def test_spool_lock_and_key_are_private(tmp_path: Path) -> None:
    state = tmp_path / "var" / "state"
    spool = spool_in(state)
    await spool.put([Publication(exchange="e", routing_key="k", body=b"x")])
    lock = LockFile(state / "meter.lock", owner="meter", setting="[meter] state_dir")
    keyring(parse(f'[meter]\nstate_dir = "{state}"\n', "meter-central"))
    try:
        assert {path.name for path in state.iterdir()} == {
            "a.spool",
            "a.spool-wal",
            "a.spool-shm",
            "meter.lock",
            "signing.key",
        }
        check(tmp_path / "var")
    finally:
        lock.release()
        await spool.close()


@pytest_twisted.ensureDeferred
async def test_files_of_an_older_version_are_tightened(tmp_path: Path) -> None:
    state = tmp_path / "state"
    spool = spool_in(state)
    await spool.put([Publication(exchange="e", routing_key="k", body=b"x")])
    config = parse(f'[meter]\nstate_dir = "{state}"\n', "meter-central")
    keyring(config)
    (state / "meter.lock").touch()
    for path in state.iterdir():
        path.chmod(0o644)
    again = spool_in(state)
    await again.oldest(1)
    LockFile(state / "meter.lock", owner="meter", setting="[meter] state_dir").release()
    keyring(config)
    check(state)
    await again.close()
    await spool.close()


def test_directory_of_the_embedded_database_is_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        server = EmbeddedPostgres(None, tmp_path / "state" / "postgresql", clock=Clock())
        assert server._acquire_lock()
        check(tmp_path / "state")
        server._lock.close()  # type: ignore[union-attr]
    finally:
        os.umask(before)


def test_directory_that_others_can_list_is_warned_about(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert "has mode 0755: other users can list it; chmod 0700" in str(open_to_others(tmp_path))
    tmp_path.chmod(0o750)
    assert open_to_others(tmp_path) is None
    assert open_to_others(tmp_path / "missing") is None
