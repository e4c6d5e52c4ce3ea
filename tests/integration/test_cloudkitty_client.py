"""python-cloudkittyclient asks a server on a loopback port for summaries and data frames, as an administrator and as a tenant."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue

from meter.api import Api
from meter.api import make_site
from tests.api_client import ApiClient
from tests.rated_month import FixedPrices
from tests.rated_month import keep_usage
from tests.unit.api.handlers.test_cloudkitty import TOKENS

CLOUDKITTY = Path(sys.executable).with_name("cloudkitty")
TIMES = ("-b", "2025-11-01T00:00:00+01:00", "-e", "2025-12-01T00:00:00+01:00")


@pytest_twisted.async_yield_fixture
async def url() -> AsyncIterator[str]:
    data = ApiClient(clock=Clock())
    directory = await Deferred.fromCoroutine(keep_usage(data.store))
    served: Any = make_site(Api(data.store, data.clock, auth=TOKENS, prices=FixedPrices(directory)), reactor)  # type: ignore[arg-type]
    port = reactor.listenTCP(0, served, interface="127.0.0.1")
    yield f"http://127.0.0.1:{port.getHost().port}"
    await port.stopListening()


async def run(url: str, who: str, *words: str) -> tuple[str, str, int]:
    """Return standard output, standard error and the exit status of the command."""
    options = ["--os-auth-type", "admin_token", "--os-endpoint", url, "--os-token", f"{who}-token"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    environment |= {"PYTHONWARNINGS": "ignore"}
    arguments = [*options, "--os-rating-api-version", "2", *words]
    output, errors, code = await getProcessOutputAndValue(str(CLOUDKITTY), arguments, environment)
    return output.decode(), errors.decode(), code


async def table(url: str, who: str, *words: str) -> list[dict[str, str]]:
    """Return the rows of the table that the command prints, by heading."""
    output, errors, code = await run(url, who, *words)
    assert (code, errors) == (0, "")
    lines = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[1:]]


@pytest_twisted.ensureDeferred
async def test_administrator_gets_a_summary_by_sku_and_project(url: str) -> None:
    rows = await table(
        url, "admin", "summary", "get", *TIMES, "-g", "type", "-g", "project_id", "--filter", "currency:EUR"
    )
    assert {(row["Type"], row["Project id"]) for row in rows} >= {("vm", "shop"), ("vm", "lab"), ("egress", "shop")}
    [egress] = [row for row in rows if row["Type"] == "egress"]
    assert (egress["Qty"], egress["Rate"]) == ("1650.5", "125.13")


@pytest_twisted.ensureDeferred
async def test_tenant_gets_their_own_summary_and_data_frames(url: str) -> None:
    [row] = await table(url, "lab", "summary", "get", *TIMES, "-g", "type", "--filter", "type:vm")
    assert (row["Qty"], row["Rate"], row["Type"]) == ("0.5", "0.00625", "vm")
    frames = await table(url, "lab", "dataframes", "get", *TIMES, "--filter", "type:vm")
    assert [(row["Metric Type"], row["Unit"], row["Quantity"], row["Price"]) for row in frames] == [
        ("vm", "Hours", "0.5", "0.00625")
    ]
    assert 'id="job-1"' in frames[0]["Group By"]


@pytest_twisted.ensureDeferred
async def test_tenant_gets_nothing_of_others(url: str) -> None:
    output, errors, code = await run(url, "lab", "summary", "get", *TIMES, "--filter", "project_id:shop")
    assert code != 0
    assert "shop" not in output
    assert "401" in errors or "Not Authorized" in errors


@pytest_twisted.ensureDeferred
async def test_library_reads_summary_and_data_frames(url: str) -> None:
    found = await deferToThread(ask, url)
    assert found["summary"]["total"] == len(found["summary"]["results"]) == 1
    assert found["summary"]["columns"][:4] == ["begin", "end", "qty", "rate"]
    assert found["dataframes"]["total"] > len(found["dataframes"]["dataframes"]) > 0


def ask(url: str) -> dict[str, Any]:
    from cloudkittyclient import client
    from keystoneauth1.session import Session
    from keystoneauth1.token_endpoint import Token

    session = Session(auth=Token(url, "shop-token"))
    asking = client.Client("2", session=session)
    times = {"begin": "2025-11-01T00:00:00+01:00", "end": "2025-12-01T00:00:00+01:00"}
    return {
        "summary": asking.summary.get_summary(**times),
        "dataframes": asking.dataframes.get_dataframes(**times, limit=5, filters={"type": "vm"}),
    }
