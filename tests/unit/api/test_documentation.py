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
from meter.api.operation import Operation
from meter.api.operations import V1
from meter.api.operations import V2
from meter.testing import MemoryStore
from tests.api_client import KEYS
from tests.api_client import ApiClient
from tests.unit.api.test_ingest import RecordingBus

PAGE = (Path(__file__).parents[3] / "docs" / "api.rst").read_text()
EXAMPLES = re.findall(r"\$ curl -s 'http://localhost:8777(.*?)' \| jq \.\n((?:   .*\n)+)", PAGE)


@pytest.fixture(scope="module")
def api() -> ApiClient:
    return ApiClient(keys=KEYS)


@pytest.mark.parametrize(("path", "example"), EXAMPLES, ids=[path for path, _ in EXAMPLES])
def test_documented_example_matches_the_response(api: ApiClient, path: str, example: str) -> None:
    documented, response = json.loads(textwrap.dedent(example)), api(path, headers={"Host": "localhost:8777"}).json
    if path.endswith("/proof"):
        verify(documented)
        for name in ("id", "digests", "mac"):  # each batch has others
            assert len(documented["batch"].pop(name)) == len(response["batch"].pop(name))
    assert documented == response


def verify(proof: Any) -> None:
    """Run the documented Python that verifies ``proof``."""
    (code,) = re.findall(r"   import base64.*?(?=\n\n\()", PAGE, re.DOTALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(urllib.request, "urlopen", lambda _: io.StringIO(json.dumps(proof)))
        exec(textwrap.dedent(code), {"API": "http://cloud:8777", "SAMPLE": "s0", "SECRET": b"secret"})


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


CHANGED_MEMBERS: list[tuple[str, Any]] = [
    ("counter_volume", 10.0),
    ("counter_volume", 11),
    ("resource_metadata", {"size": 0, "flavor": {"name": "m2"}}),
    ("resource_metadata", {"size": False, "flavor": {"name": "m1"}}),
    ("project_id", "red"),
    ("added", ""),
]


@pytest.mark.parametrize(("name", "value"), CHANGED_MEMBERS, ids=repr)
def test_documented_python_refuses_the_proof_of_a_changed_message(api: ApiClient, name: str, value: Any) -> None:
    proof = json.loads(api("/v2/samples/s0/proof").body)
    verify(proof)
    proof["message"][name] = value
    with pytest.raises(AssertionError):
        verify(proof)


@pytest.mark.parametrize("name", ["id", "first", "last", "position", "digests", "mac"])
def test_documented_python_refuses_the_proof_of_a_changed_batch(api: ApiClient, name: str) -> None:
    proof = json.loads(api("/v2/samples/s0/proof").body)
    other = json.loads(api("/v2/samples/s1/proof").body)["batch"][name] if name != "position" else 1
    proof["batch"][name] = other
    with pytest.raises(AssertionError):
        verify(proof)


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
