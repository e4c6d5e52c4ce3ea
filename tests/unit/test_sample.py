"""The sample and its validation."""

from datetime import UTC
from datetime import datetime
from enum import StrEnum

import pytest

from meter.sample import MAX_RUN
from meter.sample import BadSample
from meter.sample import Sample
from meter.sample import run_text
from meter.sample import utc_text

NOW = datetime(2026, 11, 22, 17, tzinfo=UTC)
GOOD = {"name": "cpu", "type": "cumulative", "unit": "ns", "volume": 5, "resource_id": "r", "timestamp": NOW}


def test_a_sample_has_no_id_until_its_message_is_made():
    assert Sample(**GOOD).message_id is None


def test_a_sample_cannot_be_changed():
    with pytest.raises(AttributeError):
        Sample(**GOOD).volume = 6


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": ""}, "name must be a non-empty text"),
        ({"unit": None}, "unit must be"),
        ({"resource_id": 5}, "resource_id must be"),
        ({"type": "counter"}, "type of cpu must be one of gauge, delta, cumulative"),
        ({"volume": "5"}, "volume of cpu must be a number"),
        ({"volume": True}, "volume of cpu must be a number"),
        ({"volume": float("nan")}, "volume of cpu must be a finite number"),
        (
            {"volume": 1.1e30},
            "volume of cpu must be a finite number: 0, or from 1e-100 to 1e\\+30 in magnitude, not 1.1e\\+30",
        ),
        ({"volume": -(10**31)}, "volume of cpu must be a finite number"),
        ({"volume": 10**5000}, "not an integer of 16610 bits"),
        ({"volume": 5e-324}, "volume of cpu must be a finite number"),
        ({"volume": float("inf")}, "volume of cpu must be a finite number"),
        ({"timestamp": datetime(2026, 1, 1)}, "must have a time zone"),  # noqa: DTZ001
        ({"timestamp": "2026"}, "must have a time zone"),
        ({"user_id": 5}, "user_id of cpu must be text or None"),
        ({"resource_metadata": []}, "must be a mapping"),
        ({"message_id": ""}, "message_id must be a non-empty text or None"),
        ({"message_id": 5}, "message_id must be a non-empty text or None"),
    ],
)
def test_what_cannot_be_metered_is_refused_with_the_reason(change, reason):
    with pytest.raises(BadSample, match=reason):
        Sample(**GOOD | change)


def test_times_are_written_naive_in_utc():
    assert utc_text(NOW) == "2026-11-22T17:00:00"
    assert utc_text(NOW.replace(microsecond=5)) == "2026-11-22T17:00:00.000005"


def test_a_run_that_is_too_long_ends_in_a_digest_and_stays_another_than_its_neighbour() -> None:
    assert run_text("hv1", "7", "vda+vdb") == "hv1/7/vda+vdb"
    first, second = (run_text("h" * 200, "7", "+".join(f"vd{n}" for n in range(count))) for count in (60, 61))
    assert len(first) == len(second) == MAX_RUN
    assert first != second


def test_texts_of_another_type_become_plain_ones():
    class Kind(StrEnum):
        GAUGE = "gauge"
        CPU = "cpu"

    sample = Sample(**GOOD | {"name": Kind.CPU, "type": Kind.GAUGE, "user_id": Kind.CPU, "message_id": Kind.CPU})

    assert [type(each) for each in (sample.name, sample.type, sample.user_id, sample.message_id)] == [str] * 4
    assert (sample.name, sample.type, sample.user_id, sample.message_id) == ("cpu", "gauge", "cpu", "cpu")
