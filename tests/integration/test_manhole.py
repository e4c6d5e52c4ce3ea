"""The manhole, as the OpenSSH client sees it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.utils import getProcessOutputAndValue
from twisted.logger import eventAsText
from twisted.logger import globalLogPublisher

from meter.daemon.services import sleep
from tests.servers import not_installed

with warnings.catch_warnings():
    # Twisted 26.10's twisted.conch.checkers imports spwd, which Python 3.11 and 3.12 deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)
    from meter.daemon.manhole import manhole
    from meter.daemon.manhole import namespace


def keygen(path: Path, comment: str = "") -> Path:
    if not shutil.which("ssh") or not shutil.which("ssh-keygen"):
        not_installed("OpenSSH's client is not installed: apt-get install --no-install-recommends openssh-client")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path], check=True)
    return path


@dataclass
class Running:
    """A manhole that runs, and what a client needs to enter it."""

    folder: Path
    service: Any
    log: list[str]

    @property
    def port(self) -> int:
        return getattr(self.service.getServiceNamed("manhole").port.getHost(), "port", 22)

    async def ssh(self, typed: str, *options: str, user: str = "meter", key: str = "alice") -> tuple[str, str, int]:
        """Type into a session of its own; return what was shown, ssh's own words and its exit status."""
        arguments = ["-F", "none", "-tt", "-p", str(self.port), "-i", str(self.folder / key), f"{user}@127.0.0.1"]
        settings = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
        }
        given = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
        out, err, code = await getProcessOutputAndValue(
            shutil.which("ssh"), [*options, *given, *arguments], stdinBytes=typed.encode()
        )
        return out.decode(), err.decode(), code


async def soon(pollster: str) -> list[str]:
    await sleep(reactor, 0.1)
    return [f"a sample of {pollster}"]


async def never(pollster: str) -> None:
    await sleep(reactor, 0.1)
    raise LookupError(f"no pollster {pollster!r} is active here")


@pytest.fixture
def make(tmp_path, request):
    """Start manholes, and stop them in the end."""
    keygen(tmp_path / "host_key")
    keygen(tmp_path / "alice", "alice@example")
    keygen(tmp_path / "mallory")
    (tmp_path / "authorized_keys").write_text("# authorized keys\n" + (tmp_path / "alice.pub").read_text())
    services, log = [], []

    def observer(event):
        log.append(eventAsText(event, includeTimestamp=False, includeSystem=False))

    def start(listen: str = "tcp:0:interface=127.0.0.1", **names: Any) -> Running:
        names = {"poll_now": soon, "status": lambda: "bus: ready: fine\nstore: not ready: away"} | names
        service = manhole(
            reactor,
            listen,
            str(tmp_path / "host_key"),
            str(tmp_path / "authorized_keys"),
            namespace(config=lambda: '[bus]\nurl = "amqp://meter:***@bus/"\n', **names),
        )
        service.startService()
        services.append(service)
        return Running(tmp_path, service, log)

    globalLogPublisher.addObserver(observer)
    yield start
    globalLogPublisher.removeObserver(observer)
    for service in services:
        pytest_twisted.blockon(service.stopService())


@pytest_twisted.ensureDeferred
async def test_expressions_are_evaluated_and_results_are_awaited(make):
    out, err, code = await make().ssh('6 * 7\npoll_now("cpu")\n')
    assert "\r\n42\r\n" in out
    assert "['a sample of cpu']" in out
    assert (err, code) == ("", 0)


@pytest_twisted.ensureDeferred
async def test_documented_names_exist(make):
    out, _, _ = await make().ssh("help()\nstatus()\npollsters\nlisteners\nconfig\n")
    for text in (
        "poll_now('cpu')   poll once now and show the samples without sending them\r\n",
        "bus: ready: fine\r\nstore: not ready: away\r\n",
        "PLUGIN  KIND  STATE  ORIGIN  REASON\r\n",
        '[bus]\r\nurl = "amqp://meter:***@bus/"\r\n',
    ):
        assert text in out


@pytest_twisted.ensureDeferred
async def test_errors_are_shown_and_do_not_end_the_session(make):
    out, _, _ = await make(poll_now=never).ssh("1 / 0\n)\npoll_now('cpu')\nchr(233) * 3\nundefined\n2 ** 10\n")
    assert "ZeroDivisionError: division by zero" in out
    assert "SyntaxError" in out
    assert "LookupError: no pollster 'cpu' is active here" in out
    assert "ééé" in out
    assert "NameError: name 'undefined' is not defined" in out
    assert "\r\n1024\r\n" in out


@pytest_twisted.ensureDeferred
async def test_deferred_is_shown_when_it_fires_and_the_last_result_is_kept(make):
    later: Deferred[str] = Deferred()
    reactor.callLater(0.2, later.callback, "here it is")
    out, _, _ = await make(status=lambda: later).ssh("status()\n")
    assert "'here it is'" in out
    assert later.result == "here it is"


@pytest_twisted.ensureDeferred
async def test_exit_ends_the_session_only(make):
    running = make()
    out, _, code = await running.ssh("exit()\n1 + 1\n")
    assert "\r\n2\r\n" not in out
    assert code == 0
    assert "\r\n4\r\n" in (await running.ssh("2 + 2\n"))[0]


@pytest_twisted.ensureDeferred
async def test_login_and_logout_are_logged(make):
    running = make()
    await running.ssh("1\n")
    while not any(line.endswith("logged out") for line in running.log):
        await sleep(reactor, 0.02)
    login, logout = [line for line in running.log if line.startswith("manhole: ")]
    assert login.startswith("manhole: alice@example SHA256:")
    assert login.endswith(" logged in")
    assert logout.endswith(" logged out")


@pytest.mark.parametrize(
    ("user", "key", "options"),
    [
        ("meter", "mallory", ()),
        ("root", "alice", ()),
        ("meter", "nobody", ()),
        ("meter", "nobody", ("-o", "PreferredAuthentications=password,keyboard-interactive", "-o", "BatchMode=no")),
    ],
)
@pytest_twisted.ensureDeferred
async def test_only_an_authorized_key_with_the_right_user_name_logs_in(make, user, key, options):
    running = make()
    out, err, code = await running.ssh("6 * 7\n", *options, user=user, key=key)
    assert code == 255
    assert "Permission denied (publickey)" in err
    assert "42" not in out
    assert not any("logged in" in line for line in running.log)


@pytest_twisted.ensureDeferred
async def test_refused_key_is_logged(make):
    running = make()
    await running.ssh("", key="mallory")
    assert [line for line in running.log if line.startswith("manhole: login refused for SHA256:")]


@pytest.mark.parametrize("options", [("-L", "0:127.0.0.1:1"), ("-R", "0:127.0.0.1:1"), ("-s",)])
@pytest_twisted.ensureDeferred
async def test_session_offers_only_a_shell(make, options, logged_errors):
    running = make()
    out, err, code = await running.ssh("", "-o", "ExitOnForwardFailure=yes", *options)
    logged_errors.flush()
    assert code == 255 or options[0] == "-L", (out, err)


@pytest_twisted.ensureDeferred
async def test_manhole_listens_on_a_unix_socket(make, tmp_path):
    socket = tmp_path / "manhole.sock"
    relay = tmp_path / "relay.py"
    relay.write_text(
        "import os, socket, sys, threading\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "def up():\n    while data := os.read(0, 65536): s.sendall(data)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := s.recv(65536): os.write(1, data)\n"
    )
    running = make(f"unix:{socket}:mode=600")
    out, err, _ = await running.ssh("6 * 7\n", "-o", f"ProxyCommand={sys.executable} {relay} {socket}")
    assert socket.stat().st_mode & 0o777 == 0o600
    assert "\r\n42\r\n" in out, err


@pytest_twisted.ensureDeferred
async def test_stop_closes_open_sessions(make):
    running = make(poll_now=lambda name: Deferred())
    session = Deferred.fromCoroutine(running.ssh("poll_now('cpu')\n"))
    while not any("logged in" in line for line in running.log):
        await sleep(reactor, 0.05)
    await running.service.stopService()
    _, _, code = await session
    assert code == 255


@pytest_twisted.ensureDeferred
async def test_address_in_use_does_not_keep_the_daemon_from_starting(make, logged_errors):
    first = make()
    second = make(f"tcp:{first.port}:interface=127.0.0.1")
    assert second.service.running
    [event] = logged_errors.flush()
    assert event["advice"] == "; set another endpoint for this daemon in [manhole.by_daemon]"
