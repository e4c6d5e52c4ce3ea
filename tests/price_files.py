"""Price books as they stand in files, for tests of commands and daemons."""

from __future__ import annotations

REQUESTS = """
[[book]]
name = "list"
currency = "EUR"
timezone = "{timezone}"
issuer = "Example Cloud"
grace_days = 2
default = true

[[sku]]
id = "requests"
service = "Storage"
category = "Storage"
usage = "sum"
meter = "{meter}"
unit = "1000 Requests"
factor = "1/1000"

[[price]]
sku = "requests"
tiers = [{{up_to = "{first_tier}", price = "0.20"}}, {{price = "0.15"}}]
mode = "graduated"

[[account]]
id = "acme"
name = "ACME"
projects = ["shop", "web"]
"""


def requests_book(meter: str, *, timezone: str = "UTC", first_tier: str = "10") -> str:
    """Return a book in which ``meter`` counts requests, with a lower price above ``first_tier`` thousands."""
    return REQUESTS.format(meter=meter, timezone=timezone, first_tier=first_tier)
