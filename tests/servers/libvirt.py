"""A private libvirtd for tests, with QEMU guests under emulation: Debian's packages, as an ordinary user, in a directory.

It is the daemon of a user's session (``qemu:///session``), which keeps all it has in that user's directories and so
touches neither the host's libvirt nor the host's domains; its QEMU driver is the system's. It refuses to be one for
root, so under root it runs as ``nobody``. Its methods block for as long as ``virsh`` takes, some 20 ms.

There is a second one that takes itself for another host, to which guests migrate, and one of the system
(``qemu:///system``); both take root, who may give them a name and directories of their own.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

from tests.servers import not_allowed
from tests.servers import not_installed

PROGRAMS = ("libvirtd", "virsh", "qemu-system-x86_64")
SEARCH_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
INSTALL = (
    "libvirt is not installed: apt-get install --no-install-recommends "
    "libvirt-daemon-system libvirt-clients qemu-system-x86 iproute2"
)
START_SECONDS = 120.0
STOP_SECONDS = 60.0
COMMAND_SECONDS = 120.0

TUN = """
mkdir -p /dev/net && mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec "$@"
"""
"""Runs a command with a ``/dev/net/tun`` of its own that everyone may open, whatever the host's is, if it has one."""

NOVA = """
  <metadata>
    <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
      <nova:name>web-1</nova:name>
      <nova:flavor name="m1.tiny" id="de87fb08-b0f4-429b-a6bf-e16487a3f79e">
        <nova:memory>64</nova:memory>
        <nova:disk>1</nova:disk>
        <nova:swap>0</nova:swap>
        <nova:ephemeral>0</nova:ephemeral>
        <nova:vcpus>1</nova:vcpus>
      </nova:flavor>
      <nova:owner>
        <nova:user uuid="user-1">alice</nova:user>
        <nova:project uuid="project-1">shop</nova:project>
      </nova:owner>
    </nova:instance>
  </metadata>"""

# 64 MiB, one processor, an empty disk: the firmware finds nothing to start and waits.
GUEST = """<domain type='qemu'>
  <name>{name}</name>{metadata}
  <memory unit='MiB'>64</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <emulator>{emulator}</emulator>{devices}
    <memballoon model='virtio'/>
  </devices>
</domain>"""

# What a guest that has something to start does: lets the firmware's clock wake it, gives away the devices that it is
# asked for (through QEMU's registers of hot-plugging), and switches itself off when its power button is pressed.
BOOT_SECTOR = (
    bytes.fromhex(
        "fb"  # sti
        "ba 0206  b8 0001  ef"  # out 0x602, 0x100: heed the power button
        "f4"  # again: hlt
        "ba 0006  ed  f6 c4 01  75 0c"  # in 0x600: has it been pressed? then off
        "ba 04ae  66 ed  ba 08ae  66 ef"  # out 0xae08, in 0xae04: eject what shall be unplugged
        "eb ea"  # jmp again
        "ba 0406  b8 0020  ef  eb fe"  # off: out 0x604, 0x2000
    ).ljust(510, b"\0")
    + b"\x55\xaa"
)

READS = 0x7E00
"""Where a guest that reads has the number of sectors that it has read, in its memory."""

# Reads a sector of its disk at every tick of the clock, 18 times a second, and counts them.
READING_BOOT_SECTOR = (
    bytes.fromhex(
        "31 c0  8e d8  8e c0  fb"  # segments of 0, sti
        "f4"  # again: hlt
        "b8 01 02  b9 02 00  ba 80 00  bb 00 80  cd 13"  # one sector, the second, of the first disk, to 0x8000
        "72 ef"  # jc again
        "66 ff 06 00 7e"  # inc dword [READS]
        "eb e8"  # jmp again
    ).ljust(510, b"\0")
    + b"\x55\xaa"
)

DISK = """
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='{path}'/><target dev='{name}' bus='virtio'/>
    </disk>"""

INTERFACE = """
    <interface type='ethernet'><target dev='{name}' managed='no'/><model type='virtio'/></interface>"""


class Libvirtd:
    """One private daemon at ``uri``; it can be stopped and started while its guests go on."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._user = "nobody" if os.geteuid() == 0 else None
        self._lay_out()
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            for path in (directory, *directory.rglob("*")):
                os.chown(path, account.pw_uid, account.pw_gid)

    def _lay_out(self) -> None:
        self._runtime = self._directory / "run/libvirt"
        self.uri = f"qemu+unix:///session?socket={self.socket}"
        settings = self._directory / "config/libvirt"
        settings.mkdir(parents=True)
        self._runtime.parent.mkdir(mode=0o700)
        (settings / "qemu.conf").write_text('stdio_handler = "file"\n')  # needs no virtlogd
        (settings / "libvirtd.conf").write_text(f'host_uuid = "{uuid.uuid4()}"\n')

    def _command(self) -> list[str]:
        """Return the command that becomes the daemon, by ``exec`` at most."""
        command = [str(_program("libvirtd")), "--pid-file", str(self._directory / "libvirtd.pid")]
        if self._user is None:
            return command
        group = pwd.getpwnam(self._user).pw_gid
        return [*_with_tun(), "setpriv", f"--reuid={self._user}", f"--regid={group}", "--clear-groups", *command]

    # --- the daemon

    @property
    def running(self) -> bool:
        """Whether the daemon has been started and not stopped."""
        return self._process is not None

    def start(self) -> None:
        """Start the daemon and return once it accepts connections."""
        with (self._directory / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                self._command(),
                env={
                    "PATH": SEARCH_PATH,
                    "HOME": str(self._directory),
                    "XDG_RUNTIME_DIR": str(self._directory / "run"),
                    "XDG_CONFIG_HOME": str(self._directory / "config"),
                    "XDG_CACHE_HOME": str(self._directory / "cache"),
                    "XDG_DATA_HOME": str(self._directory / "data"),
                },
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"libvirtd did not start:\n{(self._directory / 'output.log').read_text()[-4000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop the daemon; its guests go on."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.socket.unlink(missing_ok=True)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the daemon in its tracks for as long as the context lasts: it accepts connections and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End everything that was started."""
        self.stop()
        for name in [path.stem for path in self._pid_files()]:
            with suppress(ProcessLookupError, FileNotFoundError):
                self._signal(name, signal.SIGKILL)

    def virsh(self, *arguments: str) -> str:
        """Run ``virsh`` and return what it printed."""
        command = [str(_program("virsh")), "--connect", self.uri, "--quiet", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
        assert done.returncode == 0, f"virsh {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    # --- its guests

    @contextmanager
    def guest(
        self,
        name: str,
        *,
        metadata: str = NOVA,
        disks: Sequence[str] = ("vda",),
        taps: Sequence[str] = (),
        obliging: bool = False,
        boot_sector: bytes = b"",
    ) -> Iterator[str]:
        """Define and start a guest for as long as the context lasts; give its UUID.

        ``taps`` exist already. An *obliging* one does, once it has started, what it is asked for: give devices away,
        and switch itself off. ``boot_sector`` is another program for it to start.
        """
        paths = [self.empty_disk(f"{name}.{disk}") for disk in disks]
        if obliging or boot_sector:
            with paths[0].open("r+b") as first:
                first.write(boot_sector or BOOT_SECTOR)
        devices = [DISK.format(path=path, name=disk) for path, disk in zip(paths, disks, strict=True)]
        devices += [INTERFACE.format(name=tap) for tap in taps]
        description = self._directory / f"{name}.xml"
        xml = GUEST.format(
            name=name, metadata=metadata, emulator=_program("qemu-system-x86_64"), devices="".join(devices)
        )
        description.write_text(xml)
        self.virsh("define", str(description))
        try:
            self.virsh("start", name)
            yield self.virsh("domuuid", name).strip()
        finally:
            with suppress(ProcessLookupError, FileNotFoundError):
                self._signal(name, signal.SIGKILL)
            if name in self.virsh("list", "--all", "--name").split():  # not where it went elsewhere
                self._wait_for_end(name)
                self.virsh("undefine", name)

    def empty_disk(self, name: str) -> Path:
        """Make the file of an empty disk of one MiB."""
        disk = self._directory / f"{name}.disk"
        disk.touch()
        disk.chmod(0o666)
        os.truncate(disk, 2**20)
        return disk

    @contextmanager
    def taps(self, *names: str) -> Iterator[None]:
        """Have network devices for guests, for as long as the context lasts; skips where that is not allowed."""
        made = []
        try:
            for name in names:
                if _program("ip") is None:
                    not_installed(INSTALL)
                adding = ["ip", "tuntap", "add", "dev", name, "mode", "tap", "user", self._user or str(os.geteuid())]
                done = subprocess.run([*_with_tun(), *adding], capture_output=True, text=True, check=False)
                if done.returncode:
                    not_allowed(f"only root may make network devices, where the kernel has TUN/TAP: {done.stderr}")
                made.append(name)
                subprocess.run(["ip", "link", "set", name, "up"], check=True)
            yield
        finally:
            for name in made:
                subprocess.run(["ip", "link", "del", name], check=True)

    @property
    def socket(self) -> Path:
        """Where the daemon listens."""
        return self._runtime / "libvirt-sock"

    @contextmanager
    def hanging(self, name: str) -> Iterator[None]:
        """Stop a guest's emulator for as long as the context lasts: libvirt waits for its answers."""
        self._signal(name, signal.SIGSTOP)
        try:
            while not self._is_stopped(name):
                time.sleep(0.005)
            yield
        finally:
            self._signal(name, signal.SIGCONT)

    def _is_stopped(self, name: str) -> bool:
        tasks = Path(f"/proc/{self._number(name)}/task").glob("*/stat")
        return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)

    def stats(self, name: str) -> dict[str, str]:
        """Return what ``virsh domstats`` prints of a guest."""
        return dict(re.findall(r"^\s*(\S+?)=(.*)$", self.virsh("domstats", name), re.MULTILINE))

    def reads(self, name: str) -> int:
        """Return what a guest that reads has counted itself."""
        told = self.virsh("qemu-monitor-command", name, "--hmp", f"xp /1dw {READS:#x}")
        return int(told.split()[-1])

    def _signal(self, name: str, number: int) -> None:
        os.kill(self._number(name), number)

    def _number(self, name: str) -> int:
        return int((self._guests_directory / f"{name}.pid").read_text())

    def _wait_for_end(self, name: str) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while self.virsh("domstate", name).strip() != "shut off":
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} does not end")
            time.sleep(0.02)

    @property
    def _guests_directory(self) -> Path:
        return self._runtime / "qemu/run"

    def _pid_files(self) -> list[Path]:
        return [path for path in self._guests_directory.glob("*.pid") if path.name != "driver.pid"]

    def _accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX) as knocking, suppress(OSError):
            knocking.connect(str(self.socket))
            return True
        return False


class LibvirtdElsewhere(Libvirtd):
    """The daemon of another host, as far as libvirt can tell: by the name of the host and by its id."""

    def _command(self) -> list[str]:
        naming = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh"]
        return [*naming, *super()._command()]


class SystemLibvirtd(Libvirtd):
    """The daemon of the system, ``qemu:///system``, with directories of its own where the host's would be."""

    DIRECTORIES = ("/run/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt", "/etc/libvirt")

    def _lay_out(self) -> None:
        self._user = None
        self._runtime = self._directory / "run"
        self.uri = f"qemu+unix:///system?socket={self.socket}"
        for path in self.DIRECTORIES:
            (self._directory / Path(path).parent.name).mkdir()
        settings = {
            "stdio_handler": '"file"',
            "user": '"root"',
            "security_driver": '"none"',
            "cgroup_controllers": "[]",
        }
        lines = (f"{name} = {value}\n" for name, value in settings.items())
        (self._directory / "etc/qemu.conf").write_text("".join(lines))

    def _command(self) -> list[str]:
        binding = (
            f"mkdir -p {path} && mount --bind {self._directory / Path(path).parent.name} {path}"
            for path in self.DIRECTORIES
        )
        script = " && ".join((*binding, 'exec "$@"'))
        return ["unshare", "--mount", "sh", "-c", script, "sh", *super()._command()]

    @property
    def _guests_directory(self) -> Path:
        return self._runtime / "qemu"


def _program(name: str) -> str | None:
    return shutil.which(name, path=SEARCH_PATH)


@cache
def _with_tun() -> list[str]:
    """Return how a command has a ``/dev/net/tun`` that guests may open, which run as an ordinary user.

    Until udev is installed the device is root's alone, and a container has none. Where root may not make another one,
    the host's has to do.
    """
    own = ["unshare", "--mount", "sh", "-c", TUN, "sh"]
    return own if subprocess.run([*own, "true"], capture_output=True, check=False).returncode == 0 else []


@contextmanager
def _started(kind: type[Libvirtd], directory: Path) -> Iterator[Libvirtd]:
    if not all(map(_program, PROGRAMS)):
        not_installed(INSTALL)
    server = kind(directory)
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextmanager
def _started_by_root(kind: type[Libvirtd], namespace: str, directory: Path) -> Iterator[Libvirtd]:
    if subprocess.run(["unshare", namespace, "true"], capture_output=True, check=False).returncode:
        not_allowed(f"only root may have {namespace} of its own")
    with _started(kind, directory) as server:
        yield server


@pytest.fixture(scope="session")
def libvirtd(server_directory: Callable[[str], Path]) -> Iterator[Libvirtd]:
    """A running private libvirtd; skips where none is installed, fails there with ``METER_REQUIRE_SERVERS=1``."""
    with _started(Libvirtd, server_directory("libvirt-")) as server:
        yield server


@pytest.fixture
def libvirtd_elsewhere(server_directory: Callable[[str], Path]) -> Iterator[Libvirtd]:
    """Another one, to which guests of the first may migrate; skips where that is not allowed."""
    with _started_by_root(LibvirtdElsewhere, "--uts", server_directory("libvirt-")) as server:
        yield server


@pytest.fixture
def system_libvirtd(server_directory: Callable[[str], Path]) -> Iterator[Libvirtd]:
    """A running private libvirtd of the system; skips where that is not allowed."""
    with _started_by_root(SystemLibvirtd, "--mount", server_directory("libvirt-")) as server:
        yield server
