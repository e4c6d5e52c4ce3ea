"""No query is larger than its limits: each has an error that says what is limited, how many there are, and the limit."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meter.api import ClientAddresses
from tests.api_client import ApiClient
from tests.api_client import term

API = ApiClient()


def complex_query(expression: Any) -> str:
    response = API.post("/v2/query/samples", {"filter": msgspec.json.encode(expression).decode()})
    assert response.status == 400
    return response.faultstring.removeprefix("Filter expression not valid: ")


def query(path: str) -> str:
    response = API(path)
    assert response.status == 400
    return response.faultstring


def nested(levels: int) -> Any:
    return {"not": nested(levels - 1)} if levels else {"=": {"meter": "cpu"}}


def test_keys_of_groupby() -> None:
    keys = "&".join(f"groupby=metadata.k{n}" for n in range(11))
    assert query(f"/v2/meters/cpu/statistics?{keys}") == "groupby can have at most 10 keys; this request has 11."
    assert API(f"/v2/meters/cpu/statistics?{'&'.join(['groupby=project_id'] * 50)}").status == 200


def test_aggregates() -> None:
    aggregates = "&".join(f"aggregate.func=percentile&aggregate.param={n}" for n in range(21))
    text = "A query can have at most 20 distinct aggregates; this one has 21."
    assert query(f"/v2/meters/cpu/statistics?{aggregates}") == text


def test_terms() -> None:
    terms = "&".join(term(f"metadata.k{n}", "v", n=n) for n in range(101))
    assert query(f"/v2/samples?{terms}") == "A query can have at most 100 terms; this one has 101."


@pytest.mark.parametrize(
    "path",
    [f"/v2/samples?{term('metadata.' + 'k' * 256, 'v')}", f"/v2/meters/cpu/statistics?groupby=metadata.{'k' * 256}"],
)
def test_length_of_a_metadata_key(path: str) -> None:
    assert query(path) == "A metadata key can have at most 255 characters; this one has 256."


def test_length_of_a_metadata_key_in_a_complex_query() -> None:
    text = "a metadata key can have at most 255 characters; this one has 256"
    assert complex_query({"=": {"metadata." + "k" * 256: 1}}) == text


def test_patterns() -> None:
    patterns = [{"=~": {"meter": f"{n}"}} for n in range(11)]
    assert complex_query({"or": patterns}) == "more than 10 patterns (=~)"


def test_length_of_a_pattern() -> None:
    text = "a pattern can have at most 500 characters; this one has 501"
    assert complex_query({"=~": {"meter": "a" * 501}}) == text


def test_conditions() -> None:
    assert complex_query({"in": {"meter": ["a"] * 501}}) == "more than 500 conditions"


def test_nesting() -> None:
    assert complex_query(nested(40)) == "nested more than 32 levels deep"


# --- whose limits apply ----------------------------------------------------------------------------------------------


class FakeRequest:
    """A request from ``peer`` with the header ``X-Forwarded-For``, once for each of ``forwarded``."""

    def __init__(self, peer: str, *forwarded: str) -> None:
        self._peer = peer
        self._forwarded = [each.encode() for each in forwarded]
        self.requestHeaders = self

    def getClientAddress(self) -> Any:
        return type("Address", (), {"host": self._peer} if self._peer else {})()

    def getRawHeaders(self, _name: bytes) -> list[bytes]:
        return self._forwarded


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", ["203.0.113.1"], "192.0.2.1"),  # not from a proxy: the client wrote the header itself
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", ["198.51.100.9, 203.0.113.1"], "203.0.113.1"),  # the client wrote the first one
        ("10.0.0.1", ["198.51.100.9", "203.0.113.1, 10.0.0.2"], "203.0.113.1"),
        ("10.0.0.1", ["203.0.113.1, rubbish"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.1, rubbish, 10.0.0.3"], "10.0.0.3"),
        ("10.0.0.1", ["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", ["::ffff:203.0.113.1"], "203.0.113.1"),
        ("", ["203.0.113.1"], "unix"),
        ("fe80::1%eth0", [], "fe80::/64"),
    ],
)
def test_client_address_is_what_trusted_proxies_say(peer: str, forwarded: list[str], address: str) -> None:
    addresses = ClientAddresses(["10.0.0.0/8"])
    assert addresses.address_of(FakeRequest(peer, *forwarded)) == address


def test_proxy_on_a_unix_socket_can_be_trusted() -> None:
    assert ClientAddresses(["unix"]).address_of(FakeRequest("", "203.0.113.1")) == "203.0.113.1"


def test_proxy_that_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match=r"proxy\.example\.org"):
        ClientAddresses(["proxy.example.org"])
