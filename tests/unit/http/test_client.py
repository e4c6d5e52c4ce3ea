"""The HTTP client: size limits, JSON, and error texts."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from meter.http import BadResponse
from meter.http import ErrorResponse
from meter.http import HttpRequest
from meter.http import HttpResponse
from tests.openstack_stub import JsonResponse
from tests.openstack_stub import StubCloud
from tests.openstack_stub import http

IMAGES = HttpRequest(method="GET", url="http://glance/v2/images")


async def response_of(reply: JsonResponse, request: HttpRequest = IMAGES, **limits: Any) -> HttpResponse:
    """Send ``request`` to a service that responds with ``reply``; return the response."""
    cloud = StubCloud()
    cloud.on("GET", "/v2/images", reply)
    return await http(cloud, Clock(), **limits).send(request)


@pytest_twisted.ensureDeferred
async def test_body_above_the_size_limit_is_a_bad_response() -> None:
    with pytest.raises(BadResponse, match="more than 1000 bytes"):
        await response_of(JsonResponse(200, b"x" * 1001), max_body_bytes=1000)
    assert len((await response_of(JsonResponse(200, b"x" * 1000), max_body_bytes=1000)).body) == 1000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (JsonResponse(200, b"<html>hello</html>", {"Content-Type": "text/html"}), "is not JSON"),
        (JsonResponse(200, b'{"images": [{"id": ', {"Content-Type": "application/json"}), "is not JSON"),
        (JsonResponse(200, b'{"name": "\xff"}'), "is not JSON"),
        (JsonResponse(200, b""), "is not JSON"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_body_that_is_not_json_is_a_bad_response(wrong: JsonResponse, message: str) -> None:
    response = await response_of(wrong)
    with pytest.raises(BadResponse, match=message):
        response.json()


@pytest_twisted.ensureDeferred
async def test_error_text_quotes_the_start_of_the_body_and_never_the_password() -> None:
    request = HttpRequest(method="GET", url="http://me:secret@glance/v2/images", headers={"X-Auth-Token": "gAAA"})
    response = await response_of(JsonResponse(403, b"<p>no</p>" * 1000), request)
    with pytest.raises(ErrorResponse, match=r"GET http://glance/v2/images: 403 <p>no</p>") as caught:
        response.checked()
    assert len(str(caught.value)) < 300
    assert "gAAA" not in repr(request)


@pytest_twisted.ensureDeferred
async def test_json_is_parsed_whatever_its_content_type() -> None:
    reply = JsonResponse(200, '{"name": "Ünïcödé 😀 图像"}'.encode(), {"Content-Type": "text/plain"})
    assert (await response_of(reply)).json() == {"name": "Ünïcödé 😀 图像"}
