"""A tenant submits samples of meters that nobody else makes, about no resource of others, of the present; none bends another's view."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from meter.api import PostedSampleRules
from meter.api import SampleIngest
from meter.completeness.lives.instance_times import instance_times
from meter.completeness.lives.resource_lives import lives
from meter.query import SampleFilter
from meter.settings import Config
from meter.settings.config_file import parse
from meter.store import PostgresStore
from meter.taps import daemon as composing
from meter.testing import MemoryStore
from tests.api_client import KEYS
from tests.api_client import NOON
from tests.api_client import RECORDED
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.api_client import message
from tests.unit.api.auth.test_visibility import TOKENS
from tests.unit.api.test_ingest import RecordingBus
from tests.waiting import until

CUSTOM: dict[str, Any] = {
    "counter_name": "custom.requests",
    "counter_type": "gauge",
    "counter_unit": "request",
    "counter_volume": 3,
    "resource_id": "shop",
}
RULES = PostedSampleRules(declared=("cpu", "custom.declared", "custom.any:*", "*"), signed_meters=("custom.balance",))


class Submitting:
    """An API that accepts samples of tenants by :data:`RULES`."""

    def __init__(self, rules: PostedSampleRules = RULES) -> None:
        self.bus = RecordingBus()
        self.store = MemoryStore()
        ingest = SampleIngest(KEYS, "openstack", self.bus, self.store, rules)  # type: ignore[arg-type]
        self.api = ApiClient(ingest=ingest, store=self.store, auth=TOKENS)

    def has(self, *messages: Any) -> None:
        """Write ``messages`` to the store."""
        Deferred.fromCoroutine(self.store.write(messages))

    def post(self, who: str = "blue", direct: str = "", **changes: Any) -> Response:
        """Submit a sample as ``who``."""
        sample = {**CUSTOM, **changes}
        return self.api.post(
            f"/v2/meters/{sample['counter_name']}{direct}", [sample], **{"X-Auth-Token": f"{who}-token"}
        )


@pytest.fixture
def submitting() -> Submitting:
    return Submitting()


def test_samples_are_not_accepted_unless_that_is_switched_on() -> None:
    assert Config().api.accept_samples is False


def test_api_daemon_knows_the_meters_of_every_plugin_that_other_daemons_run(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composing, "use_monotonic_clock", lambda _: None)
    config = parse(f"[meter]\nstate_dir = '{tmp_path}'\n[store]\ndsn = 'postgresql:///nowhere'", "meter-api", "test")
    daemon = composing.Daemon("meter-api", config, [], only_checking=True)

    assert {"cpu", "instance:*", "image.size", "bandwidth", "storage.objects"} <= daemon.declared_meters
    rules = PostedSampleRules(declared=daemon.declared_meters, tenant_meters=("*",))
    submitting = Submitting(rules)
    for meter in ("cpu", "instance:m1.tiny", "image.size"):
        assert "Meter's own agents" in submitting.post(counter_name=meter).faultstring
    assert submitting.post(counter_name="requests").status == 201


@pytest.mark.parametrize("direct", ["", "?direct=True"])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"counter_name": "cpu"}, "may submit these meters: custom.*"),
        ({"counter_name": "instance"}, "may submit these meters: custom.*"),
        ({"counter_name": "custom.declared"}, "Meter's own agents"),
        ({"counter_name": "custom.any:thing"}, "Meter's own agents"),
        ({"counter_volume": -1}, "must not be negative"),
        ({"timestamp": "9999-12-31T23:59:59"}, "it must be from 2026-11-15T12:10:00 to 2026-11-22T12:15:00"),
        ({"timestamp": "2026-11-22T12:15:00.000001"}, "it must be from"),
        ({"timestamp": "2026-11-15T12:09:59"}, "it must be from"),
        ({"timestamp": "0001-01-01T00:00:00"}, "it must be from"),
        ({"resource_id": "theirs"}, "not a resource of your project"),
        ({"resource_id": "a host"}, "not a resource of your project"),
        ({"counter_name": "custom.theirs"}, "only your project submits"),
        ({"counter_name": "custom.measured"}, "only your project submits"),
        ({"project_id": "red"}, "other projects"),
    ],
    ids=str,
)
def test_sample_that_could_bend_what_others_see_is_refused(
    submitting: Submitting, changes: dict[str, Any], reason: str, direct: str
) -> None:
    submitting.has(
        message(resource_id="theirs", project_id="red"),
        message(resource_id="a host", project_id=None, name="hardware.load"),
        message(name="custom.theirs", resource_id="x", project_id="red", source="red:openstack"),
        message(name="custom.measured", resource_id="shop", project_id="blue"),
    )

    response = submitting.post(direct=direct, **changes)

    assert (response.status, submitting.bus.published) == (400, [])
    assert reason in response.faultstring


def test_whole_batch_is_refused_for_one_sample(submitting: Submitting) -> None:
    batch = [CUSTOM, {**CUSTOM, "counter_volume": -1}]
    response = submitting.api.post("/v2/meters/custom.requests", batch, **{"X-Auth-Token": "blue-token"})
    assert (response.status, submitting.bus.published) == (400, [])


def test_sample_of_its_own_is_accepted_again_and_again(submitting: Submitting) -> None:
    submitting.has(message(resource_id="shop", project_id="blue"))
    for _ in range(2):
        assert submitting.post(direct="?direct=True").status == 201
    assert submitting.post(timestamp="2026-11-22T12:15:00").status == 201
    assert submitting.post(timestamp="2026-11-15T12:10:00").status == 201
    assert submitting.post(counter_name="custom.balance", counter_volume=-7.5).status == 201


def test_meter_belongs_to_the_project_that_submits_it_first(submitting: Submitting) -> None:
    assert submitting.post("blue", "?direct=True").status == 201
    assert submitting.post("green", resource_id="another").status == 400
    assert submitting.post("blue").status == 201


def test_each_project_can_have_a_namespace_of_its_own() -> None:
    submitting = Submitting(PostedSampleRules(tenant_meters=("custom.{project_id}.*",)))
    assert submitting.post(counter_name="custom.blue.requests").status == 201
    assert submitting.post(counter_name="custom.green.requests").status == 400
    assert submitting.post("green", counter_name="custom.green.requests").status == 201
    assert "these meters: none" in Submitting(PostedSampleRules(tenant_meters=())).post().faultstring


def test_administrator_submits_any_meter_about_any_resource_within_wider_times(submitting: Submitting) -> None:
    submitting.has(message(resource_id="theirs", project_id="red"))
    old = (RECORDED - timedelta(days=399)).replace(tzinfo=None).isoformat()
    accepted = {"counter_name": "cpu", "resource_id": "theirs", "project_id": "red", "counter_volume": -3}
    assert submitting.post("admin", timestamp=old, **accepted).status == 201
    for timestamp in ("9999-12-31T23:59:59", "2026-11-23T00:00:00", "1970-01-01T00:00:00"):
        assert submitting.post("admin", timestamp=timestamp, **accepted).status == 400


# --- whose samples say what a resource is called ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(request: Any) -> Any:
    return request.getfixturevalue("postgresql").dsn_with_schema()


@pytest.fixture(params=["memory", "postgresql"])
def store(request: Any) -> Any:
    if request.param == "memory":
        yield MemoryStore(reactor)  # type: ignore[arg-type]
        return
    server, dsn = request.getfixturevalue("postgresql"), request.getfixturevalue("database")
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1)  # type: ignore[arg-type]
    store.startService()
    pytest_twisted.blockon(Deferred.fromCoroutine(until(lambda: store.readiness().ready)))
    yield store
    pytest_twisted.blockon(store.stopService())
    server.execute("TRUNCATE sample, series, resource, project, source, meter, metadata", dsn)


END_OF_TIME = NOON.replace(year=9999)


def measured(project: str | None, hour: int, **changes: Any) -> Any:
    return message(
        60 * hour,
        **{"resource_id": "vm", "project_id": project, "resource_metadata": {"display_name": project}, **changes},
    )


def submitted(project: str, hour: int, **changes: Any) -> Any:
    return measured(project, hour, **{"name": "custom.x", "source": f"{project}:openstack", **changes})


async def listed(store: Any, **equals: Any) -> list[tuple[Any, ...]]:
    rows = await store.resources(SampleFilter(equals=equals), 10)
    return [(row.resource_id, row.project_id, row.metadata.get("display_name"), row.last_sample) for row in rows]


@pytest_twisted.ensureDeferred
async def test_measured_resource_is_described_by_its_agents_only(store: Any) -> None:
    await store.write([measured("red", 0)])
    await store.write([submitted("blue", 1), submitted("blue", 1, timestamp=END_OF_TIME), measured("red", -1)])

    assert await listed(store) == [("vm", "red", "red", NOON)]
    [resource] = await store.resources(SampleFilter(equals={"resource_id": "vm"}), 1)
    assert (resource.source, resource.meters) == ("test", ("cpu",))
    assert await listed(store, project_id="blue") == [("vm", "blue", "blue", END_OF_TIME)]
    assert await listed(store, user_id="ann", meter="custom.x") == []
    assert await listed(store, project_id="red") == [("vm", "red", "red", NOON)]


@pytest_twisted.ensureDeferred
async def test_submitted_resource_is_described_by_the_project_that_came_first(store: Any) -> None:
    await store.write([submitted("blue", 3)])
    await store.write([submitted("red", 4), submitted("red", 0), submitted("red", 1, timestamp=END_OF_TIME)])

    assert await listed(store) == [("vm", "blue", "blue", NOON + timedelta(hours=3))]
    assert await listed(store, project_id="red") == [("vm", "red", "red", END_OF_TIME)]


@pytest_twisted.ensureDeferred
async def test_resource_that_passes_to_another_project_is_described_by_its_newest_owner(store: Any) -> None:
    await store.write([measured("red", 0)])
    await store.write([measured("blue", 1), submitted("red", 2)])

    assert await listed(store) == [("vm", "blue", "blue", NOON + timedelta(hours=1))]


@pytest_twisted.ensureDeferred
async def test_host_without_a_project_stays_that_of_the_operator(store: Any) -> None:
    await store.write([measured(None, 0)])
    await store.write([submitted("blue", 1)])

    assert await listed(store) == [("vm", None, None, NOON)]


@pytest_twisted.ensureDeferred
async def test_meter_of_a_resource_keeps_its_owner(store: Any) -> None:
    await store.write([measured("red", 0)])
    await store.write([submitted("blue", 1, name="cpu"), submitted("blue", 1)])

    meters = {row.name: row.project_id for row in await store.meters(SampleFilter(), 10, False)}
    assert meters == {"cpu": "red", "custom.x": "blue"}
    assert {row.name for row in await store.meters(SampleFilter(equals={"project_id": "blue"}), 10, False)} == {
        "cpu",
        "custom.x",
    }


@pytest_twisted.ensureDeferred
async def test_instance_is_not_ended_by_what_another_project_submits(store: Any) -> None:
    def notified(event: str, state: str) -> dict[str, Any]:
        return {"event_type": f"compute.instance.{event}", "state": state, "flavor": {"name": "m1"}}

    instance: dict[str, Any] = {"name": "instance", "type": "gauge", "unit": "instance"}
    active, deleted = notified("create.end", "active"), notified("delete.end", "deleted")
    await store.write([measured("red", 0, **instance, resource_metadata=active)])
    await store.write([submitted("blue", 1, **instance, resource_metadata=deleted, volume=0)])

    times, _ = await instance_times(store, SampleFilter(), None, NOON + timedelta(hours=5), 10)
    assert [(each.project_id, each.seconds) for each in times] == [("red", {("active", "m1"): 5 * 3600.0})]


@pytest_twisted.ensureDeferred
async def test_names_of_others_are_told_apart_from_ones_own(store: Any) -> None:
    await store.write([measured("red", 0), submitted("blue", 1, resource_id="shop"), measured("blue", 1, name="m")])

    meters, resources = await store.names_of_others("blue", {"cpu", "custom.x", "m", "none"}, {"vm", "shop", "none"})
    assert (set(meters), set(resources)) == ({"cpu", "m"}, {"vm"})
    meters, resources = await store.names_of_others("nobody", {"custom.x"}, {"shop"})
    assert (set(meters), set(resources)) == ({"custom.x"}, {"shop"})


@pytest_twisted.ensureDeferred
async def test_life_of_a_volume_is_not_changed_by_what_another_project_submits(store: Any) -> None:
    volume: dict[str, Any] = {"name": "volume.size", "type": "gauge", "unit": "GiB", "volume": 10}
    created = {"event_type": "volume.create.end", "status": "available"}
    deleted = {"event_type": "volume.delete.end", "status": "deleted"}
    await store.write([measured("red", 0, **volume, resource_metadata=created)])
    await store.write([submitted("blue", 1, **(volume | {"volume": 0}), resource_metadata=deleted)])
    await store.write([submitted("blue", 2, **(volume | {"volume": 999}), resource_metadata=created)])

    async def told(**equals: str) -> list[tuple[Any, ...]]:
        found = lives(store, SampleFilter(equals=equals), None, NOON + timedelta(hours=5))  # type: ignore[arg-type]
        return [(each.project_id, each.size, each.ended) async for life in found for each in life.segments]

    assert await told() == await told(project_id="red") == [("red", 10, None)]
    # What blue submitted is shown to blue, as if there were no other samples: it does not learn that there are.
    assert [project for project, _, _ in await told(project_id="blue")] in ([], ["blue"])
    assert not any(size == 10 for _, size, _ in await told(project_id="blue"))
