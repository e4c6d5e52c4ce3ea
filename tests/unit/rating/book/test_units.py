"""Units of SKUs, and whether they fit the usage."""

from __future__ import annotations

from fractions import Fraction

import pytest

from meter.rating.book.price_book import UsageKind
from meter.rating.book.units import factor_of
from meter.rating.book.units import factor_problem
from meter.rating.book.units import read_unit
from meter.rating.book.units import unit_problem


@pytest.mark.parametrize(
    "text",
    [
        "Hours",
        "GB",
        "GiB-Hours",
        "1000 Requests",
        "Core-Hours",
        "Floating IP-Hours",
        "Mb/Second",
        "Units/3 Months",
        "vCPU-Hours",
        "Élan",
        "回",
    ],
)
def test_unit_of_focus_is_read(text: str) -> None:
    assert read_unit(text)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("hours", "write Hours"),
        ("Hour", "write Hours"),
        ("GiB-Hour", "write Hours"),
        ("gb", "write GB"),
        ("GBs", "write GB"),
        ("GIB-hours", "write GiB"),
        ("GiB-h", "h is no time"),
        ("requests", "write Requests"),
        ("1000 requests", "write Requests"),
        ("Mb/Seconds", "write Second"),
        ("Mb/s", "s is no time"),
        ("widgets", "capital letter"),
        ("0 Requests", "capital letter"),
        ("", "no unit such as"),
        ("A-B-C", "no unit such as"),
        ("GB-GB", "GB is no time"),
    ],
)
def test_other_unit_is_refused_with_what_would_be_right(text: str, right: str) -> None:
    with pytest.raises(ValueError, match=right):
        read_unit(text)


@pytest.mark.parametrize(
    ("text", "usage", "sized"),
    [
        ("Hours", "exists", False),
        ("Instance-Hours", "exists", False),
        ("GiB-Hours", "exists", True),
        ("GB-Days", "integral", False),
        ("Hours", "integral", False),
        ("Core-Hours", "increase", False),
        ("Hours", "increase", False),
        ("GB", "increase", False),
        ("1000 Requests", "sum", False),
        ("GB", "maximum", False),
        ("Mb/Second", "percentile95", False),
    ],
)
def test_unit_fits(text: str, usage: UsageKind, sized: bool) -> None:
    assert unit_problem(read_unit(text), usage, sized=sized) is None


@pytest.mark.parametrize(
    ("text", "usage", "sized", "problem"),
    [
        ("GB", "exists", True, "is a duration"),
        ("Requests", "exists", False, "is a duration"),
        ("GB", "integral", False, "is a duration"),
        ("GB-Months", "integral", False, "no fixed length"),
        ("Hours", "exists", True, "multiplies by the size"),
        ("GB-Hours", "exists", False, "the size is not in the quantity"),
        ("GB-Hours", "sum", False, "has no duration"),
        ("GB-Hours", "maximum", False, "has no duration"),
        ("GB/Second", "increase", False, "is no rate"),
        ("GB-Hours/Day", "integral", False, "is no rate"),
    ],
)
def test_unit_that_does_not_fit_is_told(text: str, usage: UsageKind, sized: bool, problem: str) -> None:
    assert problem in str(unit_problem(read_unit(text), usage, sized=sized))


@pytest.mark.parametrize(
    ("text", "kind", "sized", "factor"),
    [
        ("Hours", "instance", False, Fraction(1, 3600)),
        ("24 Hours", "instance", False, Fraction(1, 86400)),
        ("Seconds", "instance", False, Fraction(1)),
        ("GiB-Hours", "volume", True, Fraction(1, 3600)),
        ("GB-Hours", "volume", True, Fraction(2**30, 3600 * 10**9)),
        ("GiB-Days", "image", True, Fraction(1, 86400 * 2**30)),
        ("Gb-Days", "image", True, None),
        ("Size-Hours", "volume", True, None),
    ],
)
def test_factor_of_existence_follows_from_the_unit(text: str, kind: str, sized: bool, factor: Fraction | None) -> None:
    assert factor_of(read_unit(text), "exists", resource_kind=kind, sized=sized) == factor


def test_factor_of_samples_has_to_be_stated() -> None:
    assert factor_of(read_unit("GiB-Hours"), "integral", resource_kind=None, sized=False) is None


def test_factor_that_leads_to_another_unit_is_told() -> None:
    hours, cores = read_unit("Hours"), read_unit("Core-Hours")
    expected = Fraction(1, 3600)
    assert factor_problem(hours, "exists", Fraction(1, 60), expected)
    assert factor_problem(hours, "exists", expected, expected) is None
    assert factor_problem(cores, "exists", Fraction(4, 3600), expected) is None
    assert factor_problem(hours, "increase", Fraction(7), None) is None
