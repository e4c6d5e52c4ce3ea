"""Rules in a real CloudKitty become a price book by ``meter-rate import-cloudkitty``; both charge the same for the same usage."""

from __future__ import annotations

import random
import sys
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest_twisted
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue

from meter.rating.book.price_directory import read_directory
from tests.servers.cloudkitty_hashmap import HashMapServer
from tests.servers.cloudkitty_hashmap import hashmap_server
from tests.unit.rating.hashmap.test_hashmap_book import NINE
from tests.unit.rating.hashmap.test_hashmap_book import cost

METER_RATE = Path(sys.executable).with_name("meter-rate")
TENANTS = ("11111111111111111111111111111111", "22222222222222222222222222222222")
FIELDS = {
    "instance": {"flavor_name": ["a", "b", "c"]},
    "volume.size": {"volume_type": ["ssd", "hdd"]},
    "ip.floating": {},
    "network.outgoing.bytes": {},
}
CHANCE = 0.5
CONFLICT = 409


def make_rules(server: HashMapServer, chance: random.Random) -> int:
    """Make rules of all kinds that a price book can have, at random: flat and rate, in groups and none, of projects and all."""
    made = 0
    groups = ["", *(server.ask("POST", "groups", {"name": name})["group_id"] for name in ("g", "h"))]
    for service, fields in FIELDS.items():
        service_id = server.ask("POST", "services", {"name": service})["service_id"]
        owners: list[dict[str, str]] = [{"service_id": service_id}]
        for field, values in fields.items():
            field_id = server.ask("POST", "fields", {"service_id": service_id, "name": field})["field_id"]
            owners += [{"field_id": field_id, "value": value} for value in values]
        for owner, group, tenant in product(owners, groups, ("", TENANTS[0])):
            if chance.random() < CHANCE:
                kind = chance.choice(["flat", "flat", "rate"])
                rule = {**owner, "type": kind, "cost": f"0.{chance.randrange(1000):03}"}
                rule |= {"group_id": group} if group else {}
                rule |= {"tenant_id": tenant} if tenant else {}
                made += _posted(server, rule)
        if service in ("instance", "ip.floating"):
            level, kind = chance.choice(["0", "1", "2"]), chance.choice(["flat", "rate"])
            server.ask("POST", "thresholds", {"service_id": service_id, "level": level, "type": kind, "cost": "0.25"})
    return made


def _posted(server: HashMapServer, rule: dict[str, str]) -> bool:
    """Make a mapping, unless CloudKitty refuses it: a service has one without a group, for all projects or for one."""
    try:
        server.ask("POST", "mappings", rule)
    except HTTPError as error:
        if error.code != CONFLICT:
            raise
        return False
    return True


def usage() -> list[dict[str, Any]]:
    """One period of each service with each value, one that no rule names among them, of a project with rules and one without."""
    cases = []
    for service, fields in FIELDS.items():
        values = [[(field, value) for value in [*values, "other"]] for field, values in fields.items()]
        for metadata, tenant in product(product(*values), TENANTS):
            qty = "1" if service in ("instance", "ip.floating") else "12.5"
            cases.append(
                {"service": service, "metadata": dict(metadata), "tenant": tenant, "qty": qty, "time": "2099-01-01"}
            )
    return cases


@pytest_twisted.ensureDeferred
async def test_rules_of_all_kinds_cost_the_same_in_both(tmp_path: Path) -> None:
    with hashmap_server(tmp_path) as server:
        assert await deferToThread(make_rules, server, random.Random(20261128)) > 20
        prices = tmp_path / "prices"
        prices.mkdir()
        options = ["--currency", "EUR", "--url", server.url, "--no-auth", str(prices / "cloudkitty.toml")]
        output, errors, code = await getProcessOutputAndValue(str(METER_RATE), ["import-cloudkitty", *options])
        assert (errors, code) == (b"", 0), output
        cases = usage()
        theirs = await deferToThread(server.rate, cases)
    directory = read_directory(prices)
    charged = 0
    for case, price in zip(cases, theirs, strict=True):
        ours = cost(directory, case["service"], case["metadata"], case["qty"], month="2099-01", tenant=case["tenant"])
        assert ours.quantize(NINE) == Decimal(price).quantize(NINE), case
        charged += ours > 0
    assert charged > len(cases) / 2
