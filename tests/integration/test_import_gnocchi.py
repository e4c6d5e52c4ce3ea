"""``meter-import gnocchi`` and ``gnocchi-csv``: from a real Gnocchi with Ceilometer's archive policies, and from its client's CSV."""

from __future__ import annotations

import json
import urllib.error
import uuid
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import EXIT_USAGE
from meter.commands.command import UNAVAILABLE
from meter.commands.importing import gnocchi_metrics
from meter.commands.importing.gnocchi_metrics import GnocchiMetrics
from meter.commands.importing.service_client import KeystoneAuthentication
from meter.query import SampleFilter
from meter.sample import utc_text
from tests.importing import meter_import as meter_import
from tests.importing import rejected
from tests.importing import stored_ids
from tests.integration.test_store_rollups import running
from tests.servers.gnocchi import USER
from tests.servers.keystone import PASSWORD
from tests.servers.keystone import keystone  # noqa: F401 - a fixture

NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
UNTIL = ("--until", "2026-11-25")
INSTANCE = {
    "type": "instance",
    "user_id": "u1",
    "project_id": "p1",
    "host": "hv1",
    "flavor_id": "f1",
    "flavor_name": "m1.tiny",
    "display_name": "web",
}


def polls(*values, every=300, first=10):
    """Times and volumes of polls, from ten seconds after noon on."""
    return [(utc_text(NOON + timedelta(seconds=first + every * n)), value) for n, value in enumerate(values)]


@pytest.fixture
def cloud(gnocchi):
    """A Gnocchi without resources, with functions that block called in a thread."""
    for each in gnocchi.ask("GET", "resource/generic"):
        gnocchi.ask("DELETE", f"resource/generic/{each['id']}")
    return gnocchi


@pytest.fixture
def import_gnocchi(meter_import, cloud):
    async def import_gnocchi(*options, until=UNTIL):
        return await meter_import("gnocchi", "--json", "--user", USER, *until, *options, cloud.url)

    import_gnocchi.dsn = meter_import.dsn
    return import_gnocchi


def instance(cloud, values=(100, 200, 350), **metrics):
    """Make an instance with cpu and ``metrics`` as Ceilometer does; return its id."""
    resource_id = str(uuid.uuid4())
    made = cloud.resource(resource_id, {"cpu": ("ceilometer-low-rate", "ns"), **metrics}, **INSTANCE)
    cloud.measure(made["metrics"]["cpu"], polls(*values))
    return resource_id


async def samples(dsn):
    """All samples, by meter, oldest first."""
    async with running(dsn) as store:
        found = await store.samples(SampleFilter(), 10_000)
    return sorted(found, key=lambda each: (each.name, each.timestamp))


@pytest_twisted.ensureDeferred
async def test_points_are_imported_as_samples_that_say_what_they_are(import_gnocchi, cloud, postgresql):
    resource_id = await deferToThread(lambda: instance(cloud, memory=("ceilometer-low", "MiB")))
    described = cloud.ask("GET", f"resource/generic/{resource_id}")
    await deferToThread(lambda: cloud.measure(described["metrics"]["memory"], polls(64, 64)))

    status, out, errors = await import_gnocchi()

    assert (status, errors, json.loads(out)["samples"]) == (EXIT_OK, "", 5)
    found = await samples(import_gnocchi.dsn)
    metadata = {
        "display_name": "web",
        "instance_host": "hv1",
        "flavor": {"id": "f1", "name": "m1.tiny"},
        "flavor_id": "f1",
        "flavor_name": "m1.tiny",
        "instance_type": "m1.tiny",
        "imported_from": "gnocchi",
        "gnocchi_aggregation": "mean",
        "gnocchi_granularity": 300,
        "_meter": {"interval": 300},
    }
    assert [each.metadata for each in found] == [metadata] * 5
    assert [(each.name, each.type, each.unit, each.volume, each.timestamp - NOON) for each in found] == [
        ("cpu", "cumulative", "ns", 100, timedelta(seconds=150)),
        ("cpu", "cumulative", "ns", 200, timedelta(seconds=450)),
        ("cpu", "cumulative", "ns", 350, timedelta(seconds=750)),
        ("memory", "gauge", "MiB", 64, timedelta(0)),
        ("memory", "gauge", "MiB", 64, timedelta(seconds=300)),
    ]
    assert {(each.resource_id, each.project_id, each.user_id) for each in found} == {(resource_id, "p1", "u1")}
    before = stored_ids(postgresql, import_gnocchi.dsn)

    assert json.loads((await import_gnocchi())[1])["samples"] == 0
    assert json.loads((await import_gnocchi("--restart"))[1])["samples"] == 5
    assert stored_ids(postgresql, import_gnocchi.dsn) == before


@pytest_twisted.ensureDeferred
async def test_aggregate_that_tells_a_meter_best_is_taken_and_of_no_other_period(import_gnocchi, cloud):
    def make():
        policy = {
            "name": "all",
            "back_window": 0,
            "aggregation_methods": ["mean", "max", "last", "sum", "min", "count"],
        }
        policy["definition"] = [
            {"granularity": "0:05:00", "timespan": "30 days"},
            {"granularity": "1 day, 0:00:00", "timespan": "365 days"},
        ]
        try:
            cloud.ask("POST", "archive_policy", policy)
        except urllib.error.HTTPError as error:  # it is there already
            error.close()
        names = {"cpu": ("all", "ns"), "memory": ("all", "MiB"), "network.incoming.bytes.delta": ("all", "B")}
        made = cloud.resource("a/b".replace("/", "_"), names, user_id=None, project_id="p1")
        for metric in made["metrics"].values():
            cloud.measure(metric, polls(10, 20, 60, every=100))

    await deferToThread(make)

    assert (await import_gnocchi("--granularity", "300"))[0] == EXIT_OK
    of_minutes = {each.name: (each.volume, each.timestamp - NOON) for each in await samples(import_gnocchi.dsn)}
    assert of_minutes == {
        "cpu": (60, timedelta(seconds=300, microseconds=-1)),
        "memory": (30, timedelta(0)),
        "network.incoming.bytes.delta": (90, timedelta(0)),
    }
    assert {each.resource_id for each in await samples(import_gnocchi.dsn)} == {"a_b"}

    day = ["--state", "day", "--meter", "memory"]
    assert json.loads((await import_gnocchi(*day))[1])["meters"][0]["first"] == "2026-11-18T00:00:00"
    # The day has not ended by then, and what it has after it is in the same point.
    _, out, _ = await import_gnocchi("--state", "half", "--meter", "memory", until=("--until", "2026-11-18T23:00"))
    assert json.loads(out)["samples"] == 0


@pytest_twisted.ensureDeferred
async def test_sample_has_the_owner_and_the_host_of_its_time(import_gnocchi, cloud, monkeypatch):
    def make():
        now = datetime.now(UTC).replace(microsecond=0)
        resource_id = str(uuid.uuid4())
        metric = cloud.resource(resource_id, {"cpu": ("ceilometer-high", "ns")}, **INSTANCE)["metrics"]["cpu"]
        cloud.measure(metric, [(utc_text(now - timedelta(seconds=5)), 1)])
        cloud.ask("PATCH", f"resource/instance/{resource_id}", {"host": "hv2", "project_id": "p2"})
        [_, moved] = cloud.ask("GET", f"resource/instance/{resource_id}/history?sort=revision_start:asc")
        at = datetime.fromisoformat(moved["revision_start"]).replace(microsecond=0) + timedelta(seconds=1)
        cloud.measure(metric, [(utc_text(at), 2)])
        return at + timedelta(seconds=2)

    end = await deferToThread(make)
    # The test is as if the import came a little later.
    monkeypatch.setattr("meter.commands.importing.command.wall_seconds", lambda clock: end.timestamp())

    status, _, errors = await import_gnocchi("--granularity", "1", until=("--until", utc_text(end)))

    assert (status, errors) == (EXIT_OK, "")
    found = await samples(import_gnocchi.dsn)
    assert [(each.volume, each.project_id, each.metadata["instance_host"]) for each in found] == [
        (1, "p1", "hv1"),
        (2, "p2", "hv2"),
    ]


@pytest_twisted.ensureDeferred
async def test_what_gnocchi_cannot_tell_is_written_down_by_metric(import_gnocchi, cloud, tmp_path):
    def make():
        metrics = {"image.download": ("ceilometer-low", "B"), "acme.load": ("ceilometer-low", "%")}
        made = cloud.resource("image", {**metrics, "memory": ("ceilometer-low", "MiB")}, project_id="p1")
        for metric in made["metrics"].values():
            cloud.measure(metric, polls(1, 2))

    await deferToThread(make)

    status, out, _ = await import_gnocchi("--granularity", "300")

    assert (status, json.loads(out)["samples"]) == (EXIT_FOUND_PROBLEMS, 2)
    assert {each["meter"]: each["reason"] for each in rejected(tmp_path)} == {
        "acme.load": "no plugin declares the type of this meter; give --types acme.load=gauge, =delta or =cumulative",
        "image.download": "Gnocchi keeps mean of it, but a delta meter is imported from sum only",
    }
    status, out, _ = await import_gnocchi("--restart", "--types", "acme.load=gauge", "--meter", "acme.load")
    assert (status, json.loads(out)["samples"]) == (EXIT_OK, 2)
    status, out, _ = await import_gnocchi("--dry-run", "--restart", "--granularity", "60", "--meter", "memory")
    assert "Gnocchi keeps points of 300 s of it, not of 60 s" in out


@pytest_twisted.ensureDeferred
async def test_import_that_fails_goes_on_after_the_last_complete_resource(
    import_gnocchi, cloud, postgresql, tmp_path, monkeypatch
):
    await deferToThread(lambda: [instance(cloud, range(1, 31)) for _ in range(6)])
    resources = sorted(each["id"] for each in cloud.ask("GET", "resource/generic"))
    monkeypatch.setattr(gnocchi_metrics, "PAGE_SAMPLES", 7)
    monkeypatch.setattr(gnocchi_metrics, "PAGE_RESOURCES", 2)
    monkeypatch.setattr(
        GnocchiMetrics.__init__, "__kwdefaults__", {"page_samples": 7, "page_resources": 2, "granularity_seconds": None}
    )
    points, asked = GnocchiMetrics._points, []

    async def failing(self, record, name, metric_id, resource, revisions):
        asked.append(resource["id"])
        if len(asked) == 4:
            raise gnocchi_metrics.ErrorResponse("503", 503)
        return await points(self, record, name, metric_id, resource, revisions)

    monkeypatch.setattr(GnocchiMetrics, "_points", failing)
    status, out, errors = await import_gnocchi()
    assert (status, json.loads(out)["samples"], "503" in errors) == (UNAVAILABLE, 90, True)
    assert json.loads((tmp_path / "meter-import.state").read_text())["mark"] == resources[2]

    assert json.loads((await import_gnocchi())[1])["samples"] == 90

    assert asked == [*resources[:4], *resources[3:]]
    assert len(stored_ids(postgresql, import_gnocchi.dsn)) == 180


@pytest_twisted.ensureDeferred
async def test_csv_of_the_client_gives_the_same_samples_as_the_api(
    meter_import, import_gnocchi, cloud, postgresql, tmp_path
):
    resource_id = await deferToThread(lambda: instance(cloud))
    assert (await import_gnocchi())[0] == EXIT_OK
    before = stored_ids(postgresql, meter_import.dsn)
    text = await deferToThread(
        lambda: cloud.client("measures", "show", "-f", "csv", "--resource-id", resource_id, "cpu")
    )
    assert "+01:00" in text  # the client writes local times
    (tmp_path / "cpu.csv").write_text(text)
    options = ["--meter", "cpu", "--resource", resource_id, "--project", "p1", "--user", "u1", "--unit", "ns"]

    csv = ["gnocchi-csv", "--json", "--state", "csv.state", *UNTIL, *options]
    status, out, errors = await meter_import(*csv, "cpu.csv")

    assert (status, errors, json.loads(out)["samples"]) == (EXIT_OK, "", 3)
    assert stored_ids(postgresql, meter_import.dsn) == before
    (tmp_path / "bad.csv").write_text(text + '"2026-11-18T13:30:00+01:00",300.0,many\n"never",300.0,1\n"x"\n')
    status, out, _ = await meter_import(*csv, "--restart", "bad.csv")
    assert (status, json.loads(out)["samples"], json.loads(out)["not_imported"]) == (EXIT_FOUND_PROBLEMS, 3, 3)
    assert [each["reason"][:50] for each in rejected(tmp_path)] == [
        "granularity and value must be numbers, not '300.0'",
        "granularity and value must be numbers, not None an",
        "the timestamp must be a time like 2026-11-22T17:00",
    ]


@pytest_twisted.ensureDeferred
async def test_gnocchi_is_found_in_keystones_catalogue_and_read_with_its_tokens(
    meter_import,
    cloud,
    keystone,  # noqa: F811
    monkeypatch,
):
    await deferToThread(lambda: instance(cloud))
    url = await deferToThread(lambda: cloud.serve_with_keystone(keystone.url, PASSWORD))
    await deferToThread(lambda: keystone.add("someone", "tenant", "a tenant's"))
    for name in ("OS_CLOUD", "OS_PROJECT_ID", "OS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OS_AUTH_URL", keystone.url)
    monkeypatch.setenv("OS_USERNAME", "admin")
    monkeypatch.setenv("OS_PASSWORD", PASSWORD)
    monkeypatch.setenv("OS_PROJECT_NAME", "admin")
    status, _, errors = await meter_import("gnocchi", *UNTIL)
    assert (status, "the catalogue has no public endpoint of 'metric'" in errors) == (EXIT_USAGE, True)
    await deferToThread(lambda: keystone.publish("metric", url))
    ask, asked = KeystoneAuthentication.url_and_headers, []

    async def with_old_tokens(self):
        """As if the token had expired just then: Gnocchi, which keeps the answers of Keystone, is asked with a wrong one."""
        root, headers = await ask(self)
        asked.append(root)
        return root, headers if len(asked) % 2 else {"X-Auth-Token": "expired"}

    monkeypatch.setattr(KeystoneAuthentication, "url_and_headers", with_old_tokens)
    status, out, errors = await meter_import("gnocchi", "--json", *UNTIL)
    assert errors == ""
    assert (status, json.loads(out)["samples"]) == (EXIT_OK, 3)
    assert set(asked) == {url}

    monkeypatch.setattr(KeystoneAuthentication, "url_and_headers", ask)
    monkeypatch.setenv("OS_PASSWORD", "wrong")
    status, _, errors = await meter_import("gnocchi", *UNTIL)
    assert (status, errors.startswith("Keystone rejects our credentials")) == (EXIT_USAGE, True)
    monkeypatch.setenv("OS_USERNAME", "tenant")
    monkeypatch.setenv("OS_PASSWORD", "a tenant's")
    monkeypatch.setenv("OS_PROJECT_NAME", "someone")
    status, out, _ = await meter_import("gnocchi", "--json", "--restart", *UNTIL)
    assert (status, json.loads(out)["samples"]) == (EXIT_OK, 0)


@pytest_twisted.ensureDeferred
async def test_gnocchi_that_cannot_be_asked_is_said(meter_import, cloud, monkeypatch, tmp_path):
    for name in ("OS_CLOUD", "OS_AUTH_URL"):
        monkeypatch.delenv(name, raising=False)
    status, _, errors = await meter_import("gnocchi", *UNTIL, cloud.url)
    assert (status, "set OS_CLOUD" in errors) == (EXIT_USAGE, True)
    status, _, errors = await meter_import("gnocchi", *UNTIL, "--user", USER, "http://127.0.0.1:9")
    assert (status, "refused" in errors) == (UNAVAILABLE, True)
    status, _, errors = await meter_import("gnocchi", *UNTIL, "--user", USER, "gnocchi")
    assert (status, "must begin with http:// or https://" in errors) == (EXIT_USAGE, True)
    status, _, errors = await meter_import("gnocchi", *UNTIL, "--user", USER, f"{cloud.url}/elsewhere")
    assert (status, "this is not the API of Gnocchi" in errors) == (EXIT_USAGE, True)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    options = ["--meter", "cpu", "--resource", "r", *UNTIL]
    status, _, errors = await meter_import("gnocchi-csv", *options, "other.csv")
    assert (status, "its first line is 'a,b', not timestamp,granularity,value" in errors) == (EXIT_USAGE, True)
    for content, words in (
        (b"", "it is empty"),
        (b"timestamp,granularity,value\n\xe9,1,1\n", "line 2 is not in UTF-8"),
    ):
        (tmp_path / "wrong.csv").write_bytes(content)
        status, _, errors = await meter_import("gnocchi-csv", *options, "wrong.csv")
        assert (status, words in errors) == (EXIT_USAGE, True)
    status, _, errors = await meter_import("gnocchi-csv", *options, "--aggregation", "sum", "other.csv")
    assert (status, "a cumulative meter is imported from the aggregation last or max or mean" in errors) == (
        EXIT_USAGE,
        True,
    )
    status, _, errors = await meter_import("gnocchi-csv", *options, "none.csv")
    assert (status, "none.csv cannot be read" in errors) == (EXIT_USAGE, True)
