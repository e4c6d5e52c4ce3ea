"""Schemathesis sends requests that the OpenAPI document allows, and others that it does not allow."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.internet.utils import getProcessOutputAndValue

from meter.api import Api
from meter.api import SampleIngest
from meter.api import make_site
from meter.rating.book.watched_directory import WatchedPriceDirectory
from tests.api_client import KEYS
from tests.api_client import ApiClient
from tests.unit.api.test_ingest import RecordingBus

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
PRICES = WatchedPriceDirectory(Path(__file__).parents[2] / "etc/prices.d", Clock(), in_thread=maybeDeferred)
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest_twisted.async_yield_fixture
async def url() -> AsyncIterator[str]:
    api = ApiClient()
    ingest = SampleIngest(KEYS, "test", RecordingBus(), api.store)  # type: ignore[arg-type]
    served: Any = make_site(Api(api.store, api.clock, ingest=ingest, prices=PRICES), reactor)
    port = reactor.listenTCP(0, served, interface="127.0.0.1")
    yield f"http://127.0.0.1:{port.getHost().port}"
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_every_response_matches_the_openapi_document(url: str, tmp_path: Path) -> None:
    output, errors, code = await getProcessOutputAndValue(
        str(SCHEMATHESIS),
        [
            *("run", f"{url}/openapi.json", "--checks", CHECKS, "--phases", "coverage,fuzzing"),
            *("--exclude-path", "/v2/live", "--max-examples", "5", "--max-time", "10", "--seed", "1"),
            *("--no-shrink", "--no-color", "--warnings", "off", "--generation-database", "none"),
        ],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        path=str(tmp_path),
    )
    assert code == 0, output.decode()[-6000:] + errors.decode()
