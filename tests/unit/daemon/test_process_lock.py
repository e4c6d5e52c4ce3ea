"""What belongs to one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import uuid

import pytest

from meter.daemon.process_lock import ListenLock
from meter.daemon.process_lock import LockFile
from meter.daemon.process_lock import Taken


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


def test_a_second_owner_is_refused_with_file_process_command_and_setting(lock, tmp_path):
    lock()

    with pytest.raises(Taken) as refused:
        lock()
    text = str(refused.value)
    assert f"[meter] state_dir: {tmp_path}/state/meter-compute.lock is locked by process {os.getpid()} (" in text
    assert "pytest" in text
    assert "a directory of its own" in text


def test_a_lock_that_was_released_leaves_nothing_that_stands_in_the_way(lock):
    lock().release()

    lock()


def test_a_file_left_behind_by_a_dead_process_is_no_lock(lock, tmp_path):
    stale = tmp_path / "state/meter-compute.lock"
    stale.parent.mkdir()
    stale.write_text("1\nelsewhere\ninit\n")

    lock()

    assert stale.read_text().startswith(f"{os.getpid()}\n")


def test_the_process_that_goes_on_in_the_background_is_the_owner(lock, tmp_path):
    held = lock()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        held.startService()
        os._exit(0)
    os.waitpid(child, 0)

    with pytest.raises(Taken, match=f"process {child}"):
        lock()
    assert child != parent


def test_a_child_holds_the_lock_when_its_parent_has_let_go(lock):
    held = lock()
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(ready, 1)
        os._exit(0)
    os.close(ready)
    held.release()  # as when the parent ends: the descriptor is closed
    with pytest.raises(Taken):
        lock()
    os.close(go)
    os.waitpid(child, 0)

    lock()


def test_an_owner_on_another_host_is_named_with_the_host(lock, tmp_path):
    lock()
    (tmp_path / "state/meter-compute.lock").write_text("77\nfar.example\ntwistd meter-compute\n")

    with pytest.raises(Taken, match=r"process 77 on far.example \(twistd meter-compute\)"):
        lock()


@pytest.mark.parametrize("held", ["", "\0\xff", "77"])
def test_whatever_stands_in_a_locked_file_it_is_refused(lock, tmp_path, held):
    lock()
    (tmp_path / "state/meter-compute.lock").write_bytes(held.encode("latin-1"))

    with pytest.raises(Taken, match="is locked by"):
        lock()


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused_with_what_would_be_right(lock, monkeypatch, error):
    def no_locks(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", no_locks)

    with pytest.raises(Taken, match=r"\[meter\] state_dir: .*cannot be locked.*local disk"):
        lock()


def test_a_directory_that_cannot_be_written_is_refused_with_the_setting(lock, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(Taken, match=r"\[meter\] state_dir: .*/file/x.lock cannot be written \(.*user id"):
        lock(tmp_path / "file/x.lock")


def test_a_read_only_file_system_is_refused_with_the_setting(lock, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", read_only)

    with pytest.raises(Taken, match=r"cannot be written \(Read-only file system\)"):
        lock()


def test_a_port_of_another_daemon_of_the_name_is_refused_and_free_once_it_ends():
    listen = f"tcp:1:interface={uuid.uuid4()}"
    first = ListenLock(listen, owner="meter-compute", setting="[status] listen")

    with pytest.raises(Taken, match=rf"\[status\] listen: {listen} .*another meter-compute, process {os.getpid()}"):
        ListenLock(listen, owner="meter-compute", setting="[status] listen")
    ListenLock(listen, owner="meter-central", setting="[status] listen").release()
    first.release()
    ListenLock(listen, owner="meter-compute", setting="[status] listen").release()
