"""Locks of one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import uuid

import pytest

from meter.daemon.process_lock import AlreadyLocked
from meter.daemon.process_lock import ListenLock
from meter.daemon.process_lock import LockFile


@pytest.fixture
def lock(tmp_path):
    locks = []

    def make(path=None, **options):
        given = {"owner": "meter-compute", "setting": "[meter] state_dir", **options}
        locks.append(LockFile(path or tmp_path / "state/meter-compute.lock", **given))
        return locks[-1]

    yield make
    for each in locks:
        each.release()


def test_second_owner_is_refused_with_file_process_command_and_setting(lock, tmp_path):
    lock()

    with pytest.raises(AlreadyLocked) as refused:
        lock()
    text = str(refused.value)
    assert f"[meter] state_dir: {tmp_path}/state/meter-compute.lock is locked by process {os.getpid()} (" in text
    assert "pytest" in text
    assert "set another directory" in text


def test_released_lock_can_be_taken_again(lock):
    lock().release()

    lock()


def test_stale_lock_file_is_not_a_lock(lock, tmp_path):
    stale = tmp_path / "state/meter-compute.lock"
    stale.parent.mkdir()
    stale.write_text("1\nelsewhere\ninit\n")

    lock()

    assert stale.read_text().startswith(f"{os.getpid()}\n")


def test_daemonized_process_is_the_owner(lock, tmp_path):
    held = lock()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        held.startService()
        os._exit(0)
    os.waitpid(child, 0)

    with pytest.raises(AlreadyLocked, match=f"process {child}"):
        lock()
    assert child != parent


def test_child_holds_the_lock_after_its_parent_has_released_it(lock):
    held = lock()
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(ready, 1)
        os._exit(0)
    os.close(ready)
    held.release()  # as when the parent ends: the descriptor is closed
    with pytest.raises(AlreadyLocked):
        lock()
    os.close(go)
    os.waitpid(child, 0)

    lock()


def test_owner_on_another_host_is_reported_with_the_host(lock, tmp_path):
    lock()
    (tmp_path / "state/meter-compute.lock").write_text("77\nfar.example\ntwistd meter-compute\n")

    with pytest.raises(AlreadyLocked, match=r"process 77 on far.example \(twistd meter-compute\)"):
        lock()


@pytest.mark.parametrize("held", ["", "\0\xff", "77"])
def test_locked_file_is_refused_whatever_it_contains(lock, tmp_path, held):
    lock()
    (tmp_path / "state/meter-compute.lock").write_bytes(held.encode("latin-1"))

    with pytest.raises(AlreadyLocked, match="is locked by"):
        lock()


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_is_refused_with_advice(lock, monkeypatch, error):
    def no_locks(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", no_locks)

    with pytest.raises(AlreadyLocked, match=r"\[meter\] state_dir: .*cannot be locked.*local disk"):
        lock()


def test_unwritable_directory_is_refused_with_the_setting(lock, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(AlreadyLocked, match=r"\[meter\] state_dir: .*/file/x.lock cannot be written \(.*user id"):
        lock(tmp_path / "file/x.lock")


def test_read_only_file_system_is_refused_with_the_setting(lock, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", read_only)

    with pytest.raises(AlreadyLocked, match=r"cannot be written \(Read-only file system\)"):
        lock()


def test_endpoint_of_another_daemon_of_the_same_name_is_refused_until_it_ends():
    listen = f"tcp:1:interface={uuid.uuid4()}"
    first = ListenLock(listen, owner="meter-compute", setting="[status] listen")

    with pytest.raises(
        AlreadyLocked, match=rf"\[status\] listen: {listen} .*another meter-compute, process {os.getpid()}"
    ):
        ListenLock(listen, owner="meter-compute", setting="[status] listen")
    ListenLock(listen, owner="meter-central", setting="[status] listen").release()
    first.release()
    ListenLock(listen, owner="meter-compute", setting="[status] listen").release()
