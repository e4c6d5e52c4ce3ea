"""The Keystone of the region: an OpenStack that exists before Meter is installed, as the page assumes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.install.page import DOMAIN
from tests.servers.keystone import PASSWORD
from tests.servers.keystone import Keystone
from tests.servers.openstack import HOME
from tests.servers.openstack import install

PORT = 5000
REGION = "RegionOne"
TOKEN_SECONDS = 3600
START_SECONDS = 240.0
NAME = "keystone"
URL = f"http://{NAME}.{DOMAIN}:{PORT}/v3"

CREDENTIALS: Mapping[str, str] = {
    "OS_AUTH_URL": URL,
    "OS_USERNAME": "admin",
    "OS_PASSWORD": PASSWORD,
    "OS_PROJECT_NAME": "admin",
    "OS_USER_DOMAIN_NAME": "Default",
    "OS_PROJECT_DOMAIN_NAME": "Default",
    "OS_REGION_NAME": REGION,
    "OS_IDENTITY_API_VERSION": "3",
}
"""What the page calls the credentials of an administrator in the environment."""


def start_keystone(stack: ExitStack, campaign: Any) -> dict[str, str]:
    """Start a Keystone in the region's network until ``stack`` ends; return the credentials of its administrator."""
    install()
    machine = campaign.machine(NAME)
    directory = Path(machine.directory) / "keystone"
    directory.mkdir()
    command = ["nsenter", f"--net=/proc/{machine.pid}/ns/net", sys.executable, "-m", __name__, str(directory)]
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    stack.callback(process.wait)
    stack.callback(process.kill)
    deadline = time.monotonic() + START_SECONDS
    while not (directory / "ready").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Keystone did not start:\n{(directory / 'output').read_text()[-3000:]}")
        time.sleep(0.2)
    return dict(CREDENTIALS)


def serve(directory: Path) -> None:
    """Run Keystone until this process is killed."""
    server = Keystone(
        HOME / "bin", directory, TOKEN_SECONDS, port=PORT, address="0.0.0.0", host=f"{NAME}.{DOMAIN}", region=REGION
    )
    server.start()
    (directory / "ready").touch()
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
