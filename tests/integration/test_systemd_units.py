"""The units for systemd, checked by systemd's own programs; and each daemon under the restrictions of its unit."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.servers import not_allowed
from tests.servers import not_installed

TOP = Path(__file__).parents[2]
UNITS = sorted(TOP.glob("etc/systemd/*.service"))
TWISTD = Path(sys.executable).with_name("twistd")
MAX_EXPOSURE = 3.0

OF_LIBVIRT = ("SupplementaryGroups=libvirt",)
"""What is only in the units of daemons that connect to libvirt."""

OF_OTHERS = ("ProtectProc=invisible",)
"""What is only in the units of daemons that do not: they need not find the processes of instances."""

CONFIGURATION = """
[meter]
state_dir = "{directory}/state"
[bus]
url = "amqp://guest:guest@127.0.0.1:1/"
[store]
dsn = "postgresql://meter@127.0.0.1:1/meter"
[compute]
libvirt_uri = "test:///default"
[status]
listen = "tcp:{port}:interface=127.0.0.1"
[api]
listen = "tcp:0:interface=127.0.0.1"
"""

pytestmark = pytest.mark.usefixtures("systemd")


@pytest.fixture(scope="module")
def systemd() -> None:
    if not shutil.which("systemd-analyze"):
        not_installed("systemd-analyze checks the units: apt-get install systemd")


def settings(unit: Path) -> list[str]:
    """The lines of ``[Service]``."""
    text = unit.read_text(encoding="utf-8").partition("[Service]")[2].partition("[Install]")[0]
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def by_name(units: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("unit", units, ids=[each.name for each in units])


@by_name(UNITS)
def test_systemd_calls_the_exposure_of_the_unit_low(unit: Path) -> None:
    report = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", unit], capture_output=True, text=True, check=False
    )
    [exposure] = re.findall(r"Overall exposure level for \S+: ([\d.]+)", report.stdout)
    assert float(exposure) <= MAX_EXPOSURE, report.stdout


def test_systemd_finds_nothing_wrong_in_the_units(tmp_path: Path) -> None:
    for path in [*UNITS, *TOP.glob("etc/systemd/*.socket")]:
        name = path.name.replace("@.", "@1.")
        (tmp_path / name).write_text(path.read_text(encoding="utf-8").replace("/opt/meter/bin/twistd", str(TWISTD)))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_units_have_the_same_settings_but_for_what_their_daemons_need() -> None:
    for unit in UNITS:
        own = settings(unit)
        libvirt = unit.name in ("meter.service", "meter-compute.service")
        assert set(OF_LIBVIRT) <= set(own) if libvirt else set(OF_OTHERS) <= set(own), unit.name
        same = [
            line
            for line in own
            if not line.startswith(("ExecStart=", "Sockets=")) and line not in OF_LIBVIRT + OF_OTHERS
        ]
        assert same == [
            line for line in settings(UNITS[0]) if not line.startswith("ExecStart=") and line not in OF_OTHERS
        ]


def test_user_group_and_directories_are_made_as_the_files_say(tmp_path: Path) -> None:
    state, configuration = tmp_path / "var/lib/meter", tmp_path / "etc/meter"
    (tmp_path / "etc").mkdir()
    for program, file in (("sysusers", "etc/sysusers.d/meter.conf"), ("tmpfiles", "etc/tmpfiles.d/meter.conf")):
        arguments = ["--create"] if program == "tmpfiles" else []
        command = [f"systemd-{program}", f"--root={tmp_path}", *arguments, str(TOP / file)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if "Operation not permitted" in result.stderr:
            not_allowed("only root may give a file to another user")
        assert result.returncode == 0, result.stderr
    users = dict(line.split(":", 1) for line in (tmp_path / "etc/passwd").read_text().splitlines())
    groups = {line.split(":")[0]: int(line.split(":")[2]) for line in (tmp_path / "etc/group").read_text().splitlines()}
    number = int(users["meter"].split(":")[1])
    assert users["meter"].split(":")[3:] == ["Meter", "/var/lib/meter", "/usr/sbin/nologin"]
    assert set(groups) == {"meter", "libvirt"}
    seen = [
        (f"{(status := path.stat()).st_mode & 0o7777:o}", status.st_uid, status.st_gid)
        for path in (state, configuration)
    ]
    assert seen == [("700", number, groups["meter"]), ("750", 0, groups["meter"])]


class Service:
    """A daemon started as its unit says."""

    def __init__(self, directory: Path, unit: Path) -> None:
        self._directory = directory
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(directory / "notify"))
        self._manager.settimeout(120)
        self.port = free_port()
        config = directory / "meter.toml"
        config.write_text(CONFIGURATION.format(directory=directory, port=self.port))
        # Not the user, who may not read the checkout, and nothing that hides the test's own files.
        without = "User,SupplementaryGroups,ProtectHome,ProtectSystem,PrivateTmp,PrivateDevices,StateDirectory"
        restricting = [sys.executable, str(TOP / "tests/service_restrictions.py"), str(unit), f"--without={without}"]
        with (directory / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*restricting, f"--exec={TWISTD}", "--config", str(config)],
                env=os.environ | {"NOTIFY_SOCKET": str(directory / "notify")},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        return (self._directory / "log").read_text(errors="replace")

    def notified(self) -> str:
        try:
            return self._manager.recv(65536).decode()
        except TimeoutError:
            pytest.fail(f"nothing was sent to the service manager:\n{self.log[-3000:]}")

    def close(self) -> None:
        self._manager.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def service(tmp_path: Path, unit: Path) -> Iterator[Service]:
    if os.geteuid() != 0:
        not_allowed("only root may drop capabilities")
    service = Service(tmp_path, unit)
    yield service
    service.close()


# The others have the settings of one of these two.
@by_name([TOP / "etc/systemd/meter.service", TOP / "etc/systemd/meter-api.service"])
def test_daemon_runs_without_capabilities_and_with_the_system_calls_that_its_unit_permits(
    service: Service, unit: Path
) -> None:
    assert service.notified().startswith("READY=1\n"), service.log
    with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/healthz", timeout=60) as answer:
        assert answer.read() == b"ok\n"
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    assert re.findall(r"^(?:CapEff|NoNewPrivs|Seccomp|Umask):\s*(\w+)$", status, re.M) == ["0077", "0" * 16, "1", "2"]
    service.process.send_signal(signal.SIGTERM)
    assert service.notified().startswith("STOPPING=1")
    assert service.process.wait(120) in (0, -signal.SIGTERM), service.log
    assert "Traceback" not in service.log


@by_name([TOP / "etc/systemd/meter-collector.service"])
def test_daemon_whose_watchdog_ends_it_logs_where_it_was(service: Service, unit: Path) -> None:
    assert service.notified().startswith("READY=1\n"), service.log
    service.process.send_signal(signal.SIGABRT)
    assert service.process.wait(120) == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in service.log
    assert "twisted/internet/" in service.log
