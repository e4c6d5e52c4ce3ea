"""Budgets of a real collector: from samples on the bus to a webhook that its receiver verifies, once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
from typing import Any

import pytest
import standardwebhooks

from meter.sample import Sample
from tests.system.daemons import Daemon
from tests.system.daemons import House
from tests.system.daemons import until
from tests.system.test_spine import cast_bodies
from tests.system.test_spine import publish

SECRET = "whsec_" + 8 * "c3lz"


def zone_where_it_is_noon() -> str:
    """The name of a time zone in which neither the day nor the month changes while a test runs."""
    hours = datetime.now(UTC).hour - 12
    return f"Etc/GMT{hours:+d}"  # its sign is the other way round: Etc/GMT-5 is five hours ahead of UTC


PRICES = f"""
[[book]]
name = "eur"
currency = "EUR"
timezone = "{zone_where_it_is_noon()}"
issuer = "Cloud"
default = true
[[sku]]
id = "requests"
usage = "sum"
meter = "requests"
unit = "Requests"
factor = 1
[[price]]
id = "requests"
sku = "requests"
price = "0.10"
[[budget]]
id = "red-eur"
project = "red"
amount = "100"
used_percent = [50, 80]
webhooks = ["billing"]
"""


class Receiver(ThreadingHTTPServer):
    """Receives webhooks; it answers with ``status``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hook)
        self.status = 503
        self.received: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class Hook(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.serve_forever)
    thread.start()
    yield receiver
    receiver.shutdown()
    receiver.server_close()
    thread.join()


def requests(volume: float) -> Sample:
    return Sample(
        name="requests",
        type="delta",
        unit="request",
        volume=volume,
        resource_id="lb",
        project_id="red",
        timestamp=datetime.now(UTC),
        message_id=str(uuid.uuid4()),
    )


def meter_rate(daemon: Daemon, *words: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", "from meter.commands.rate.command import main; main()"]
    ran = subprocess.run(
        [*command, "--config", str(daemon.config_file), *words, "--json"], capture_output=True, text=True, timeout=180
    )
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_threshold_is_told_once_although_the_receiver_fails_and_the_collector_is_killed(
    furnished: House, receiver: Receiver
) -> None:
    prices = furnished.directory / "prices.d"
    prices.mkdir()
    (prices / "prices.toml").write_text(PRICES)
    rating = f'[rating]\nprice_directory = "{prices}"\ninterval_seconds = 2.0\n'
    target = f'[[rating.webhooks]]\nname = "billing"\nurl = "{receiver.url}"\nsecret = "{SECRET}"\n'
    collector = furnished.daemon("meter-collector", rating + target).start().until_ready()
    api = furnished.daemon("meter-api", rating + target).start().until_ready()
    publish(furnished.bus, cast_bodies([requests(600)]))
    until(lambda: receiver.received, "the first attempt")
    collector.stop(signal.SIGKILL)
    receiver.status = 204
    collector.start().until_ready()
    [waiting] = meter_rate(collector, "webhooks", "retry", "--target", "billing")
    until(lambda: len(receiver.received) == 2, "the second attempt")

    publish(furnished.bus, cast_bodies([requests(250)]))
    until(lambda: len(receiver.received) == 3, "the second threshold")
    runs = 'meter_rating_step_succeeded_timestamp_seconds{step="budgets"}'
    seen = collector.metric(runs)
    until(lambda: collector.metric(runs) > seen, "a further evaluation")

    ids = [headers["webhook-id"] for headers, _ in receiver.received]
    assert ids[0] == ids[1] == waiting["id"] != ids[2]
    messages = [standardwebhooks.Webhook(SECRET).verify(body, headers) for headers, body in receiver.received]
    assert [(each["data"]["percent"], each["data"]["used"]) for each in messages] == [
        ("50", "60.00"),
        ("50", "60.00"),
        ("80", "85.00"),
    ]
    [budget] = api.get("/v2/budgets")
    assert (budget["used"], budget["left"], budget["complete"]) == ("85.00", "15.00", True)
    assert all(each["reached_at"] for each in budget["thresholds"])
    [state] = meter_rate(collector, "budgets")
    assert (state["budget_id"], state["used"]) == ("red-eur", "85.00")
    assert meter_rate(collector, "webhooks", "list") == []
    assert SECRET not in collector.log
    assert collector.reason("webhooks") is None
