"""URLs of brokers."""

from __future__ import annotations

import pytest
from twisted.internet.testing import MemoryReactorClock

from meter.bus.amqp.url import BrokerAddress
from meter.bus.amqp.url import broker_address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("amqp://rabbit", BrokerAddress("rabbit", 5672)),
        ("amqp://rabbit/", BrokerAddress("rabbit", 5672, "/")),
        ("amqp://rabbit/%2F", BrokerAddress("rabbit", 5672, "/")),
        ("amqp://rabbit/meter", BrokerAddress("rabbit", 5672, "meter")),
        ("amqp://rabbit/a%2Fb%20%C3%BC", BrokerAddress("rabbit", 5672, "a/b ü")),
        ("amqp://u%40x:p%2F%3A%40@rabbit:99/v", BrokerAddress("rabbit", 99, "v", "u@x", "p/:@")),
        ("amqp://u:@rabbit", BrokerAddress("rabbit", 5672, "/", "u", "")),
        ("amqp://[::1]:5673/", BrokerAddress("::1", 5673)),
        ("amqps://rabbit", BrokerAddress("rabbit", 5671, tls=True)),
        ("amqps://rabbit/?cacertfile=/a%20b.pem", BrokerAddress("rabbit", 5671, tls=True, ca_file="/a b.pem")),
        (
            "amqps://rabbit/v?cacertfile=/ca&certfile=/c&keyfile=/k&auth_mechanism=external",
            BrokerAddress(
                "rabbit",
                5671,
                "v",
                tls=True,
                ca_file="/ca",
                certificate_file="/c",
                key_file="/k",
                auth_mechanism="external",
            ),
        ),
    ],
)
def test_url_names_an_address(url, address):
    assert broker_address(url) == address


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "must begin with amqp"),
        ("http://rabbit", "not with 'http'"),
        ("amqp:///v", "must name a host"),
        ("amqp://u:s3cret@rabbit:none/", "the port in the URL of a broker must be a number"),
        ("amqp://u:s3cret/x@rabbit/", "must be percent-encoded"),
        ("amqp://u:s3cret@rabbit:99999/", "the port in the URL of a broker must be a number from 1 to 65535"),
        ("amqp://u:s3cret@rabbit:0/", "the port in the URL of a broker must be a number from 1 to 65535"),
        ("amqp://u:s3cret@rabbit1;rabbit2/", "has ';' in the name of a host; several hosts are separated by commas"),
        ("amqp://u:s3cret@rabbit1 rabbit2/", "has ' ' in the name of a host; several hosts"),
        ("amqp://rabbit/a/b", "must be escaped as %2F"),
        (
            "amqp://u:s3cret@rabbit/?heartbeat=5",
            "unknown parameters: heartbeat; amqp:// takes none; with amqps:// cacertfile",
        ),
        ("amqps://u:s3cret@rabbit/?verify=0", "unknown parameters: verify; only cacertfile, certfile, keyfile"),
        ("amqps://u:s3cret@rabbit/?cacertfile=", "cacertfile in the URL of the broker must not be empty"),
        ("amqps://u:s3cret@rabbit/?keyfile=/k", "has a keyfile and no certfile"),
        ("amqps://u:s3cret@rabbit/?auth_mechanism=external", "needs a certfile"),
        ("amqps://u:s3cret@rabbit/?certfile=/c&auth_mechanism=GSSAPI", "must be plain or external, not 'GSSAPI'"),
    ],
)
def test_bad_url_is_refused_without_showing_the_password(url, problem):
    with pytest.raises(ValueError, match=r"broker|virtual host") as refusal:
        broker_address(url)
    assert problem in str(refusal.value)
    assert "s3cret" not in str(refusal.value)


def test_address_is_written_without_its_password():
    address = broker_address("amqp://me:s3cret@[::1]/v")
    assert str(address) == "[::1]:5672, virtual host v"
    assert "s3cret" not in repr(address)


@pytest.mark.parametrize("content", [None, "nothing here"])
def test_ca_file_that_cannot_be_read_is_refused_when_the_endpoint_is_made(tmp_path, content):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match="cacertfile"):
        broker_address(f"amqps://rabbit/?cacertfile={file}").endpoint(MemoryReactorClock())
