"""The process of a domain: found by its PID file, else by its UUID, and never another process."""

from __future__ import annotations

from pathlib import Path

import pytest

from meter.hypervisor.qemu_processes import Process
from meter.hypervisor.qemu_processes import Processes

TICKS = 100
UUID = "1dc390e9-43cd-451d-9ae7-01c8bbbe4cac"
URI = "qemu+unix:///session?socket={}"


class Machine:
    """A directory like /proc, and one where libvirt keeps numbers of processes."""

    def __init__(self, top: Path) -> None:
        self.proc = top / "proc"
        self.run = top / "libvirt/qemu/run"
        self.uri = URI.format(top / "libvirt/libvirt-sock")
        self.run.mkdir(parents=True)
        (self.proc / "sys/kernel/random").mkdir(parents=True)
        (self.proc / "sys/kernel/random/boot_id").write_text("9f3a1c2e-0000\n")

    def process(self, pid: int, uuid: str = UUID, start: int = 500, threads: dict[str, int] | None = None) -> None:
        directory = self.proc / str(pid)
        directory.mkdir(exist_ok=True)
        (directory / "cmdline").write_bytes(f"/usr/bin/qemu\0-name\0web) 1 (\0-uuid\0{uuid}\0-S\0".encode())
        (directory / "stat").write_text(stat(pid, start))
        for number, (name, began) in enumerate((threads or {}).items()):
            task = directory / "task" / str(pid + number)
            task.mkdir(parents=True, exist_ok=True)
            (task / "comm").write_text(f"{name}\n")
            (task / "stat").write_text(stat(pid + number, began))

    def number(self, pid: int | str, name: str = "web") -> None:
        (self.run / f"{name}.pid").write_text(f"{pid}")

    def find(self, uri: str = "", *, name: str = "web", number: int = 7) -> Process | None:
        processes = Processes(uri or self.uri, now=lambda: 1000.0, seconds_since_boot=lambda: 60.0, proc=self.proc)
        return processes.search().of(UUID, name, number)


def stat(pid: int, start: int) -> str:
    return f"{pid} (qemu) 1 ( x) S {' '.join(['0'] * 18)} {start} 0 0\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr("os.sysconf", lambda _: TICKS)
    return Machine(tmp_path)


def test_process_id_is_boot_and_start_ticks(machine: Machine) -> None:
    machine.process(42)
    machine.number(42)
    assert machine.find() == Process("9f3a1c2e.500", 1000.0 - 60.0 + 5.0)


def test_stale_pid_file_of_another_process_is_ignored(machine: Machine) -> None:
    machine.process(42, uuid="another")
    machine.process(43)
    machine.number(42)
    found = machine.find()
    assert found is not None, "the list of processes has it"
    machine.process(44)
    assert machine.find() is None, "of two with one UUID nobody knows which it is"


@pytest.mark.parametrize("number", ["", "x", "-1", "99"])
def test_pid_file_without_a_process_is_ignored(machine: Machine, number: str) -> None:
    machine.process(43)
    machine.number(number)
    assert machine.find() == Process("9f3a1c2e.500", 945.0)


def test_domains_with_one_uuid_are_distinguished_by_pid_files_next_to_the_socket(machine: Machine) -> None:
    machine.process(42, start=500)
    machine.process(43, start=700)
    machine.number(43)
    found = machine.find()
    assert found is not None
    assert found.id == "9f3a1c2e.700"


@pytest.mark.parametrize(
    "uri",
    ["qemu+ssh://elsewhere/system", "qemu+unix://elsewhere/system", "qemu+tcp:///system", "test:///default", "xen:///"],
)
def test_process_of_a_remote_libvirt_or_another_driver_is_none(machine: Machine, uri: str) -> None:
    machine.process(42)
    assert machine.find(uri) is None


def test_process_of_a_domain_that_is_off_is_none(machine: Machine) -> None:
    machine.process(42)
    machine.number(42)
    assert machine.find(number=-1) is None


def test_process_of_a_container_is_its_domain_id(machine: Machine) -> None:
    machine.process(7, uuid="none")
    assert machine.find("lxc:///system") == Process("9f3a1c2e.500", 945.0)


def test_domain_name_with_a_slash_does_not_leave_the_directory(machine: Machine) -> None:
    machine.process(42, uuid="another")
    (machine.run.parent / "web.pid").write_text("42")
    assert machine.find(name="../web") is None


def test_processors_change_when_another_thread_takes_the_number_of_one(machine: Machine) -> None:
    machine.number(42)
    seen = []
    for threads in ({"CPU 0/KVM": 510, "CPU 1/KVM": 511, "worker": 5}, {"CPU 0/KVM": 510, "CPU 1/KVM": 900}):
        machine.process(42, threads=threads)
        seen.append(machine.find())
        seen.append(machine.find())
    first, again, other, _ = seen
    assert first == again
    assert first is not None
    assert other is not None
    assert (first.id, first.processors) != (other.id, other.processors)
    assert first.id == other.id


def test_process_is_none_without_permission(machine: Machine) -> None:
    machine.number(42)
    (machine.proc / "42").write_text("not a directory")
    assert machine.find() is None
