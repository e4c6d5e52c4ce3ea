"""The API as a daemon: posted samples travel over the bus, and live streams show samples as they are stored."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.daemons import BASE
from tests.system.daemons import STOPPED
from tests.system.daemons import Daemon
from tests.system.daemons import House
from tests.system.daemons import fetch
from tests.system.daemons import until

CEILOMETER = Path(sys.executable).with_name("ceilometer")
APPLE = {
    "counter_name": "apples",
    "counter_type": "gauge",
    "counter_unit": "apple",
    "counter_volume": 3,
    "resource_id": "tree",
}


ACCEPTING = BASE.replace("[api]\n", "[api]\naccept_samples = true\n")


@pytest.fixture
def api(furnished: House) -> Iterator[Daemon]:
    collector = furnished.daemon("meter-collector").start()
    api = furnished.daemon("meter-api", base=ACCEPTING).start()
    for daemon in (collector, api):
        daemon.until_ready()
    yield api
    for daemon in (collector, api):
        assert daemon.stop() in STOPPED, daemon.log
        assert "Traceback" not in daemon.log


def post(api: Daemon, path: str, content: Any) -> tuple[int, Any]:
    request = urllib.request.Request(
        api.api + path, json.dumps(content).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.status, json.load(response)


def ceilometer(api: Daemon, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OS_TOKEN": "any", "CEILOMETER_URL": api.api}
    ran = subprocess.run([CEILOMETER, *arguments], capture_output=True, text=True, timeout=180, env=environment)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


class LiveClient:
    """A client that reads ``/v2/live``."""

    def __init__(self, api: Daemon, query: str = "") -> None:
        self.connection = socket.create_connection(("127.0.0.1", api.api_port), timeout=180)
        self.connection.sendall(f"GET /v2/live?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.received = b""
        self.until(b": connected")

    def until(self, text: bytes) -> None:
        while text not in self.received:
            more = self.connection.recv(65536)
            assert more, self.received
            self.received += more


def test_posted_sample_is_stored_streamed_proved_and_exported(api: Daemon) -> None:
    stream = LiveClient(api, "q.field=meter&q.value=apples")
    ceilometer(
        api,
        *("sample-create", "-r", "tree", "-m", "apples", "--meter-type", "gauge", "--meter-unit", "apple"),
        *("--sample-volume", "3", "--resource-metadata", '{"kind.of": "elstar"}'),
    )
    until(lambda: api.get("/v2/meters/apples"), "the sample to come back")
    stream.until(b'"volume":3.0')
    stream.connection.close()

    status, (direct,) = post(api, "/v2/meters/apples?direct=True", [{**APPLE, "counter_volume": 4}])
    assert status == 201
    newest, first = api.get("/v2/samples?limit=2")
    assert (newest["id"], newest["volume"]) == (direct["message_id"], 4.0)
    assert first["metadata"] == {"kind.of": "elstar"}

    proof = api.get(f"/v2/samples/{first['id']}/proof")
    assert proof["key_id"] == "default"
    assert proof["message"]["resource_metadata"] == {"kind": {"of": "elstar"}}

    found = ceilometer(api, "query-samples", "-f", '{"and": [{"=": {"meter": "apples"}}, {">": {"volume": 3}}]}')
    assert (found.count("apples"), "4.0" in found) == (1, True)

    status, body = fetch(f"{api.api}/v2/samples", Accept="text/csv")
    assert (status, len(body.splitlines())) == (200, 3)
    assert api.get("/openapi.json")["openapi"] == "3.1.0"


def test_api_that_accepts_no_samples_needs_no_bus(api: Daemon, furnished: House) -> None:
    furnished.bus = "amqp://guest:guest@127.0.0.1:1/"
    reading = furnished.daemon("meter-api").start()
    reading.until_ready()
    assert reading.get("/v2/samples") == []
    with pytest.raises(urllib.error.HTTPError, match="403"):
        post(reading, "/v2/meters/apples", [APPLE])


def test_api_without_its_bus_serves_queries_and_refuses_samples(furnished: House) -> None:
    furnished.bus = "amqp://guest:guest@127.0.0.1:1/"
    api = furnished.daemon("meter-api", base=ACCEPTING).start().until_ready()
    status, body = fetch(f"http://127.0.0.1:{api.status_port}/readyz")
    bus = next(each for each in json.loads(body)["dependencies"] if each["name"] == "bus")
    assert (status, json.loads(body)["degraded"], bus["ready"]) == (200, True, False)
    assert bus["reason"].startswith("samples of clients are refused with 503")

    assert api.get("/v2/samples") == []
    with pytest.raises(urllib.error.HTTPError, match="503") as refused:
        post(api, "/v2/meters/apples", [APPLE])
    assert refused.value.headers["Retry-After"] == "5"
    assert b"127.0.0.1" not in refused.value.read()
    [request_id] = refused.value.headers.get_all("x-openstack-request-id")
    assert f"request {request_id}: samples cannot be published on the message bus" in api.log
    assert post(api, "/v2/meters/apples?direct=1", [APPLE])[0] == 201


def test_slow_or_disconnecting_clients_do_not_block_others(api: Daemon) -> None:
    batch = [{**APPLE, "resource_metadata": {"note": "x" * 200}} for _ in range(2000)]
    for _ in range(5):
        post(api, "/v2/meters/apples?direct=1", batch)
    slow = []
    for _ in range(8):  # twice as many as connections to the database
        connection = socket.create_connection(("127.0.0.1", api.api_port))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /v2/samples HTTP/1.1\r\nHost: localhost\r\nAccept: text/csv\r\n\r\n")
        slow.append(connection)
    half = socket.create_connection(("127.0.0.1", api.api_port))
    half.sendall(b"POST /v2/query/samples HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    time.sleep(0.5)
    assert len(api.get("/v2/samples?limit=5")) == 5  # 503 while they held all connections
    for connection in (*slow, half):
        connection.close()
    assert len(api.get("/v2/samples?limit=5")) == 5
