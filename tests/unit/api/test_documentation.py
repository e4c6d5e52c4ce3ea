"""The examples of docs/api.rst and docs/api-corners.rst match the responses of the API."""

from __future__ import annotations

import io
import json
import re
import textwrap
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from meter.api import SampleIngest
from meter.api.operations import V1
from meter.api.operations import V2
from meter.api.operations import Operation
from meter.testing import MemoryStore
from tests.api_client import KEYS
from tests.api_client import ApiClient
from tests.unit.api.test_ingest import RecordingBus

PAGE = (Path(__file__).parents[3] / "docs" / "api.rst").read_text()
EXAMPLES = re.findall(r"\$ curl -s 'http://localhost:8777(.*?)' \| jq \.\n((?:   .*\n)+)", PAGE)


@pytest.fixture(scope="module")
def api() -> ApiClient:
    return ApiClient(keys=KEYS)


RANDOM = ("id", "digests", "mac")
"""Members of the batch in a proof that are other ones each time a batch is signed."""


def without_random_members(response: Any) -> Any:
    """Replace the random members of a proof by their lengths."""
    batch = response.get("batch") if isinstance(response, dict) else None
    if batch is None:
        return response
    return {**response, "batch": {**batch, **{name: len(batch[name]) for name in RANDOM}}}


@pytest.mark.parametrize(("path", "example"), EXAMPLES, ids=[path for path, _ in EXAMPLES])
def test_documented_example_matches_the_response(api: ApiClient, path: str, example: str) -> None:
    documented, response = json.loads(textwrap.dedent(example)), api(path, headers={"Host": "localhost:8777"}).json
    assert without_random_members(documented) == without_random_members(response)


@pytest.mark.parametrize("operation", V2, ids=[operation.name for operation in V2])
def test_every_operation_and_parameter_is_documented(operation: Operation) -> None:
    assert f"``{operation.method} {operation.path}``" in PAGE
    for parameter in operation.parameters:
        names = [f"{parameter.name}.{member}" for member in parameter.members if member in ("func", "param")]
        assert all(f"``{name}``" in PAGE for name in names or [parameter.name])


@pytest.mark.parametrize("operation", V1, ids=[operation.name for operation in V1])
def test_every_v1_path_is_documented(operation: Operation) -> None:
    named = re.sub("/v1/(resources|users|projects|sources)/{id}", "/v1/{owners}/{id}", operation.path)
    shortened = operation.path[operation.path.find("/volume/") :].replace("/volume", "…/volume")
    last = operation.path.rpartition("/meters/{meter}")[2]
    assert any(f"``{path}``" in PAGE for path in (operation.path, named, f"…/meters/{{meter}}{last}", shortened)), (
        operation.path
    )


def test_documented_python_verifies_a_proof(monkeypatch: pytest.MonkeyPatch, api: ApiClient) -> None:
    (example,) = re.findall(r"   import base64.*?(?=\n\n\()", PAGE, re.DOTALL)
    code = textwrap.dedent(example)
    proof = json.loads(api("/v2/samples/s0/proof").body)

    def verify(proof: Any) -> None:
        monkeypatch.setattr(urllib.request, "urlopen", lambda _: io.StringIO(json.dumps(proof)))
        exec(code, {"API": "http://cloud:8777", "SAMPLE": "s0", "SECRET": b"secret"})

    verify(proof)
    for change in ({"counter_volume": 11}, {"counter_volume": 10.0}, {"resource_metadata": {}}, {"x": ""}):
        with pytest.raises(AssertionError):
            verify({**proof, "message": {**proof["message"], **change}})
    for member in ("first", "last", "mac", "digests"):
        other = api("/v2/samples/s1/proof").json["batch"]
        with pytest.raises(AssertionError):
            verify({**proof, "batch": {**proof["batch"], member: other[member]}})


CORNERS = re.findall(
    r"^``(\w+) (.*)``\n(?:   sent: ``(.*)``\n\n)?(?:   with: ``(.*): (.*)``\n\n)?(?:(?:   (?!→|sent|with).*\n)+\n)?"
    r"   → \*\*(\d+)\*\* (.*)$",
    (CORNERS_PAGE := (Path(__file__).parents[3] / "docs" / "api-corners.rst").read_text()),
    re.MULTILINE,
)


@pytest.fixture(scope="module")
def ingesting_api() -> ApiClient:
    """Return an API that accepts samples, and writes them to another store than the one it queries."""
    return ApiClient(ingest=SampleIngest(KEYS, "openstack", RecordingBus(), MemoryStore()))  # type: ignore[arg-type]


def test_every_corner_case_is_parsed() -> None:
    assert len(CORNERS) == CORNERS_PAGE.count("→") == 91


@pytest.mark.parametrize(
    ("method", "path", "sent", "header", "value", "status", "expected"),
    CORNERS,
    ids=[f"{one[0]} {one[1]} {one[2] or one[4]}"[:200] for one in CORNERS],
)
def test_corner_case_has_the_documented_response(
    ingesting_api: ApiClient, method: str, path: str, sent: str, header: str, value: str, status: str, expected: str
) -> None:
    headers = {"Accept": "application/json", "Host": "localhost:8777", "Content-Type": "application/json"}
    if header:
        headers[header] = value
    response = ingesting_api(path, method=method, headers=headers, body=sent.encode() or None)
    assert response.status == int(status), response.body
    if method == "HEAD":
        assert (response.body, expected) == (b"", "empty body")
    elif member := re.fullmatch("``(.*)`` is ``(.*)``", expected):
        found = response.json
        for step in member[1].split("."):
            found = found[int(step) if step.isdigit() else step]
        assert found == json.loads(member[2])
    elif response.status < 300:
        assert expected == f"{(n := len(response.json))} {'entry' if n == 1 else 'entries'}"
    else:
        error = response.json["error_message"]
        assert expected == (error if isinstance(error, str) else error.get("faultstring", error.get("description")))
