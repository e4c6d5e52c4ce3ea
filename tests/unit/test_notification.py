"""What a notification and its samples are named by."""

from __future__ import annotations

import uuid
from datetime import UTC
from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from meter.notification import Notification
from meter.notification import stable_ids
from meter.sample import Sample
from tests.metered import with_stable_ids

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def heard(message_id="6d8f"):
    return Notification(message_id, "image.update", "image.host", "INFO", NOON, {})


def sample(name="image", resource_id="an-image"):
    return Sample(name=name, type="gauge", unit="image", volume=1, resource_id=resource_id, timestamp=NOON)


def test_sample_ids_never_change():
    again = [sample(), sample("image.size"), sample()]
    assert list(stable_ids(heard(), again)) == [
        "2168e6f7-8669-5801-94fc-908576ba7956",
        "1f533fc3-958e-5786-a3ab-3ae86869dc08",
        "5cbcbc70-c890-583e-bf44-93917aaef434",
    ]


@given(NAMES, NAMES, NAMES)
def test_sample_id_is_a_uuid5_of_notification_meter_resource_and_number(message_id, meter, resource):
    space = uuid.UUID("6f0c7a52-5d0e-5c55-9a3b-2f8f0e7b1f66")
    expected = [str(uuid.uuid5(space, "\0".join((message_id, meter, resource, number)))) for number in ("1", "2")]
    assert list(stable_ids(heard(message_id), [sample(meter, resource)] * 2)) == expected


def test_redelivery_gives_the_same_samples():
    [first], [second] = with_stable_ids(heard(), [sample()]), with_stable_ids(heard(), [sample()])
    assert first.message_id == second.message_id
    assert first.message_id != sample().message_id
