"""URLs that name several hosts of one broker, and the order in which hosts are tried."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.testing import MemoryReactorClock

from meter.bus.amqp.hosts import BrokerHosts
from meter.bus.amqp.hosts import broker_addresses
from meter.bus.amqp.url import BrokerAddress
from meter.interfaces import Unavailable


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("amqp://rabbit", [BrokerAddress("rabbit", 5672)]),
        ("amqp://a,b:99,c/v", [BrokerAddress(host, port, "v") for host, port in (("a", 5672), ("b", 99), ("c", 5672))]),
        ("amqp://u:p@a, b", [BrokerAddress(host, 5672, "/", "u", "p") for host in "ab"]),
        ("amqp://u:p,q@a,b/", [BrokerAddress(host, 5672, "/", "u", "p,q") for host in "ab"]),
        ("amqp://u:p,q@a/", [BrokerAddress("a", 5672, "/", "u", "p,q")]),
        ("amqp://[::1]:1,[::2]/", [BrokerAddress("::1", 1), BrokerAddress("::2", 5672)]),
        ("amqp://a,b,a:5672", [BrokerAddress("a", 5672), BrokerAddress("b", 5672)]),
        (
            "amqps://a,b/?cacertfile=/c,d.pem",
            [BrokerAddress(host, 5671, tls=True, ca_file="/c,d.pem") for host in "ab"],
        ),
    ],
)
def test_url_names_the_addresses_of_its_hosts(url, addresses):
    assert list(broker_addresses(url)) == addresses


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "must begin with amqp"),
        ("http://a,b", "not with 'http'"),
        ("amqp://u:s3cret@a,,b/", "an empty name between the commas of its hosts"),
        ("amqp://u:s3cret@a,/", "an empty name between the commas"),
        ("amqp://u:s3cret@,a/", "an empty name between the commas"),
        ("amqp://u:s3cret@a,b:none/", "the port in the URL of a broker must be a number"),
        ("amqp://u:s3cret@a,u:s3cret@b/", "user and password once"),
        ("amqp://u:s3cret,/x@a,b/", "must be percent-encoded"),
        ("amqp://u:s3cret,x/y@a/", "must be percent-encoded"),
        ("amqp://a,b/v?heartbeat=5", "unknown parameters: heartbeat"),
    ],
)
def test_bad_url_is_refused_without_showing_the_password(url, problem):
    with pytest.raises(ValueError, match="broker") as refusal:
        broker_addresses(url)
    assert problem in str(refusal.value)
    assert "s3cret" not in str(refusal.value)


def hosts_of(names, start=0):
    return BrokerHosts([(BrokerAddress(name, 5672), name) for name in names], rng=lambda count: start)


@pytest_twisted.ensureDeferred
async def test_hosts_are_tried_in_turn_from_a_random_one_on():
    async def attempt(address, endpoint):
        tried.append(endpoint)
        if endpoint in away:
            raise OSError(f"{address.host} is away")
        return endpoint.upper()

    hosts, tried, away = hosts_of("abc", start=1), [], {"b"}
    assert await hosts.first(attempt) == (BrokerAddress("c", 5672), "C")
    assert await hosts.first(attempt) == (BrokerAddress("a", 5672), "A")
    away = {"a", "b", "c"}
    with pytest.raises(Unavailable) as refusal:
        await hosts.first(attempt)
    assert str(refusal.value) == "b:5672: b is away; c:5672: c is away; a:5672: a is away"
    assert "".join(tried) == "bcabca"


@pytest_twisted.ensureDeferred
async def test_the_reason_of_the_only_host_is_raised_as_it_is():
    async def attempt(address, endpoint):
        raise OSError("away")

    with pytest.raises(OSError, match=r"^away$"):
        await hosts_of("a").first(attempt)


def test_hosts_are_described_without_the_password():
    hosts = BrokerHosts.of(MemoryReactorClock(), broker_addresses("amqp://me:s3cret@a,b:99/v"))
    assert str(hosts) == "a:5672,b:99, virtual host v"
