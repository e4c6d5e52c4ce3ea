"""Schemathesis asks the API whatever its OpenAPI document allows, and whatever it does not."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue

from meter.api import Api
from meter.api import SampleIngest
from meter.api import site
from tests.asking import KEYS
from tests.asking import Asking
from tests.unit.api.test_ingest import Bus

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest_twisted.async_yield_fixture
async def url() -> AsyncIterator[str]:
    asking = Asking()
    acceptance = SampleIngest(KEYS, "test", Bus(), asking.store)  # type: ignore[arg-type]
    served: Any = site(Api(asking.store, asking.clock, acceptance=acceptance), reactor)
    port = reactor.listenTCP(0, served, interface="127.0.0.1")
    yield f"http://127.0.0.1:{port.getHost().port}"
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_every_answer_is_as_described(url: str, tmp_path: Path) -> None:
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
