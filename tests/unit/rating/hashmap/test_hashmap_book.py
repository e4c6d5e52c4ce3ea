"""The price book made of rules that CloudKitty 25 returned costs what CloudKitty 25 computed by these rules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_directory import read_directory
from meter.rating.hashmap.book_file import BookFile
from meter.rating.hashmap.book_file import BookSettings
from meter.rating.hashmap.book_file import book_file
from meter.rating.hashmap.metered_services import KNOWN
from meter.rating.hashmap.metered_services import BadServices
from meter.rating.hashmap.metered_services import metered_services
from meter.rating.hashmap.rules import BadRules
from meter.rating.hashmap.rules import rule_groups
from meter.rating.period import BillingPeriod
from meter.rating.quote import Wish
from meter.rating.quote import quote

DATA = Path(__file__).parents[3] / "data/rating"
RULES = json.loads((DATA / "cloudkitty-hashmap.json").read_text())
PRICES = json.loads((DATA / "cloudkitty-hashmap-prices.json").read_text())
AT = datetime.fromisoformat("2026-12-01")
NAMES = {"flavor_name": "flavor", "volume_type": "volume_type"}
NINE = Decimal("1e-9")


def made_of(document: Any, **settings: Any) -> BookFile:
    options = BookSettings(**{"name": "ck", "currency": "EUR", "timezone": "UTC", **settings})
    return book_file(rule_groups(document, AT), KNOWN, options, source="a test", at=AT)


def directory_of(made: BookFile, path: Path) -> PriceDirectory:
    (path / "book.toml").write_text(made.text)
    return read_directory(path)


def cost(
    directory: PriceDirectory,
    service: str,
    metadata: Mapping[str, str],
    qty: str,
    *,
    month: str = "2026-12",
    tenant: str = "p",
    hours: Decimal = Decimal(1),
) -> Decimal:
    """What Meter charges for the usage of one period, over all SKUs made of the service, before rounding."""
    [book] = directory.books.values()
    period = BillingPeriod.named(month, book.timezone)
    total = Decimal(0)
    for sku in book.skus.values():
        if sku.id != service and not sku.id.startswith(f"{service}-"):
            continue
        values = {NAMES[key]: value for key, value in metadata.items() if NAMES.get(key) in sku.by}
        if sku.usage == "exists":
            wish = Wish(sku=sku.id, values=values, hours=hours)
        elif sku.usage == "integral":
            wish = Wish(sku=sku.id, values=values, hours=hours, size=Decimal(qty))
        else:
            wish = Wish(sku=sku.id, values=values, quantity=Decimal(qty))
        for line in quote(book, [wish], period, project=tenant).lines:
            total += line.exact_amount
    return total


@pytest.mark.parametrize("case", PRICES, ids=lambda each: f"{each['service']}-{each['metadata']}-{each['month']}")
def test_usage_costs_what_cloudkitty_computed(case: dict[str, Any], tmp_path: Path) -> None:
    directory = directory_of(made_of(RULES), tmp_path)
    ours = cost(directory, case["service"], case["metadata"], case["qty"], month=case["month"], tenant=case["tenant"])
    # CloudKitty on SQLite computes with binary fractions of its costs.
    assert ours.quantize(NINE) == Decimal(case["price"]).quantize(NINE)


# --- by hand: what each kind of rule becomes, or why not


def rules(
    service: str = "instance", fields: tuple[str, ...] = (), mappings: Any = (), thresholds: Any = ()
) -> dict[str, Any]:
    """A document of one service with fields and the group ``g``; rules name their field by ``field``."""

    def rule(number: int, each: dict[str, Any], key: str) -> dict[str, Any]:
        made = {key: str(number), "type": "flat", **each}
        owner = {"field_id": made.pop("field")} if "field" in made else {"service_id": "s"}
        return {**made, **owner}

    return {
        "services": [{"service_id": "s", "name": service}],
        "fields": [{"field_id": each, "service_id": "s", "name": each} for each in fields],
        "groups": [{"group_id": "g", "name": "g"}],
        "mappings": [rule(number, each, "mapping_id") for number, each in enumerate(mappings)],
        "thresholds": [rule(number, each, "threshold_id") for number, each in enumerate(thresholds)],
    }


def reasons(document: Any, **settings: Any) -> str:
    made = made_of(document, **settings)
    assert made.prices == {}
    assert "[[sku]]" not in made.text
    [left_out] = made.left_out
    return " ".join(left_out.reasons)


FLAVOR = {"field": "flavor_name", "value": "a"}


def test_all_rules_of_the_captured_document_are_carried_or_named() -> None:
    made = made_of(RULES)
    assert made.prices == {
        "instance": 8,
        "instance-licence": 1,
        "ip.floating": 1,
        "network.outgoing.bytes": 1,
        "volume.size": 2,
        "volume.size-fast": 1,
    }
    assert [(each.service, each.group) for each in made.left_out] == [("acme.backup.hours", ""), ("image.size", "")]
    commented = [line for line in made.text.splitlines() if line.startswith("#   ")]
    assert any("mapping of disk_format = 'raw': flat 0.00001" in line for line in commented)
    assert any("threshold of the quantity from 10240 on: flat 0.01" in line for line in commented)


def test_mapping_that_was_made_this_moment_has_begun():
    """It begins when it is made: up to a second later in MySQL, and by a clock that may be ahead."""
    made = made_of(rules(mappings=[{"cost": "1", "start": "2026-12-01T00:00:00.400000"}]))
    assert not made.left_out
    assert "from =" not in made.text
    later = made_of(rules(mappings=[{"cost": "1", "start": "2026-12-01T00:01:01"}]))
    assert [each.service for each in later.left_out] == ["instance"]
    at_midnight = rules(mappings=[{"cost": "1", "start": "2026-12-02"}])
    before = AT + timedelta(days=1) - timedelta(seconds=30)
    [price] = rule_groups(at_midnight, before)[0].rules
    assert price.start == datetime.fromisoformat("2026-12-02")


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (rules("acme", mappings=[{"cost": "1"}]), "does not know how acme is measured"),
        (rules(fields=("vcpus",), mappings=[{"field": "vcpus", "value": "2", "cost": "1"}]), "not on vcpus"),
        (rules(fields=("flavor_name",), mappings=[{"field": "flavor_name", "cost": "1"}]), "has no value"),
        (rules(mappings=[{"cost": "-1"}]), "never negative"),
        (rules(mappings=[{"cost": "0.0000000000001"}]), "more than 12 decimals"),
        (rules(mappings=[{"cost": "1"}, {"cost": "2"}]), "two mappings are for the same"),
        (rules(mappings=[{"cost": "1", "end": "2027-01-01T12:00:00"}]), "begins and ends at midnight"),
        (
            rules(
                mappings=[{"cost": "0.0000001"}, {**FLAVOR, "type": "rate", "cost": "0.0000001"}],
                fields=("flavor_name",),
            ),
            "the product 1e-14 has more than 12 decimals",
        ),
        (
            rules(fields=("flavor_name",), thresholds=[{"field": "flavor_name", "level": "1", "cost": "1"}]),
            "do not depend on the size of flavor_name",
        ),
        (rules("volume.size", thresholds=[{"level": "1", "cost": "1"}]), "the quantity of one period"),
        (
            rules(
                fields=("flavor_name", "flavor"),
                mappings=[{**FLAVOR, "cost": "1"}, {"field": "flavor", "value": "b", "cost": "1"}],
            ),
            "two of its fields are the same value",
        ),
        (
            rules(
                "image.size",
                ("disk_format", "container_format"),
                [
                    {"field": f, "value": str(n), "cost": "1"}
                    for f in ("disk_format", "container_format")
                    for n in range(50)
                ],
            ),
            "2601 combinations, more than 2000",
        ),
    ],
)
def test_rules_that_no_price_book_can_have_are_left_out_with_the_reason(document: Any, reason: str) -> None:
    assert reason in reasons(document)


def test_a_group_that_is_left_out_leaves_the_others() -> None:
    made = made_of(rules(mappings=[{"cost": "-1"}, {"cost": "2", "group_id": "g"}]))
    assert made.prices == {"instance-g": 1}
    assert [each.group for each in made.left_out] == [""]


def test_two_fields_have_a_price_for_each_combination(tmp_path: Path) -> None:
    document = rules(
        "image.size",
        ("disk_format", "container_format"),
        [
            {"cost": "1"},
            {"field": "disk_format", "value": "raw", "cost": "3"},
            {"field": "container_format", "value": "ovf", "cost": "0.5", "type": "rate"},
        ],
    )
    [book] = directory_of(made_of(document), tmp_path).books.values()
    assert {tuple(sorted(each.match.items())): each.tiers[0].price for each in book.prices} == {
        (): 1,
        (("container_format", "ovf"),): Decimal("0.5"),
        (("disk_format", "raw"),): 3,
        (("container_format", "ovf"), ("disk_format", "raw")): Decimal("1.5"),
    }


def test_project_that_pays_nothing_does_not_pay_what_others_do(tmp_path: Path) -> None:
    mappings = [{**FLAVOR, "cost": "2"}, {**FLAVOR, "cost": "3", "type": "rate", "tenant_id": "t"}]
    directory = directory_of(made_of(rules(fields=("flavor_name",), mappings=mappings)), tmp_path)
    assert cost(directory, "instance", {"flavor_name": "a"}, "1") == 2
    assert cost(directory, "instance", {"flavor_name": "a"}, "1", tenant="t") == 0


@pytest.mark.parametrize(
    ("thresholds", "expected"),
    [
        ([{"level": "0", "cost": "0.5", "type": "rate"}], "2.5"),
        ([{"level": "1", "cost": "2"}, {"level": "0", "cost": "9"}], "7"),
        ([{"level": "2", "cost": "9"}], "5"),
    ],
)
def test_threshold_of_what_is_always_1_is_in_the_price(thresholds: Any, expected: str, tmp_path: Path) -> None:
    directory = directory_of(made_of(rules("ip.floating", mappings=[{"cost": "5"}], thresholds=thresholds)), tmp_path)
    assert cost(directory, "ip.floating", {}, "1") == Decimal(expected)


@pytest.mark.parametrize(("period", "started", "price"), [(60, 'started = "minute"', "60"), (7200, "DIFFERENT", "0.5")])
def test_price_is_for_an_hour_whatever_the_period(period: int, started: str, price: str) -> None:
    made = made_of(rules(mappings=[{"cost": "1"}]), period_seconds=period)
    assert f'price = "{price}"' in made.text
    assert started in made.text
    assert ('started = "' in made.text) == (period == 60)


def test_rules_that_are_over_or_deleted_are_not_imported() -> None:
    over = {"cost": "1", "end": "2026-11-30T23:59:59"}
    assert made_of(rules(mappings=[over, {"cost": "2", "deleted": "2026-11-01T00:00:00"}])).prices == {}
    assert made_of(rules(mappings=[over, {"cost": "2"}])).prices == {"instance": 1}


def test_a_time_with_a_zone_is_the_same_time_in_utc() -> None:
    made = made_of(rules(mappings=[{"cost": "1", "end": "2027-01-01T02:00:00+02:00"}]))
    assert "until = 2027-01-01" in made.text


def test_names_cannot_end_a_comment_or_a_text(tmp_path: Path) -> None:
    evil = 'x\n[[tax]]\nname = "'
    document = rules(evil, mappings=[{"cost": "1", "name": evil}])
    assert "\n[[tax]]" not in made_of(document).text
    document = rules(fields=(evil,), mappings=[{"field": evil, "value": evil, "cost": "1"}])
    assert "\n[[tax]]" not in made_of(document).text
    document = rules(fields=("flavor_name",), mappings=[{"field": "flavor_name", "value": 'a"b\\', "cost": "1"}])
    [book] = directory_of(made_of(document), tmp_path).books.values()
    assert [dict(each.match) for each in book.prices] == [{"flavor": 'a"b\\'}]


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ([], "the document: "),
        ({"services": [{"name": "x"}]}, "services.1.service_id: is missing"),
        (rules(mappings=[{"cost": "much"}]), "mappings.1.cost: "),
        (rules(mappings=[{"cost": "NaN"}]), "finite"),
        (rules(mappings=[{"cost": "1", "group_id": "other"}]), "mappings.1: its service, field or group is not"),
    ],
)
def test_document_that_is_no_answer_of_cloudkitty_is_refused(document: Any, text: str) -> None:
    with pytest.raises(BadRules, match=text):
        rule_groups(document, AT)


def test_file_of_services_adds_what_meter_does_not_know(tmp_path: Path) -> None:
    file = tmp_path / "services.toml"
    file.write_text(
        '[service."acme.requests"]\nusage = "sum"\nmeter = "storage.api.request"\nfactor = "1"\nunit = "Requests"\n'
        'fields = {method = "method"}\n'
    )
    document = rules("acme.requests", ("method",), [{"field": "method", "value": "put", "cost": "0.1"}])
    options = BookSettings(name="ck", currency="EUR", timezone="UTC")
    made = book_file(rule_groups(document, AT), metered_services(file), options, source="x", at=AT)
    (tmp_path / "prices").mkdir()
    [book] = directory_of(made, tmp_path / "prices").books.values()
    assert [(dict(each.match), each.tiers[0].price) for each in book.prices] == [({"method": "put"}, Decimal("0.1"))]
    file.write_text('[service.x]\nusage = "most"\n')
    with pytest.raises(BadServices, match=r"service: usage"):
        metered_services(file)
    file.write_text("x = 1")
    with pytest.raises(BadServices, match="should have tables"):
        metered_services(file)
