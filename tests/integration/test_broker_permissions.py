"""Each daemon works with exactly the permissions of the broker that docs/install.rst gives it, and not with fewer."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

import pytest

from tests.install.page import blocks
from tests.integration.test_oslo_notifications import NOTIFIER
from tests.servers.postgresql import PostgreSQL
from tests.servers.rabbitmq import RabbitMQ
from tests.system.daemons import Daemon
from tests.system.daemons import House
from tests.system.daemons import until

NOTIFICATION = (Path(__file__).parents[1] / "data/notifications/openstack.volume.resize.end.json").read_text()
NOTHING = "^$"
POLLING = "[polling]\ninterval_seconds = 1.0\n"
COMPUTE = f'{POLLING}[compute]\nlibvirt_uri = "test:///default"\n'


@dataclass(frozen=True, slots=True)
class Permissions:
    """Regular expressions of the names that a user may configure, write to and read."""

    configure: str
    write: str
    read: str


def permissions() -> dict[str, Permissions]:
    """Return the permissions of each user of the page."""
    text = "".join(block.text for block in blocks() if block.hosts == ("broker",))
    commands = [shlex.split(line) for line in text.replace("\\\n", " ").splitlines() if "set_permissions" in line]
    return {user: Permissions(*patterns) for _, _, _, _, user, *patterns in commands}


PERMISSIONS = permissions()


@pytest.fixture
def region(tmp_path: Path, rabbitmq: RabbitMQ, postgresql: PostgreSQL) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons with the users of the page: ``region("meter-compute", "meter-agent", …)``."""
    shared = rabbitmq.vhost()
    house = House(tmp_path, store=postgresql.dsn_with_schema())

    def start(
        name: str, user: str, more: str = "", *, restricted: Permissions | None = None, vhost: str = ""
    ) -> Daemon:
        allowed = restricted or PERMISSIONS[user]
        url = rabbitmq.user_url(vhost or shared, user, allowed.configure, allowed.write, allowed.read)
        return house.daemon(name, f'[bus]\nurl = "{url}"\n{more}').start()

    start.vhost = shared  # type: ignore[attr-defined]
    yield start
    house.close()


def notify(url: str) -> subprocess.CompletedProcess[str]:
    """Publish a notification as Nova does, with the user of ``url``."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        NOTIFIER,
        url.replace("amqp:", "rabbit:"),
        "messagingv2",
        "lamp.lit",
    ]
    return subprocess.run(command, input="{}", capture_output=True, text=True, timeout=120, check=False)


def test_every_daemon_works_with_the_permissions_of_the_page(region: Callable[..., Daemon], rabbitmq: RabbitMQ) -> None:
    collector = region("meter-collector", "meter-collector").until_ready()
    api = region("meter-api", "meter-api")
    central = region("meter-central", "meter-central", POLLING)
    compute = region("meter-compute", "meter-agent", COMPUTE)
    for daemon in (api, central, compute):
        daemon.until_ready()

    def stored() -> set[str]:
        return {each["name"] for each in api.get("/v2/meters?limit=1000")}

    until(lambda: {"vcpus", "meter.dependency.ready"} <= stored(), "samples of both agents")
    daemons = ("meter-collector", "meter-api", "meter-central", "meter-compute")
    until(
        lambda: collector.metric('meter_reports_total{kind="heartbeat",outcome="applied"') >= len(daemons), "heartbeats"
    )
    nova = PERMISSIONS["meter-nova"]
    url = rabbitmq.user_url(region.vhost, "meter-nova", nova.configure, nova.write, nova.read)  # type: ignore[attr-defined]
    published = notify(url)
    assert published.returncode == 0, published.stderr
    until(lambda: collector.metric('meter_notifications_total{event_type="lamp.lit"'), "the notification")


CASES = [
    ("meter-compute", "meter-agent", "write", COMPUTE),
    ("meter-api", "meter-api", "write", ""),
    ("meter-central", "meter-central", "configure", POLLING),
    ("meter-central", "meter-central", "write", POLLING),
    ("meter-central", "meter-central", "read", POLLING),
    ("meter-collector", "meter-collector", "configure", ""),
    ("meter-collector", "meter-collector", "write", ""),
    ("meter-collector", "meter-collector", "read", ""),
]
"""Daemon, user, and a permission that the user of the page has and this daemon cannot do without."""


def refused(daemon: Daemon) -> bool:
    """Whether the broker has refused something that the daemon needs."""
    reasons = [each["reason"] for each in daemon.readiness().get("dependencies", ()) if not each["ready"]]
    if daemon.name == "meter-api":  # which works without a bus, and has no heartbeats then
        reasons = [line for line in daemon.log.splitlines() if "no heartbeat can be published" in line]
    return any("ACCESS_REFUSED" in each or "NOT_FOUND" in each for each in reasons)


def test_no_daemon_works_with_a_permission_less(region: Callable[..., Daemon], rabbitmq: RabbitMQ) -> None:
    region("meter-collector", "meter-collector").until_ready()
    started = []
    for daemon, user, what, more in CASES:
        restricted = replace(PERMISSIONS[user], **{what: NOTHING})
        # Where queues exist, nobody needs to declare them.
        vhost = rabbitmq.vhost() if what == "configure" else ""
        started.append((daemon, what, region(daemon, user, more, restricted=restricted, vhost=vhost)))
    for daemon, what, running in started:
        until(lambda running=running: refused(running), f"{daemon} without {what} to be refused")
        running.close()


def test_each_permission_of_the_page_is_taken_away_once() -> None:
    given = {
        (user, what)
        for user, each in PERMISSIONS.items()
        for what in ("configure", "write", "read")
        if getattr(each, what) != NOTHING and user != "meter-nova"
    }
    assert given == {(user, what) for _, user, what, _ in CASES}
