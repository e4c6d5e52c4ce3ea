"""docs/budgets.rst says what a message has, which gaps there are, and how deliveries are repeated."""

import re
from pathlib import Path
from typing import get_args

import msgspec

from meter.rating.budgets import webhook_delivery as delivery
from meter.rating.budgets.budget_state import GapCode
from meter.rating.budgets.threshold_message import MESSAGE_TYPE
from meter.rating.budgets.threshold_message import ThresholdData
from meter.rating.budgets.threshold_message import ThresholdMessage

PAGE = (Path(__file__).parents[4] / "docs/budgets.rst").read_text(encoding="utf-8")


def table_after(text):
    """The first column of the first table after ``text``."""
    [_, rest] = PAGE.split(text, 1)
    body = re.split(r"(?m)^=+  =+$", rest)[2]
    return re.findall(r"(?m)^``([^`]+)``  ", body)


def test_page_has_every_field_of_a_message():
    assert table_after("The message:\n") == [field.name for field in msgspec.structs.fields(ThresholdMessage)]
    assert f"``{MESSAGE_TYPE}``" in PAGE


def test_page_has_every_field_of_the_data():
    assert table_after("The fields of ``data``") == [field.name for field in msgspec.structs.fields(ThresholdData)]


def test_page_has_every_gap():
    assert table_after("not savings.") == list(get_args(GapCode))


def test_page_has_the_limits_of_deliveries():
    prose = " ".join(PAGE.split())
    for figure, text in (
        (delivery.FIRST_PAUSE.total_seconds(), "sent again after 30 s"),
        (delivery.MAX_PAUSE.total_seconds() / 3600, "up to six hours"),
        (delivery.RETRY_FOR.days, "After three days"),
        (delivery.TIMEOUT_SECONDS, "no complete response within 15 s"),
        (delivery.MAX_RESPONSE_BYTES / 1024, "a response body of more than 64 KiB"),
    ):
        numbers = {"six": "6", "three": "3"}
        assert re.search(rf"\b{figure:g}\b", " ".join(numbers.get(word, word) for word in text.split()))
        assert text in prose
