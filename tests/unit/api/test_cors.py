"""What pages in a browser may ask, and that others are told nothing of it."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from tests.asking import Asking
from tests.asking import message

HERE = "https://dashboard.example.org"
OF_EVERY_ANSWER = {
    "content-encoding",
    "cache-control",
    "content-type",
    "content-length",
    "date",
    "server",
    "transfer-encoding",
    "vary",
    "connection",
}
"""Headers that a page may read anyway, or that mean nothing to it."""

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


def test_a_page_may_read_every_header_that_an_answer_has_beyond_those_that_it_may_always_read() -> None:
    ask = Asking(cors_origins=[HERE])
    units = [message(minute, name="ram", type="gauge", unit=unit) for minute, unit in ((0, "MB"), (1, "MiB"))]
    Deferred.fromCoroutine(ask.store.write(units))
    paths = ["/v2/samples?limit=1", "/v2/meters/ram/statistics", "/v1/projects/blue/meters/ram/volume/sum", "/none"]
    for path in paths:
        answer = ask(path, headers={"Origin": HERE})
        exposed = set(answer.headers["access-control-expose-headers"].split(", "))
        assert {"link", "warning", "retry-after", "www-authenticate", "x-openstack-request-id"} <= exposed
        own = {name.lower() for name in answer.headers if not name.lower().startswith("access-control-")}
        assert own - OF_EVERY_ANSWER <= exposed, path


@pytest.mark.parametrize("origins", [[], ["https://other.example.org"]])
def test_a_page_from_elsewhere_is_told_nothing(origins: list[str]) -> None:
    ask = Asking(cors_origins=origins)
    assert ask("/v2/samples", method="OPTIONS", headers=PREFLIGHT).status == 405
    assert "access-control-allow-origin" not in ask("/v2/samples", headers={"Origin": HERE}).headers
