"""Settings that the manhole refuses, and its namespace; tests/integration/test_manhole.py has a client log in."""

from __future__ import annotations

import subprocess
import warnings
from pathlib import Path

import pytest
import pytest_twisted
from twisted.conch.manhole_ssh import ConchFactory
from twisted.internet.testing import MemoryReactorClock

from meter.plugins.registry import COMPUTE
from meter.plugins.registry import Decision

with warnings.catch_warnings():
    # Twisted 26.10's twisted.conch.checkers imports spwd, which Python 3.11 and 3.12 deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)
    from meter.daemon.manhole import manhole
    from meter.daemon.manhole import namespace
    from meter.daemon.manhole import problems
    from meter.daemon.manhole_shell import Plugins

HERE = "tcp:8778:interface=127.0.0.1"


@pytest.fixture
def files(tmp_path) -> tuple[str, str]:
    """A host key and a file that admits one key, as they should be."""
    host_key, authorized = tmp_path / "host_key", tmp_path / "authorized_keys"
    for path in (host_key, tmp_path / "alice"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    authorized.write_text("\n# people\n" + (tmp_path / "alice.pub").read_text())
    authorized.chmod(0o600)
    return str(host_key), str(authorized)


@pytest.mark.parametrize(
    "listen",
    [
        HERE,
        "tcp:port=8778:interface=127.0.0.1:backlog=5",
        r"tcp6:8778:interface=\:\:1",
        "unix:/run/meter/manhole.sock:mode=600",
        "unix:/run/meter/manhole.sock:mode=0660",
    ],
)
def test_loopback_and_protected_sockets_are_safe(listen, files):
    assert problems(listen, *files) == []


@pytest.mark.parametrize(
    "listen",
    [
        "tcp:8778",
        "tcp:8778:interface=0.0.0.0",
        "tcp:8778:interface=192.0.2.1",
        "tcp:8778:interface=",
        "tcp:8778:interface=localhost",
        "tcp:8778:127.0.0.1",
        "tcp:8778:interface=127.0.0.1:interface=0.0.0.0",
        r"tcp6:8778:interface=\:\:",
        "ssl:8778:interface=127.0.0.1",
        "systemd:domain=INET:index=0",
        "unix:/run/meter/manhole.sock",
        "unix:/run/meter/manhole.sock:mode=666",
        "unix:/run/meter/manhole.sock:mode=600:mode=666",
        "stdio:",
        "8778",
        "",
    ],
)
def test_endpoint_reachable_from_other_hosts_is_refused(listen, files):
    found = problems(listen, *files)
    assert found
    assert all(text.startswith("[manhole] listen: ") for text in found)
    assert "tcp:8778:interface=127.0.0.1" in found[0] or ":mode=600" in found[0]
    with pytest.raises(ValueError, match=r"\[manhole\] listen: "):
        manhole(MemoryReactorClock(), listen, *files, {})


def test_missing_host_key_is_refused_with_the_command_that_creates_one(files, tmp_path):
    path = str(tmp_path / "none")
    assert problems(HERE, path, files[1]) == [
        f"[manhole] host_key_file: {path}: No such file or directory; create one with: ssh-keygen -t ed25519 -N '' -f {path}"
    ]


def test_host_key_readable_by_others_is_refused(files):
    Path(files[0]).chmod(0o640)
    assert problems(HERE, *files) == [
        f"[manhole] host_key_file: {files[0]} is accessible to other users; fix that with: chmod 600 {files[0]}"
    ]


def test_public_key_encrypted_key_and_garbage_are_refused_as_host_key(files, tmp_path):
    locked, nonsense = tmp_path / "locked", tmp_path / "nonsense"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", locked], check=True)
    nonsense.write_text("nothing like a key")
    public = tmp_path / "public"
    public.write_text(Path(files[0] + ".pub").read_text())
    for path, clause in (
        (locked, "has a passphrase"),
        (nonsense, "is not a private key"),
        (public, "is a public key"),
    ):
        path.chmod(0o600)
        [problem] = problems(HERE, str(path), files[1])
        assert problem.startswith(f"[manhole] host_key_file: {path} {clause}")


def test_truncated_key_is_refused(files):
    Path(files[0]).write_text(Path(files[0]).read_text()[:150])
    [problem] = problems(HERE, *files)
    assert "is not a private key; create one with: ssh-keygen" in problem


def test_authorized_keys_writable_by_others_are_refused(files):
    Path(files[1]).chmod(0o620)
    assert problems(HERE, *files) == [
        f"[manhole] authorized_keys_file: {files[1]} is writable by other users; fix that with: chmod go-w {files[1]}"
    ]


@pytest.mark.parametrize(
    "line", ["ssh-ed25519 AAAA x", "no key at all", 'from="10.0.0.1" ssh-ed25519 AAAAC3Nz', "ssh-rsa !!!", "\udcff"]
)
def test_line_that_is_not_a_key_is_reported(files, line):
    with open(files[1], "a", errors="surrogateescape") as file:
        file.write(line + "\n")
    [problem] = problems(HERE, *files)
    assert problem.startswith(f"[manhole] authorized_keys_file: {files[1]}, line 4: not a public key without options")


def test_empty_authorized_keys_are_refused(files, tmp_path):
    Path(files[1]).write_text("# nobody yet\n")
    assert problems(HERE, *files) == [
        f"[manhole] authorized_keys_file: {files[1]} contains no key: nobody could log in"
    ]
    assert problems(HERE, files[0], str(tmp_path / "none")) == [
        f"[manhole] authorized_keys_file: {tmp_path / 'none'}: No such file or directory"
    ]


def test_all_problems_are_reported_at_once(tmp_path):
    with pytest.raises(ValueError, match="listen") as raised:
        manhole(MemoryReactorClock(), "tcp:8778", str(tmp_path / "a"), str(tmp_path / "b"), {})
    assert [line.split(":")[0] for line in str(raised.value).splitlines()] == [
        "[manhole] listen",
        "[manhole] host_key_file",
        "[manhole] authorized_keys_file",
    ]


def test_keys_of_one_manhole_are_not_shared(files):
    reactor = MemoryReactorClock()
    manhole(reactor, HERE, *files, {}).startService()
    assert reactor.tcpServers[0][1].publicKeys
    assert ConchFactory.publicKeys == ConchFactory.privateKeys == {}


def test_manhole_listens_on_its_endpoint(files):
    reactor = MemoryReactorClock()
    service = manhole(reactor, HERE, *files, {})
    assert reactor.tcpServers == []
    service.startService()
    [(port, _, _, interface)] = reactor.tcpServers
    assert (port, interface) == (8778, "127.0.0.1")


def decision(name: str) -> Decision:
    return Decision(kind=COMPUTE, name=name, origin="here", state="active")


def test_plugins_are_shown_as_a_current_table():
    decisions: list[Decision] = []
    plugins = Plugins(lambda: decisions)
    assert repr(plugins) == "PLUGIN  KIND  STATE  ORIGIN  REASON"
    decisions += [decision("cpu"), decision("disk")]
    assert "\ncpu     compute  active  here" in repr(plugins)
    assert (list(plugins), len(plugins), plugins["disk"]) == (["cpu", "disk"], 2, decisions[1])
    with pytest.raises(KeyError):
        plugins["none"]


def test_help_lists_every_name():
    names = namespace(status=str, config=str)
    text = names["help"]()
    assert all(name in text for name in names if name != "help")


@pytest_twisted.ensureDeferred
async def test_poll_now_in_a_daemon_without_pollsters_says_so():
    with pytest.raises(LookupError, match="this daemon does not poll"):
        await namespace(status=str, config=str)["poll_now"]("cpu")
