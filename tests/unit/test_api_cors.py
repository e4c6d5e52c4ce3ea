"""What pages in a browser may ask, and that others are told nothing of it."""

from __future__ import annotations

import pytest

from tests.asking import Asking

HERE = "https://dashboard.example.org"
PREFLIGHT = {"Origin": HERE, "Access-Control-Request-Method": "POST"}


@pytest.mark.parametrize("origins", [[HERE], ["*"]])
def test_a_page_from_there_may_ask_and_is_told_how(origins: list[str]) -> None:
    ask = Asking(cors_origins=origins)
    told = ask("/v2/query/samples", method="OPTIONS", headers=PREFLIGHT)
    assert (told.status, told.body) == (204, b"")
    assert told.headers["access-control-allow-origin"] == HERE
    assert "POST" in told.headers["access-control-allow-methods"]
    assert "X-Auth-Token" in told.headers["access-control-allow-headers"]
    answer = ask("/v2/samples", headers={"Origin": HERE})
    assert answer.headers["access-control-allow-origin"] == HERE
    assert "link" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize("origins", [[], ["https://other.example.org"]])
def test_a_page_from_elsewhere_is_told_nothing(origins: list[str]) -> None:
    ask = Asking(cors_origins=origins)
    assert ask("/v2/samples", method="OPTIONS", headers=PREFLIGHT).status == 405
    assert "access-control-allow-origin" not in ask("/v2/samples", headers={"Origin": HERE}).headers
