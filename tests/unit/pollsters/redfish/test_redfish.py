"""Energy of hosts by Redfish: what documents say, and what is made of a BMC that says something else."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import UTC
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers
from zope.interface import implementer
from zope.interface.verify import verifyObject

from meter.http import HttpRequest
from meter.http import HttpResponse
from meter.http import IHttpClient
from meter.http import TlsOptions
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import ISkippedSamples
from meter.interfaces import Unavailable
from meter.plugins.validation import plugin_problems
from meter.pollsters.redfish import redfish
from meter.pollsters.redfish.documents import energy_of
from meter.pollsters.redfish.documents import path_of
from meter.pollsters.redfish.options import RedfishOptions
from meter.pollsters.redfish.pollster import BMC_SECONDS
from meter.pollsters.redfish.pollster import RedfishPollster
from meter.pollsters.redfish.reading import LAYOUT_SECONDS
from meter.pollsters.redfish.reading import REFUSED_SECONDS
from meter.sample import Sample
from meter.testing import FakeCycle
from meter.testing import FakePluginContext
from tests.emulated_bmc import CHASSIS
from tests.emulated_bmc import METRICS
from tests.emulated_bmc import SENSOR
from tests.emulated_bmc import at
from tests.emulated_bmc import rack_server

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


@implementer(IHttpClient)
class Network:
    """The BMCs by their URLs: documents by path, or what is raised, or a status."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.bmcs: dict[str, Any] = {}
        self.requested: list[str] = []

    async def send(self, service: str, request: HttpRequest) -> HttpResponse:
        self.requested.append(request.url)
        origin, _, path = request.url.partition("/redfish")
        bmc = self.bmcs[origin]
        if isinstance(bmc, Exception):
            raise bmc
        if bmc == "hangs":
            await Deferred()
        found = bmc.get(f"/redfish{path}") if isinstance(bmc, dict) else None
        status = bmc if isinstance(bmc, int) else 404 if found is None else 200
        return HttpResponse(
            request=request,
            status=status,
            headers=Headers(),
            body=found.encode() if isinstance(found, str) else json.dumps(found).encode(),
            received_at=datetime.fromtimestamp(self.clock.seconds(), UTC),
        )

    def seconds_for(self, service: str, requests: int) -> float:
        return 0.0


class TakenSkips:
    def __init__(self) -> None:
        self.skipped: list[tuple[str, tuple[str, ...]]] = []
        self.unknown: list[str] = []

    def samples_skipped(
        self, plugin: str, reason: str, count: int = 1, resources: Collection[str] = (), projects: Collection[str] = ()
    ) -> None:
        self.skipped.append((reason, tuple(sorted(resources))))

    def resources_unknown(self, plugin: str, reason: str) -> None:
        self.unknown.append(reason)


class Region:
    """A central agent and the BMCs of hosts ``hv1``…"""

    def __init__(self, directory: Path, *documents: Any, **options: Any) -> None:
        (directory / "password").write_text("secret\n")
        self.clock = Clock()
        self.clock.advance(NOON.timestamp())
        self.network = Network(self.clock)
        hosts = [{"host": f"hv{n}", "url": f"https://bmc{n}"} for n in range(1, len(documents) + 1)]
        self.network.bmcs = {each["url"]: each_ for each, each_ in zip(hosts, documents, strict=True)}
        account = {"username": "meter", "password_file": str(directory / "password")}
        self.pollster = RedfishPollster(
            RedfishOptions(**{"hosts": hosts, **account, **options}), make_client=lambda *_: self.network
        )
        self.skips = TakenSkips()
        self.context = FakePluginContext({ISkippedSamples: self.skips}, clock=self.clock, daemon="meter-central")

    async def poll(self) -> list[Sample]:
        self.clock.advance(300)
        return list(await self.pollster.poll(FakeCycle(context=self.context)))


def found(samples: list[Sample]) -> dict[tuple[str, str], int | float]:
    return {(each.name, each.resource_id): each.volume for each in samples}


ENERGY, POWER = "host.energy.wall", "host.power.wall"


@pytest_twisted.ensureDeferred
async def test_energy_and_power_of_the_outer_chassis_are_metered(tmp_path: Path) -> None:
    region = Region(tmp_path, rack_server())
    [energy, power] = await region.poll()
    assert (energy.name, energy.type, energy.unit) == (ENERGY, "cumulative", "J")
    assert (energy.resource_id, energy.volume) == ("hv1/1U", 130_198_042_800)
    assert energy.resource_metadata["_meter"]["run"] == "hv1/1U/2026-01-01T00:00:00Z"
    assert (power.name, power.volume, power.unit) == (POWER, 374, "W")
    assert power.resource_metadata == {"host": "hv1", "chassis": "1U", "method": "redfish"}
    assert region.skips.skipped == []


@pytest_twisted.ensureDeferred
async def test_which_chassis_there_are_is_looked_up_once_an_hour(tmp_path: Path) -> None:
    region = Region(tmp_path, rack_server())
    await region.poll()
    region.network.requested.clear()
    await region.poll()
    assert region.network.requested == [f"https://bmc1{METRICS}", f"https://bmc1{SENSOR}"]
    region.clock.advance(LAYOUT_SECONDS)
    await region.poll()
    assert "https://bmc1/redfish/v1/" in region.network.requested


@pytest_twisted.ensureDeferred
async def test_a_reset_of_the_sensor_begins_a_new_run_at_zero(tmp_path: Path) -> None:
    documents = rack_server()
    region = Region(tmp_path, documents)
    await region.poll()
    documents[SENSOR] |= {"Reading": 0.5, "SensorResetTime": "2026-06-01T14:08:00+02:00"}
    opening, energy, _ = await region.poll()
    assert (opening.volume, opening.timestamp) == (0, datetime(2026, 6, 1, 12, 8, tzinfo=UTC))
    assert energy.volume == 1_800_000
    assert opening.resource_metadata == energy.resource_metadata
    documents[SENSOR] |= {"SensorResetTime": "soon"}
    assert len(await region.poll()) == 2, "a time that is none opens nothing"


@pytest_twisted.ensureDeferred
async def test_an_energy_without_a_time_of_its_reset_has_no_declared_run(tmp_path: Path) -> None:
    documents = rack_server()
    del documents[SENSOR]["SensorResetTime"]
    region = Region(tmp_path, documents)
    [energy, _] = await region.poll()
    assert "_meter" not in energy.resource_metadata
    await region.poll()
    assert region.network.requested.count(f"https://bmc1{SENSOR}") == 1
    documents[METRICS]["EnergykWh"]["LifetimeReading"] = 40000
    [energy, _] = await region.poll()
    assert (energy.volume, energy.resource_metadata["_meter"]["run"]) == (144_000_000_000, "hv1/1U/lifetime")


@pytest_twisted.ensureDeferred
async def test_an_older_bmc_has_power_only_and_no_energy_is_made_of_it(tmp_path: Path) -> None:
    documents = rack_server()
    del documents[f"{CHASSIS}/1U"]["EnvironmentMetrics"]
    assert found(await Region(tmp_path, documents).poll()) == {(POWER, "hv1/1U"): 344}
    documents = rack_server()
    del documents[METRICS]  # linked, but not there
    assert found(await Region(tmp_path, documents).poll()) == {(POWER, "hv1/1U"): 344}


@pytest_twisted.ensureDeferred
async def test_a_bmc_that_ends_its_paths_with_a_slash_is_asked_so(tmp_path: Path) -> None:
    documents = rack_server()
    for path in list(documents):
        documents[path.rstrip("/") + "/"] = json.loads(
            json.dumps(documents.pop(path)).replace('"}', '/"}').replace("//", "/")
        )
    region = Region(tmp_path, documents)
    assert (POWER, "hv1/1U") in found(await region.poll())
    assert [each for each in region.network.requested if not each.endswith("/")] == [f"https://bmc1{SENSOR}"]


@pytest_twisted.ensureDeferred
async def test_chassis_can_be_named(tmp_path: Path) -> None:
    documents = rack_server()
    documents[f"{CHASSIS}/Backplane/EnvironmentMetrics"] = {"PowerWatts": {"Reading": 12.5}}
    hosts = [{"host": "hv1", "url": "https://bmc1", "chassis": ["Backplane"]}]
    assert found(await Region(tmp_path, documents, hosts=hosts).poll()) == {(POWER, "hv1/Backplane"): 12.5}
    hosts[0]["chassis"] = ["2U"]
    region = Region(tmp_path, documents, hosts=hosts)
    assert await region.poll() == []
    assert region.skips.skipped == [("no-chassis", ())]


# --- BMCs that fail ------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_bmc_that_is_away_is_skipped_and_the_others_are_metered(tmp_path: Path) -> None:
    region = Region(tmp_path, rack_server(), rack_server())
    assert len(await region.poll()) == 4
    region.network.bmcs["https://bmc1"] = Unavailable("GET https://bmc1: connection refused")
    assert {resource for _, resource in found(await region.poll())} == {"hv2/1U"}
    assert region.skips.skipped == [("unavailable", ("hv1/1U",))]
    assert region.skips.unknown == []


@pytest_twisted.ensureDeferred
async def test_what_was_never_read_since_the_start_is_unknown_and_not_gone(tmp_path: Path) -> None:
    region = Region(tmp_path, Unavailable("away"))
    assert await region.poll() == []
    assert region.skips.unknown == ["unavailable"]


@pytest_twisted.ensureDeferred
async def test_a_bmc_that_refuses_the_password_is_not_asked_for_half_an_hour(tmp_path: Path) -> None:
    region = Region(tmp_path, 401)
    await region.poll()
    await region.poll()
    assert len(region.network.requested) == 1
    assert [reason for reason, _ in region.skips.skipped] == ["refused", "refused"]
    region.network.bmcs["https://bmc1"] = rack_server()
    region.clock.advance(REFUSED_SECONDS)
    assert len(await region.poll()) == 2


@pytest_twisted.ensureDeferred
async def test_a_bmc_that_has_refused_the_password_is_asked_at_once_with_another_user(tmp_path: Path) -> None:
    region = Region(tmp_path, 401)
    await region.poll()
    region.network.bmcs["https://bmc1"] = rack_server()
    region.pollster = region.pollster.configured(region.pollster.options.model_copy(update={"username": "other"}))
    assert len(await region.poll()) == 2


@pytest_twisted.ensureDeferred
async def test_other_certificates_apply_after_a_reload(tmp_path: Path) -> None:
    made: list[bool] = []
    network = Region(tmp_path, rack_server()).network

    def make_client(_: Any, tls: TlsOptions) -> Network:
        made.append(tls.insecure)
        return network

    region = Region(tmp_path, rack_server())
    for insecure in (False, False, True):
        options = region.pollster.options.model_copy(update={"insecure": insecure})
        region.pollster = RedfishPollster(options, make_client=make_client)
        await region.poll()
    assert made == [False, True]


@pytest_twisted.ensureDeferred
async def test_a_bmc_that_hangs_does_not_delay_the_samples_of_others_beyond_its_limit(tmp_path: Path) -> None:
    region = Region(tmp_path, "hangs", rack_server())
    region.clock.advance(300)
    poll = Deferred.fromCoroutine(region.pollster.poll(FakeCycle(context=region.context)))
    assert not poll.called
    region.clock.advance(BMC_SECONDS)
    assert {each.resource_id for each in await poll} == {"hv2/1U"}


@pytest_twisted.ensureDeferred
async def test_a_password_that_cannot_be_read_skips_the_bmc(tmp_path: Path) -> None:
    region = Region(tmp_path, rack_server())
    (tmp_path / "password").unlink()
    assert await region.poll() == []
    assert region.network.requested == []
    assert [reason for reason, _ in region.skips.skipped] == ["unavailable"]


@pytest.mark.parametrize(
    "reading", ["374", True, -1, 1e300, [], {}, "NaN", {"Reading": 5}], ids=lambda each: repr(each)[:12]
)
@pytest_twisted.ensureDeferred
async def test_a_reading_that_is_no_number_is_skipped_and_the_other_counts(tmp_path: Path, reading: Any) -> None:
    documents = rack_server()
    documents[METRICS]["PowerWatts"]["Reading"] = reading
    documents[f"{CHASSIS}/1U"].pop("Power")
    region = Region(tmp_path, documents)
    assert [each.name for each in await region.poll()] == [ENERGY]
    assert region.skips.skipped == [("bad-volume", ("hv1/1U",))]


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/redfish/v1/", {}),
        ("/redfish/v1/", {"Chassis": at("https://elsewhere.example.org/redfish/v1/Chassis")}),
        ("/redfish/v1/", []),
        ("/redfish/v1/", "NaN"),
        ("/redfish/v1/", "{"),
        ("/redfish/v1/", '{"a":' * 5000),
        (CHASSIS, {"Members": None}),
        (CHASSIS, {"Members": []}),
        (CHASSIS, {"Members": [at(f"{CHASSIS}/{n}") for n in range(1000)]}),
        (CHASSIS, {"Members": [None, 1, "x", {"@odata.id": 1}, at("//elsewhere/redfish/v1/x")]}),
        (CHASSIS, {"Members": [], "Members@odata.nextLink": CHASSIS}),
        (f"{CHASSIS}/1U", {"Links": {"ContainedBy": at(f"{CHASSIS}/1U")}, "Power": at(f"{CHASSIS}/1U/Power")}),
        (f"{CHASSIS}/1U", {"Links": 1, "Power": "x", "EnvironmentMetrics": [at(METRICS)]}),
        (METRICS, "[" * 100_000),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_hostile_document_skips_the_bmc_with_few_requests(tmp_path: Path, path: str, document: Any) -> None:
    region = Region(tmp_path, {**rack_server(), path: document}, rack_server())
    assert {each.resource_id for each in await region.poll()} == {"hv2/1U"}
    assert len([each for each in region.network.requested if each.startswith("https://bmc1/")]) <= 10
    assert len(region.skips.skipped) == 1


@pytest.mark.parametrize("pages", [1, 8])
@pytest_twisted.ensureDeferred
async def test_a_bmc_with_very_many_chassis_is_not_asked_for_each(tmp_path: Path, pages: int) -> None:
    documents = {f"{CHASSIS}/{n}": {"Id": str(n), "Power": at(f"{CHASSIS}/1U/Power")} for n in range(400)}
    for page in range(pages):
        members = [at(each) for each in list(documents)[page:400:pages]]
        more = {} if page == pages - 1 else {"Members@odata.nextLink": f"{CHASSIS}?page={page + 1}"}
        documents[f"{CHASSIS}?page={page}" if page else CHASSIS] = {"Members": members, **more}
    region = Region(tmp_path, {**rack_server(), **documents})
    assert await region.poll() == []
    assert len(region.network.requested) == pages + 1
    assert region.skips.skipped == [("no-chassis", ())]


@given(st.text("/redfish.v1#?%\\\r\n ", max_size=40))
def test_only_paths_of_redfish_are_followed(text: str) -> None:
    found = path_of(text)
    assert found == "" or (found == text and found.startswith("/redfish/v1/") and "//" not in found)


@pytest.mark.parametrize(
    "text", ["/redfish/v1/../../admin", "/redfish/v1/a b", "/redfish/v1/a#b", "/redfish/v1/a\r\nX: y"]
)
def test_a_path_that_leads_elsewhere_is_not_followed(text: str) -> None:
    assert path_of(text) == ""


@given(st.decimals(0, 10**7, places=3))
def test_joules_are_those_of_the_decimal_that_the_bmc_wrote(kwh: Decimal) -> None:
    reading = energy_of(json.loads(f'{{"Reading": {kwh}}}'), "Sensor")
    assert reading is not None
    assert reading.joules == kwh * 3_600_000


# --- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://bmc1",
        "bmc1",
        "https://",
        "https://meter:secret@bmc1",
        "https://bmc1/redfish/v1",
        "https://bmc1?x",
        "https://bmc1:x",
        "https://[::1",
    ],
)
def test_a_url_that_is_not_that_of_a_bmc_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match=r"should be https:// with host and port only"):
        RedfishOptions(username="u", password_file="p", hosts=[{"host": "hv1", "url": url}])


def test_a_host_without_credentials_or_twice_is_refused() -> None:
    host = {"host": "hv1", "url": "https://bmc1/"}
    with pytest.raises(ValidationError, match="no username or no password_file"):
        RedfishOptions(hosts=[host])
    with pytest.raises(ValidationError, match="is there 2 times"):
        RedfishOptions(username="u", password_file="p", hosts=[host, host])
    assert RedfishOptions(hosts=[{**host, "username": "u", "password_file": "p"}]).hosts[0].url == "https://bmc1"


@pytest_twisted.ensureDeferred
async def test_the_pollster_is_a_plugin_that_says_why_it_does_not_apply(tmp_path: Path) -> None:
    assert verifyObject(ICentralPollster, redfish)
    assert plugin_problems(ICentralPollster, redfish) == []
    assert await redfish.enabled(FakePluginContext()) == Disabled("no BMCs are configured")
    options = {"username": "u", "password_file": "p", "hosts": [{"host": "hv1", "url": "https://bmc1"}]}
    missing = redfish.configured(RedfishOptions(**options, ca_file=str(tmp_path / "none")))
    answer = await missing.enabled(FakePluginContext())
    assert isinstance(answer, Disabled)
    assert "none" in answer.reason
    insecure = await redfish.configured(RedfishOptions(**options, insecure=True)).enabled(FakePluginContext())
    assert isinstance(insecure, Enabled)
    assert "man in the middle" in insecure.remark
