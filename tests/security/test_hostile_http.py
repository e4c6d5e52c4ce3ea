"""Some 1 500 hostile HTTP requests against an API on a real PostgreSQL; ``make chaos`` sends 20 000."""

from __future__ import annotations

import os

import pytest

from tests.security.http_fuzz import HostileRequest
from tests.security.http_fuzz import RequestGenerator
from tests.security.http_fuzz import attack
from tests.security.http_fuzz import attacked_site
from tests.security.http_fuzz import judge
from tests.system.daemons import STOPPED
from tests.system.daemons import House
from tests.system.daemons import furnished

__all__ = ["furnished"]

SEED = int(os.environ.get("METER_FUZZ_SEED", "15"))
REQUESTS = 2500
DOCUMENT = {
    "paths": {
        "/v2/meters/{meter}": {"get": {"parameters": [{"in": "query", "name": "q.field"}]}, "post": {"parameters": []}},
    }
}


def test_hostile_requests_do_no_harm(furnished: House) -> None:
    site = attacked_site(furnished)

    report = attack(site, REQUESTS, SEED)

    assert not report.failures, f"{report}\n" + "\n".join(report.failures[:20])
    # The generator makes requests that reach the store, and such that do not.
    assert report.statuses[200] > REQUESTS / 20
    assert report.statuses[400] > REQUESTS / 20
    assert report.statuses[201] > 0
    assert site.api.stop() in STOPPED


def test_the_same_seed_makes_the_same_requests() -> None:
    one, other, third = (list(RequestGenerator(seed, DOCUMENT).requests(200)) for seed in (7, 7, 8))
    assert one == other
    assert one != third


PAGE = b"HTTP/1.1 404 Not Found\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nContent-Type: text/html\r\n\r\n<p>"


@pytest.mark.parametrize(
    ("path", "accept", "problem"),
    [
        (b"/docs/x", b"text/html", None),
        (b"/docs/x", b"application/json", "an error of type text/html"),
        (b"/v2/x", b"text/html", "an error of type text/html"),
    ],
)
def test_error_is_a_page_for_browsers_alone_and_not_in_the_api(path: bytes, accept: bytes, problem: str | None) -> None:
    request = HostileRequest(1, "acme", (b"GET " + path + b" HTTP/1.1\r\nAccept: ", accept, b"\r\n\r\n"), True, "GET")
    assert judge(request, PAGE) == problem
