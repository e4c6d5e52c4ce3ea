"""A BMC, or a service of OpenStack, that answers with absurd numbers loses its own samples only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from meter.pollsters.openstack.table import BadItem
from meter.pollsters.openstack.table import number
from tests.emulated_bmc import CHASSIS
from tests.emulated_bmc import METRICS
from tests.emulated_bmc import SENSOR
from tests.emulated_bmc import rack_server
from tests.unit.pollsters.redfish.test_redfish import Region
from tests.unit.pollsters.redfish.test_redfish import found

ABSURD = [10**400, -(10**400), 10**18, 1e-200, 5e-324]


def with_reading(reading: Any, place: str) -> dict[str, Any]:
    documents = rack_server()
    if place == "power":
        documents[METRICS]["PowerWatts"]["Reading"] = reading
        documents[f"{CHASSIS}/1U"].pop("Power")
    elif place == "older power":
        documents[METRICS].pop("PowerWatts")
        documents[f"{CHASSIS}/1U/Power"]["PowerControl"] = [{"PowerConsumedWatts": reading}]
    else:
        documents[SENSOR][place] = reading
    return documents


@pytest.mark.parametrize("place", ["power", "older power", "Reading", "LifetimeReading"])
@pytest.mark.parametrize("reading", ABSURD, ids=lambda each: f"{each!r:.8}")
@pytest_twisted.ensureDeferred
async def test_absurd_reading_of_one_bmc_does_not_affect_the_others(tmp_path: Path, reading: Any, place: str) -> None:
    region = Region(tmp_path, with_reading(reading, place), rack_server())
    samples = found(await region.poll())
    assert [resource for _, resource in samples].count("hv2/1U") == 2
    assert region.skips.skipped == [("bad-volume", ("hv1/1U",))]


@pytest.mark.parametrize("value", [10**400, -(10**400), "9" * 400, "1e400", float("nan"), "-inf"])
def test_absurd_number_of_a_service_is_a_bad_item(value: Any) -> None:
    with pytest.raises(BadItem, match="should"):
        number(value, "size")
