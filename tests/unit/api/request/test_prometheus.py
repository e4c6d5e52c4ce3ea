"""Times, durations and limits in the forms that Prometheus accepts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.api.rendering.prometheus_errors import PrometheusError
from meter.api.request.prometheus import MAX_TIME
from meter.api.request.prometheus import parse_bound
from meter.api.request.prometheus import parse_duration
from meter.api.request.prometheus import parse_limit
from meter.api.request.prometheus import parse_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("1700000000", 1700000000.0),
        ("1700000000.781", 1700000000.781),
        ("1.7e9", 1700000000.0),
        ("2023-11-14T22:13:20Z", 1700000000.0),
        ("2023-11-14T23:13:20.5+01:00", 1700000000.5),
        ("2023-11-14T22:13:20+00:00", 1700000000.0),
    ],
)
def test_time_is_seconds_or_rfc_3339(text: str, seconds: float) -> None:
    assert parse_time("time", text) == seconds


@pytest.mark.parametrize(
    "text", ["", "now", "NaN", "Inf", "-1", "1e300", "253402300800", "1_000", "١٢٣", "2023-13-01T00:00:00Z"]
)
def test_what_is_not_a_time_of_1970_to_9998_is_bad_data(text: str) -> None:
    with pytest.raises(PrometheusError) as raised:
        parse_time("time", text)
    assert (raised.value.status, raised.value.kind) == (400, "bad_data")
    assert raised.value.text.startswith('invalid parameter "time": ')


def test_bound_beyond_all_samples_is_moved_to_the_first_or_last_time() -> None:
    assert parse_bound("start", None) is None
    assert parse_bound("start", "-9223372036854775.808") == 0
    assert parse_bound("end", "9223372036854775.807") == MAX_TIME
    assert parse_bound("end", "12.5") == 12.5
    with pytest.raises(PrometheusError):
        parse_bound("start", "yesterday")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15", 15),
        ("0.5", 0.5),
        ("5m", 300),
        ("1h30m", 5400),
        ("1d", 86400),
        ("2w", 1209600),
        ("1y", 31536000),
        ("250ms", 0.25),
    ],
)
def test_duration_is_seconds_or_has_units(text: str, seconds: float) -> None:
    assert parse_duration("step", text) == seconds


@pytest.mark.parametrize("text", ["", "m", "5x", "1m1h", "-5m", "5 m", "1.5m", "9" * 12 + "y"])
def test_what_is_not_a_duration_is_bad_data(text: str) -> None:
    with pytest.raises(PrometheusError, match='invalid parameter "step"'):
        parse_duration("step", text)


def test_limit_of_0_is_none() -> None:
    assert [parse_limit(text) for text in (None, "0", "7")] == [None, None, 7]
    for text in ("-1", "x", "1.5", "9" * 30):
        with pytest.raises(PrometheusError):
            parse_limit(text)


@given(st.text(max_size=30))
def test_any_text_is_a_value_or_bad_data(text: str) -> None:
    for parse in (parse_time, parse_duration, parse_bound):
        try:
            assert 0 <= abs(parse("x", text) or 0) <= MAX_TIME
        except PrometheusError as error:
            assert error.status == 400
