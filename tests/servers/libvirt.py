"""A private libvirtd for tests, with QEMU guests under emulation: Debian's packages, as an ordinary user, in a directory.

It is the daemon of a user's session (``qemu:///session``), which keeps all it has in that user's directories and so
touches neither the host's libvirt nor the host's domains; its QEMU driver is the system's. It refuses to be one for
root, so under root it runs as ``nobody``. Its methods block for as long as ``virsh`` takes, some 20 ms.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from contextlib import suppress
from pathlib import Path

import pytest

PROGRAMS = ("libvirtd", "virsh", "qemu-system-x86_64")
SEARCH_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
INSTALL = (
    "libvirt is not installed: apt-get install --no-install-recommends "
    "libvirt-daemon-system libvirt-clients qemu-system-x86"
)
START_SECONDS = 20.0
STOP_SECONDS = 10.0

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
        self._socket = directory / "run/libvirt/libvirt-sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"qemu+unix:///session?socket={self._socket}"
        settings = directory / "config/libvirt"
        settings.mkdir(parents=True)
        (directory / "run").mkdir(mode=0o700)
        (settings / "qemu.conf").write_text('stdio_handler = "file"\n')  # needs no virtlogd
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            for path in (directory, *directory.rglob("*")):
                os.chown(path, account.pw_uid, account.pw_gid)

    # --- the daemon

    @property
    def running(self) -> bool:
        """Whether the daemon has been started and not stopped."""
        return self._process is not None

    def start(self) -> None:
        """Start the daemon and return once it accepts connections."""
        with (self._directory / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                [str(_program("libvirtd")), "--pid-file", str(self._directory / "libvirtd.pid")],
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
                user=self._user,
                group=pwd.getpwnam(self._user).pw_gid if self._user else None,
                extra_groups=[] if self._user else None,
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
        self._socket.unlink(missing_ok=True)

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
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, f"virsh {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    # --- its guests

    @contextmanager
    def guest(
        self, name: str, *, metadata: str = NOVA, disks: Sequence[str] = ("vda",), taps: Sequence[str] = ()
    ) -> Iterator[str]:
        """Define and start a guest for as long as the context lasts; give its UUID. ``taps`` exist already."""
        devices = [DISK.format(path=self.empty_disk(f"{name}.{disk}"), name=disk) for disk in disks]
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
                adding = ["ip", "tuntap", "add", "dev", name, "mode", "tap", "user", self._user or str(os.geteuid())]
                if subprocess.run(adding, capture_output=True, check=False).returncode:
                    pytest.skip("network devices can only be made by root, with /dev/net/tun")
                made.append(name)
                subprocess.run(["ip", "link", "set", name, "up"], check=True)
            yield
        finally:
            for name in made:
                subprocess.run(["ip", "link", "del", name], check=True)

    @property
    def socket(self) -> Path:
        """Where the daemon listens."""
        return self._socket

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

    def _signal(self, name: str, number: int) -> None:
        os.kill(self._number(name), number)

    def _number(self, name: str) -> int:
        return int((self._guests_directory / f"{name}.pid").read_text())

    def _wait_for_end(self, name: str) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while self.virsh("domstate", name).strip() != "shut off":
            assert time.monotonic() < deadline, f"{name} does not end"
            time.sleep(0.02)

    @property
    def _guests_directory(self) -> Path:
        return self._directory / "run/libvirt/qemu/run"

    def _pid_files(self) -> list[Path]:
        return [path for path in self._guests_directory.glob("*.pid") if path.name != "driver.pid"]

    def _accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX) as knocking, suppress(OSError):
            knocking.connect(str(self._socket))
            return True
        return False


def _program(name: str) -> str | None:
    return shutil.which(name, path=SEARCH_PATH)


@pytest.fixture(scope="session")
def libvirtd() -> Iterator[Libvirtd]:
    """A running private libvirtd; skips where none is installed, fails there with ``METER_REQUIRE_SERVERS=1``."""
    if not all(map(_program, PROGRAMS)):
        if os.environ.get("METER_REQUIRE_SERVERS") == "1":
            pytest.fail(INSTALL)
        pytest.skip(INSTALL)
    # Not pytest's own directory: nobody may not enter that one, and the path of a socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="libvirt-") as directory:
        server = Libvirtd(Path(directory))
        try:
            server.start()
            yield server
        finally:
            server.close()
