"""The address of the dashboard in the log, which people open after ``make run``."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.address import IPv6Address
from twisted.internet.address import UNIXAddress

from meter.taps.parts.api import dashboard_url

HERE = IPv4Address("TCP", "127.0.0.1", 8777)


@pytest.mark.parametrize(
    ("listen", "host", "base_url", "url"),
    [
        ("tcp:8777:interface=127.0.0.1", HERE, "", "http://127.0.0.1:8777/"),
        ("tcp:8777:interface=127.0.0.1", HERE, "https://metering.example", "https://metering.example/"),
        ("ssl:8777:privateKey=k", HERE, "", "https://127.0.0.1:8777/"),
        ("tcp6:8777", IPv6Address("TCP", "::1", 8777), "", "http://[::1]:8777/"),
        ("tcp:8777", IPv4Address("TCP", "0.0.0.0", 8777), "", f"http://{socket.gethostname()}:8777/"),
        ("unix:/run/api", UNIXAddress("/run/api"), "", ""),
    ],
)
def test_address_is_one_that_a_browser_can_open(listen: str, host: Any, base_url: str, url: str) -> None:
    assert dashboard_url(listen, host, base_url) == url
