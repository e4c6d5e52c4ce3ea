"""python-ceilometerclient 2.9.0, which existing billing scripts use, works against the API over a loopback port."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue

from meter.api import Api
from meter.api import SampleIngest
from meter.api import make_site
from tests.api_client import KEYS
from tests.api_client import ApiClient
from tests.unit.api.test_ingest import RecordingBus

CEILOMETER = Path(sys.executable).with_name("ceilometer")


class Shell:
    """Runs the client's command against the API at one URL, which publishes on ``bus``."""

    def __init__(self, url: str, bus: RecordingBus) -> None:
        self.url = url
        self.bus = bus

    async def __call__(self, *arguments: str) -> list[dict[str, str]]:
        """Return the rows of the table that the command prints, by heading."""
        output, errors, code = await self.run(*arguments)
        assert (code, errors) == (0, "")
        lines = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith("|")]
        cells = [[cell.strip() for cell in line] for line in lines]
        return [dict(zip(cells[0], row, strict=True)) for row in cells[1:]]

    async def run(self, *arguments: str) -> tuple[str, str, int]:
        """Return standard output, standard error and the exit status of the command."""
        environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OS_TOKEN": "any", "CEILOMETER_URL": self.url}
        output, errors, code = await getProcessOutputAndValue(str(CEILOMETER), arguments, environment)
        return output.decode(), errors.decode(), code


@pytest_twisted.async_yield_fixture
async def shell() -> AsyncIterator[Shell]:
    api = ApiClient()
    bus = RecordingBus()
    ingest = SampleIngest(KEYS, "openstack", bus, api.store)  # type: ignore[arg-type]
    served: Any = make_site(Api(api.store, api.clock, ingest=ingest), reactor)
    port = reactor.listenTCP(0, served, interface="127.0.0.1")
    yield Shell(f"http://127.0.0.1:{port.getHost().port}", bus)
    await port.stopListening()


def properties(rows: list[dict[str, str]]) -> dict[str, str]:
    """Return the properties of one entry, whose table has a row per property."""
    return {row["Property"]: row["Value"] for row in rows}


@pytest_twisted.ensureDeferred
async def test_shell_lists_meters_and_samples(shell: Shell) -> None:
    meters = await shell("meter-list")
    assert [(row["Name"], row["Type"], row["Resource ID"]) for row in meters] == [
        ("cpu", "cumulative", "a/b c"),
        ("cpu", "cumulative", "vm-1"),
        ("disk.size", "gauge", "vm-1"),
    ]
    assert len(await shell("meter-list", "-q", "resource=vm-1", "-l", "5", "--unique", "True")) == 2
    assert [row["ID"] for row in await shell("sample-list", "-l", "2")] == ["s3", "s2"]
    query = "timestamp>2026-11-22T12:00:30;resource_id=vm-1"
    (old,) = await shell("sample-list", "-m", "cpu", "-q", query, "-l", "3")
    assert (old["Name"], old["Volume"], old["Timestamp"]) == ("cpu", "20.0", "2026-11-22T12:01:00")
    (typed,) = await shell("sample-list", "-m", "cpu", "-q", "metadata.size=integer::0")
    assert typed["Volume"] == "10.0"


@pytest_twisted.ensureDeferred
async def test_shell_shows_one_sample_and_one_resource(shell: Shell) -> None:
    sample = properties(await shell("sample-show", "s0"))
    assert (sample["id"], sample["volume"], sample["recorded_at"]) == ("s0", "10.0", "2026-11-22T12:10:00")
    resource = properties(await shell("resource-show", "a/b c"))
    assert (resource["resource_id"], resource["project_id"]) == ("a/b c", "red")
    resources = await shell("resource-list", "-q", "project_id=red")
    assert [row["Resource ID"] for row in resources] == ["a/b c"]


@pytest_twisted.ensureDeferred
async def test_shell_shows_statistics(shell: Shell) -> None:
    (whole,) = await shell("statistics", "-m", "cpu")
    assert (whole["Max"], whole["Sum"], whole["Count"], whole["Duration"]) == ("60.0", "90.0", "3", "120.0")
    rows = await shell(
        *("statistics", "-m", "cpu", "-p", "60", "-g", "resource_id", "-q", "timestamp>=2026-11-22T12:00:00"),
        *("-a", "max", "-a", "cardinality<-resource_id"),
    )
    assert [row["Max"] for row in rows] == ["10.0", "20.0", "60.0"]
    assert [row["cardinality/resource_id"] for row in rows] == ["1.0", "1.0", "1.0"]
    assert rows[2]["Group By"] == "{'resource_id': 'a/b c'}"


@pytest_twisted.ensureDeferred
async def test_shell_shows_capabilities_and_errors(shell: Shell) -> None:
    output, _, code = await shell.run("capabilities")
    assert code == 0
    assert '"statistics:groupby": true' in output
    _, errors, code = await shell.run("sample-list", "-q", "wings=3")
    assert code == 1
    assert "unrecognized field in query" in errors
    _, errors, code = await shell.run("sample-show", "nope")
    assert code == 1
    assert "nope" in errors


CREATE = ("-r", "r", "-m", "apples", "--meter-type", "gauge", "--meter-unit", "x", "--sample-volume", "3")


@pytest_twisted.ensureDeferred
async def test_shell_posts_samples(shell: Shell) -> None:
    await shell("sample-create", *CREATE, "--resource-metadata", '{"a":"b"}')
    (message,) = shell.bus.messages()
    assert (message["counter_name"], message["counter_volume"], message["resource_metadata"]) == (
        "apples",
        3,
        {"a": "b"},
    )
    await shell("sample-create", *CREATE, "--direct", "True")
    (stored,) = await shell("sample-list", "-m", "apples")
    assert (stored["Resource ID"], stored["Volume"]) == ("r", "3.0")
    fields = {"counter_type": "gauge", "counter_unit": "x", "counter_volume": 1, "resource_id": "r"}
    pair = [{**fields, "counter_name": "apples"}, {**fields, "counter_name": "pears"}]
    await shell("sample-create-list", json.dumps(pair))
    assert [message["counter_name"] for message in shell.bus.messages()] == ["apples", "apples", "pears"]


@pytest_twisted.ensureDeferred
async def test_shell_sends_complex_queries(shell: Shell) -> None:
    rows = await shell("query-samples", "-f", '{"=": {"meter": "cpu"}}', "-o", '[{"timestamp": "asc"}]', "-l", "2")
    assert [row["Timestamp"] for row in rows] == ["2026-11-22T12:00:00", "2026-11-22T12:01:00"]


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (("alarm-list",), "HTTP 410"),
        (("alarm-show", "x"), "HTTP 410"),
        (("alarm-history", "x"), "HTTP 410"),
        (("query-alarms", "-f", '{"=": {"name": "x"}}'), "HTTP 410"),
        (("query-alarm-history", "-f", '{"=": {"type": "x"}}'), "HTTP 410"),
        (("event-list",), "HTTP 404"),
        (("event-type-list",), "HTTP 404"),
        (("trait-description-list", "-e", "x"), "HTTP 404"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
@pytest_twisted.ensureDeferred
async def test_shell_shows_that_alarms_are_gone(shell: Shell, command: tuple[str, ...], text: str) -> None:
    _, errors, code = await shell.run(*command)
    assert code == 1
    assert errors
    assert "Traceback" not in errors
    assert text in errors


@pytest_twisted.ensureDeferred
async def test_python_client_uses_every_operation(shell: Shell) -> None:
    def read() -> dict[str, Any]:
        from ceilometerclient.client import get_client

        client = get_client("2", os_token="any", os_endpoint=shell.url)
        query = [{"field": "resource_id", "op": "eq", "value": "vm-1"}]
        return {
            "meters": [meter.name for meter in client.meters.list(q=query)],
            "samples": [sample.counter_volume for sample in client.samples.list("cpu", q=query)],
            "new_samples": [sample.id for sample in client.new_samples.list(limit=1)],
            "sample": client.new_samples.get("s0").metadata,
            "resource": client.resources.get("a/b c").links[0]["rel"],
            "complex": [one.id for one in client.query_samples.query(filter='{"=": {"user": "bob"}}', limit=3)],
            "created": client.samples.create(
                counter_name="apples",
                counter_type="gauge",
                counter_unit="x",
                counter_volume=3,
                resource_id="r",
                direct=True,
            )[0].counter_volume,
            "sum": client.statistics.list("cpu", q=query)[0].sum,
            "able": client.capabilities.get().api["statistics:groupby"],
        }

    assert await deferToThread(read) == {
        "meters": ["cpu", "disk.size"],
        "samples": [20.0, 10.0],
        "new_samples": ["s3"],
        "sample": {"flavor.name": "m1", "size": "0"},
        "resource": "self",
        "complex": ["s2"],
        "created": 3.0,
        "sum": 30.0,
        "able": True,
    }
