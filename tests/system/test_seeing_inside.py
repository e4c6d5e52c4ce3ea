"""Every daemon shows its health, its metrics and, to whoever holds a key, its inside."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.ports import free_port
from tests.servers import not_installed
from tests.system.daemons import fetch
from tests.system.daemons import until

DAEMONS = ("meter-compute", "meter-central", "meter-collector", "meter-api", "meter")

SESSION = """
1 + 1
status()
print(config)
pollsters
listeners
poll_now("system")
"""


def keygen(path):
    if not shutil.which("ssh"):
        not_installed("OpenSSH's client is not installed: apt-get install --no-install-recommends openssh-client")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.mark.parametrize("name", DAEMONS)
def test_its_inside_is_open_to_whoever_holds_a_key(house, tmp_path, name):
    host, user, stranger = (keygen(tmp_path / each) for each in ("host", "user", "stranger"))
    port = free_port()
    if name != "meter":
        house.bus = f"amqp://guest:hunter2@127.0.0.1:{free_port()}/"
        house.store = f"postgresql://meter:hunter2@127.0.0.1:{free_port()}/meter"
    daemon = house.daemon(
        name,
        f'[manhole]\nlisten = "tcp:{port}:interface=127.0.0.1"\nhost_key_file = "{host}"\n'
        f'authorized_keys_file = "{user}.pub"\n[compute]\nlibvirt_uri = "test:///default"\n',
    ).start()

    def ssh(key, typed):
        options = ["-F", "none", "-tt", "-p", str(port), "-i", str(key), "-o", "BatchMode=yes"]
        options += ["-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        return subprocess.run(
            ["ssh", *options, "meter@127.0.0.1"], input=typed, capture_output=True, text=True, timeout=180
        )

    until(lambda: fetch(f"http://127.0.0.1:{daemon.status_port}/healthz")[0] == 200, f"{name} to live")
    session = ssh(user, SESSION)

    assert ">>> " in session.stdout, session.stderr
    assert "hunter2" not in session.stdout
    assert "[polling]" in session.stdout
    assert ("store" if name in ("meter-api", "meter-collector") else "bus") in session.stdout
    if name in ("meter-central", "meter"):
        assert "meter.process.cpu" in session.stdout  # awaited, and shown
    if name in ("meter-compute", "meter"):
        assert "meter.pollsters.libvirt" in session.stdout
    if name in ("meter-collector", "meter"):
        assert "nova.instance" in session.stdout
    refused = ssh(stranger, SESSION)
    assert refused.returncode == 255
    assert ">>> " not in refused.stdout
    assert fetch(f"http://127.0.0.1:{daemon.status_port}/healthz")[0] == 200


@pytest.mark.parametrize("name", DAEMONS)
def test_its_metrics_are_prometheus_text(house, name):
    house.bus = "" if name == "meter" else f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    daemon = house.daemon(name, '[compute]\nlibvirt_uri = "test:///default"\n').start()
    until(lambda: daemon.metric("meter_reactor_lag_seconds_count"), "metrics")

    _, body = fetch(f"http://127.0.0.1:{daemon.status_port}/metrics")

    assert f'daemon="{name}"' in body.decode()
    assert "# HELP meter_dependency_ready " in body.decode()
