"""An answer of CloudKitty that is made to harm ``meter-rate import-cloudkitty``: it costs neither memory nor time, and writes nothing to a terminal."""

from __future__ import annotations

from datetime import datetime
from datetime import timedelta
from typing import Any

import pytest

from meter.rating.hashmap.book_file import BookFile
from meter.rating.hashmap.book_file import BookSettings
from meter.rating.hashmap.book_file import book_file
from meter.rating.hashmap.metered_services import KNOWN
from meter.rating.hashmap.rules import BadRules
from meter.rating.hashmap.rules import rule_groups

AT = datetime.fromisoformat("2026-12-01")


def document(**members: Any) -> dict[str, Any]:
    return {"services": [{"service_id": "s", "name": "instance"}], **members}


def mapping(number: int = 0, **members: Any) -> dict[str, Any]:
    return {"mapping_id": f"m{number}", "type": "flat", "cost": "1", "service_id": "s", **members}


def made_of(rules: dict[str, Any]) -> BookFile:
    settings = BookSettings(name="ck", currency="EUR", timezone="UTC")
    return book_file(rule_groups(rules, AT), KNOWN, settings, source="a test", at=AT)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["1E+999999999", "1E-999999999", "1e61"])
def test_number_that_is_short_as_text_and_huge_as_an_integer_is_refused(text: str) -> None:
    for rules in (
        document(mappings=[mapping(cost=text)]),
        document(thresholds=[{"threshold_id": "t", "type": "flat", "cost": "1", "service_id": "s", "level": text}]),
    ):
        with pytest.raises(BadRules, match="should be from 1e-60 to 1e60"):
            rule_groups(rules, AT)
    assert rule_groups(document(mappings=[mapping(cost="0E+999999999")]), AT)[0].rules[0].cost == 0


def test_rule_until_the_last_day_that_there_is_never_ends() -> None:
    [group] = rule_groups(document(mappings=[mapping(end="9999-12-31T23:59:59")]), AT)
    assert group.rules[0].end is None


@pytest.mark.timeout(20)
def test_rules_that_are_millions_of_prices_are_left_out_before_these_are_computed() -> None:
    rules = [
        mapping(
            number,
            tenant_id=f"p{number}",
            start=str(AT + timedelta(days=number)),
        )
        for number in range(1, 1500)
    ]
    made = made_of(document(mappings=rules))
    assert (made.prices, "are too many prices" in str(made.left_out[0])) == ({}, True)


def test_names_write_no_control_characters_to_the_terminal_or_the_file() -> None:
    rules = document(
        fields=[{"field_id": "f", "service_id": "s", "name": "x\x1b[2J\nSKU forged: 1 price"}],
        mappings=[mapping(service_id=None, field_id="f", value="v")],
    )
    made = made_of(rules)
    [left_out] = made.left_out
    assert str(left_out).isprintable()
    assert "\\u001b[2J\\u000aSKU forged" in str(left_out)
    assert all(line.isprintable() for line in made.text.splitlines())
