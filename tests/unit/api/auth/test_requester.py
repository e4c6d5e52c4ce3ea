"""Where the token of a request is."""

from __future__ import annotations

import base64

import pytest

from tests.unit.api.auth.test_browser_session import token


def basic(credentials: str) -> str:
    return f"Basic {base64.b64encode(credentials.encode()).decode()}"


@pytest.mark.parametrize("header", ["Bearer abc", "bearer abc", "BEARER  abc"])
def test_bearer_token_is_a_token(header: str) -> None:
    assert token(authorization=header) == "abc"


@pytest.mark.parametrize("credentials", ["any:abc", ":abc"])
def test_password_of_basic_authentication_is_a_token(credentials: str) -> None:
    assert token(authorization=basic(credentials)) == "abc"
    assert token(authorization=basic(credentials).replace("Basic", "basic")) == "abc"


@pytest.mark.parametrize(
    "header",
    ["Basic", "Basic ", "Basic abc", basic("abc"), basic("any:"), basic("any:café"), basic("any:a b"), "Digest abc"],
)
def test_what_has_no_password_has_no_token(header: str) -> None:
    assert token(authorization=header) is None


def test_password_that_a_proxy_has_asked_for_does_not_count_beside_a_token() -> None:
    assert token(authorization=basic("proxy:password"), x_auth_token="abc") == "abc"
    assert token(authorization=basic("proxy:password"), cookie="meter_token=abc") == "abc"
