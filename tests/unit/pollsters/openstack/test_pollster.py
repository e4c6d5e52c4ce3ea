"""The pollsters of OpenStack with responses captured from real services."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

import meter.pollsters.openstack as family
from meter.http import ServiceLimits
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import ISkippedSamples
from meter.interfaces import Unavailable
from meter.openstack import IOpenStack
from meter.pollsters.openstack.services import METERED_LISTINGS
from meter.pollsters.openstack.table import MeteredListing
from meter.sample import Sample
from meter.testing import FakeCycle
from meter.testing import FakePluginContext
from tests.openstack_stub import JsonResponse
from tests.openstack_stub import StubCloud
from tests.openstack_stub import captured
from tests.openstack_stub import captured_cloud
from tests.openstack_stub import document
from tests.openstack_stub import openstack
from tests.openstack_stub import reply

POLLSTERS = [value for value in vars(family).values() if ICentralPollster.providedBy(value)]
DEMO_A = "b6e8cc20ee9c457e83f13218eca89c43"


class SkippedSamples:
    def __init__(self) -> None:
        self.counted: dict[tuple[str, str], int] = {}

    def samples_skipped(
        self, plugin: str, reason: str, count: int = 1, resources: Collection[str] = (), projects: Collection[str] = ()
    ) -> None:
        self.counted[plugin, reason] = self.counted.get((plugin, reason), 0) + count


def cycle_of(stub: StubCloud, clock: Clock | None = None, **arguments: Any) -> FakeCycle:
    clock = clock or Clock()
    providers = {IOpenStack: openstack(stub, clock, **arguments), ISkippedSamples: SkippedSamples()}
    return FakeCycle(providers, clock=clock, daemon="meter-central")


async def polled(pollster: Any, stub: StubCloud) -> dict[tuple[str, str], Sample]:
    """The samples of one poll, by meter and resource."""
    return {(each.name, each.resource_id): each for each in await pollster.poll(cycle_of(stub))}


@pytest.mark.parametrize("pollster", POLLSTERS, ids=lambda each: each.name)
def test_pollster_provides_its_interface(pollster: Any) -> None:
    assert verifyObject(ICentralPollster, pollster)


@pytest_twisted.ensureDeferred
async def test_images_on_all_pages_have_count_and_size() -> None:
    samples = await polled(family.image, captured_cloud())
    page_1, page_2 = document("glance-01-images-page1"), document("glance-02-images-page2")
    listed = {each["id"]: each for each in [*page_1["images"], *page_2["images"]]}
    assert {resource for name, resource in samples if name == "image"} == set(listed)
    sizes = {resource: each.volume for (name, resource), each in samples.items() if name == "image.size"}
    assert sizes == {id_: each["size"] for id_, each in listed.items() if each["size"] is not None}
    sample = samples["image.size", "5703406c-c3bc-4dc9-a4f7-bab61b4c0c22"]
    assert (sample.type, sample.unit, sample.volume) == ("gauge", "B", 104)
    assert sample.project_id == DEMO_A
    assert sample.resource_metadata["name"] == "page-004"


@pytest_twisted.ensureDeferred
async def test_volume_has_size_owner_and_attachments() -> None:
    sample = (await polled(family.volume, captured_cloud()))["volume.size", "e9af964e-0c71-4827-81ff-ee0b137a2013"]
    assert (sample.volume, sample.unit) == (3, "GiB")
    assert sample.project_id == "d222ebc061f2407690de641c61f649d5"
    assert sample.user_id == "9fecdd6ceafe4078b51ed3cabc6ec96a"
    assert sample.resource_metadata["attachments"][0]["server_id"] == "c555d02d-fa0a-482d-b773-75cbf8097ad3"


@pytest_twisted.ensureDeferred
async def test_volumes_of_all_projects_are_requested() -> None:
    stub = captured_cloud()
    await polled(family.volume, stub)
    assert stub.requests[-1].query["all_tenants"] == ["1"]


@pytest_twisted.ensureDeferred
async def test_snapshots_have_size_and_project() -> None:
    samples = await polled(family.snapshot, captured_cloud())
    sample = samples["volume.snapshot.size", "bd62f94f-9f5d-478d-a421-a733a41e6e34"]
    assert (sample.volume, sample.project_id) == (2, "d222ebc061f2407690de641c61f649d5")
    assert len(samples) == 6


@pytest_twisted.ensureDeferred
async def test_pool_has_only_the_capacities_that_are_numbers() -> None:
    samples = await polled(family.pool, captured_cloud())
    volumes = {name.rpartition(".")[2]: each.volume for (name, _), each in samples.items()}
    assert volumes == {"provisioned": 0, "allocated": 916}
    assert {resource for _, resource in samples} == {"block1@fake#fake"}


@pytest_twisted.ensureDeferred
async def test_virtual_free_capacity_of_a_thin_pool_considers_over_subscription() -> None:
    stub = captured_cloud()
    capabilities = {
        "total_capacity_gb": 100.0,
        "free_capacity_gb": 60.0,
        "reserved_percentage": 10,
        "provisioned_capacity_gb": 50.0,
        "max_over_subscription_ratio": "2.0",
        "thin_provisioning_support": True,
    }
    pools = {"pools": [{"name": "h@b#thin", "capabilities": capabilities}]}
    stub.on("GET", "/v3/scheduler-stats/get_pools", reply(pools))
    samples = await polled(family.pool, stub)
    assert samples["volume.provider.pool.capacity.virtual_free", "h@b#thin"].volume == 130.0  # (100 - 10) * 2 - 50


@pytest_twisted.ensureDeferred
async def test_volume_services_have_their_health() -> None:
    samples = await polled(family.volume_service, captured_cloud())
    assert {resource: each.volume for (_, resource), each in samples.items()} == {
        f"{each['binary']}@{each['host']}": int(each["state"] == "up")
        for each in document("cinder-06-os-services")["services"]
    }


@pytest.mark.parametrize(
    ("pollster", "meter", "name", "key"),
    [
        (family.floating_ip, "ip.floating", "neutron-01-floatingips", "floatingips"),
        (family.network, "network", "neutron-02-networks", "networks"),
        (family.router, "router", "neutron-03-routers", "routers"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_each_resource_of_neutron_is_one_sample(pollster: Any, meter: str, name: str, key: str) -> None:
    samples = await polled(pollster, captured_cloud())
    listed = document(name)[key]
    assert {(each.resource_id, each.project_id, each.volume) for each in samples.values()} == {
        (each["id"], each["project_id"], 1) for each in listed
    }
    assert {name for name, _ in samples} == {meter}


@pytest_twisted.ensureDeferred
async def test_instances_are_counted_by_project_and_later_only_changes_are_requested() -> None:
    stub, clock = captured_cloud(), Clock()
    clock.advance(1_795_000_000)
    cycle = cycle_of(stub, clock)
    first = {each.project_id: each.volume for each in await family.instances.poll(cycle)}
    listed = document("nova-01-servers-detail-all-2.1")["servers"]
    assert sum(first.values()) == len(listed)
    gone, grown = listed[0], {**listed[1], "id": "new"}
    changes = {"servers": [{**gone, "status": "DELETED"}, grown]}
    stub.on("GET", "/v2.1/servers/detail", reply(changes))
    clock.advance(300)
    second = {each.project_id: each.volume for each in await family.instances.poll(cycle.following())}
    assert stub.requests[-1].query["changes-since"] == ["2026-11-18T11:04:40Z"]
    expected = dict(first)
    expected[gone["tenant_id"]] -= 1
    expected[grown["tenant_id"]] += 1
    assert second == {project: count for project, count in expected.items() if count}


@pytest_twisted.ensureDeferred
async def test_usage_of_today_is_by_project() -> None:
    stub = captured_cloud()
    samples = await polled(family.usage, stub)
    assert samples["nova.usage.hours", DEMO_A].volume == pytest.approx(1.3314943655555553)
    assert stub.requests[-1].query["start"] == ["1970-01-01T00:00:00"]


@pytest_twisted.ensureDeferred
async def test_hypervisor_without_sizes_is_up() -> None:
    stub = captured_cloud()
    cycle = cycle_of(stub)
    samples = list(await family.hypervisor.poll(cycle))
    assert {(each.name, each.volume) for each in samples} == {("hypervisor.up", 1)}
    assert cycle.provider(ISkippedSamples).counted == {}


@pytest_twisted.ensureDeferred
async def test_projects_are_metered() -> None:
    samples = await polled(family.project, captured_cloud())
    assert len(samples) == len(document("keystone-21-projects")["projects"])


# --- Swift


def swift(stub: StubCloud) -> None:
    for project in document("keystone-21-projects")["projects"]:
        stub.on("GET", f"/v1/AUTH_{project['id']}", captured("swift-93-head-account-unknown"))
    stub.on("GET", f"/v1/AUTH_{DEMO_A}", captured("swift-12-get-account-demo-a"))


@pytest_twisted.ensureDeferred
async def test_account_and_containers_take_one_request() -> None:
    stub = captured_cloud()
    swift(stub)
    samples = await polled(family.storage, stub)
    account = {name: each.volume for (name, resource), each in samples.items() if resource == DEMO_A}
    assert account == {
        "storage.objects": 20,
        "storage.objects.size": 1208124,
        "storage.objects.containers": 4,
    }
    container = samples["storage.containers.objects.size", f"{DEMO_A}/c-6b0310a8"]
    assert (container.volume, container.resource_metadata["storage_policy"]) == (302062, "gold")
    assert stub.times("GET", f"/v1/AUTH_{DEMO_A}") == 1


@pytest_twisted.ensureDeferred
async def test_unreadable_account_does_not_affect_others() -> None:
    stub = captured_cloud()
    swift(stub)
    other = next(each["id"] for each in document("keystone-21-projects")["projects"] if each["id"] != DEMO_A)
    stub.on("GET", f"/v1/AUTH_{other}", JsonResponse(403, b"<html>"))
    cycle = cycle_of(stub)
    samples = list(await family.storage.poll(cycle))
    assert DEMO_A in {each.resource_id for each in samples}
    assert cycle.provider(ISkippedSamples).counted == {("storage", "refused"): 1}


@pytest_twisted.ensureDeferred
async def test_account_with_many_containers_is_read_page_by_page() -> None:
    stub = captured_cloud()
    swift(stub)
    names = [f"c-{number}-漢字/ü" for number in range(5)]
    headers = {"X-Account-Container-Count": "5", "X-Account-Object-Count": "0", "X-Account-Bytes-Used": "0"}

    def page(request: Any) -> JsonResponse:
        marker = request.query.get("marker", [""])[0]
        found = [{"name": name, "count": 1, "bytes": 2} for name in names if name > marker][:2]
        return JsonResponse(200, reply(found).body, headers)

    stub.on("GET", f"/v1/AUTH_{DEMO_A}", page)
    samples = await polled(family.storage, stub)
    found = {resource for name, resource in samples if name == "storage.containers.objects"}
    assert found == {f"{DEMO_A}/{name}" for name in names}


@pytest_twisted.ensureDeferred
async def test_account_requests_that_fail_are_counted() -> None:
    stub = captured_cloud()
    for project in document("keystone-21-projects")["projects"]:
        stub.on("GET", f"/v1/AUTH_{project['id']}", JsonResponse(503, b""))
    cycle = cycle_of(stub)
    assert list(await family.storage.poll(cycle)) == []
    assert cycle.provider(ISkippedSamples).counted == {("storage", "refused"): 4}


def test_hundreds_of_accounts_are_read_at_the_rate_limit() -> None:
    stub, clock = StubCloud(), Clock()
    stub.on("POST", "/v3/auth/tokens", captured("keystone-01-auth-tokens-scoped"))
    ids = [f"{number:032x}" for number in range(300)]
    stub.on("GET", "/v3/projects", reply({"projects": [{"id": each} for each in ids]}))
    times: list[float] = []

    def account(_: Any) -> JsonResponse:
        times.append(clock.seconds())
        return captured("swift-93-head-account-unknown")

    for each in ids:
        stub.on("GET", f"/v1/AUTH_{each}", account)
    cycle = cycle_of(stub, clock, limits=ServiceLimits(requests_per_second=50, max_in_flight=4))
    poll = Deferred.fromCoroutine(family.storage.poll(cycle))
    while not poll.called and clock.seconds() < 60:
        clock.advance(0.01)
    assert len(list(poll.result)) == 900
    assert max(times) - min(times) < 6.6  # 300 at 50 a second, and at most a tenth for the jitter
    assert max(sum(begin <= each < begin + 1 for each in times) for begin in times) <= 51


# --- services without captured responses: written by hand, as their API references document them


def cloud_with(service: str, path: str, *replies: JsonResponse) -> StubCloud:
    """A cloud that also has ``service``, which responds at ``path``."""
    token = document("keystone-01-auth-tokens-scoped")
    endpoint = {"interface": "public", "region": "R", "region_id": "R", "url": "http://127.0.0.1:1"}
    token["token"]["catalog"].append({"type": service, "endpoints": [endpoint]})
    stub = captured_cloud()
    stub.on("POST", "/v3/auth/tokens", reply(token, 201, X_Subject_Token="t"))
    stub.on("GET", path, *replies)
    return stub


def listing(key: str, **entry: Any) -> JsonResponse:
    return reply({key: [entry]})


BY_HAND: list[tuple[Any, str, str, JsonResponse, dict[str, float], str | None]] = [
    (
        family.backup,
        "block-storage",
        "/v3/backups/detail",
        listing("backups", id="b", size=10, status="available", **{"os-backup-project-attr:project_id": "p"}),
        {"volume.backup.size": 10},
        "p",
    ),
    (
        family.subnet,
        "network",
        "/v2.0/subnets",
        listing("subnets", id="b", network_id="n", cidr="10.1.0.0/24", ip_version=4, project_id="p", tenant_id="p"),
        {"subnet": 1},
        "p",
    ),
    (
        family.user,
        "identity",
        "/v3/users",
        listing("users", id="b", name="名前", domain_id="default", enabled=True, default_project_id="p"),
        {"identity.user": 1},
        "p",
    ),
    (
        family.loadbalancer,
        "load-balancer",
        "/v2/lbaas/loadbalancers",
        listing(
            "loadbalancers", id="b", project_id="p", operating_status="ONLINE", provisioning_status="PENDING_UPDATE"
        ),
        {"loadbalancer.operating": 1, "loadbalancer.provisioning": 5},
        "p",
    ),
    (
        family.zone,
        "dns",
        "/v2/zones",
        listing("zones", id="b", project_id="p", name="example.org.", status="SHRUGGING", ttl=3600, serial=1404757531),
        {"dns.zone.status": -1, "dns.zone.ttl": 3600, "dns.zone.serial": 1404757531},
        "p",
    ),
    (
        family.share,
        "sharev2",
        "/v2/shares/detail",
        listing("shares", id="b", project_id="p", size=5, status="error_deleting", share_proto="NFS"),
        {"manila.share.size": 5, "manila.share.status": 5},
        "p",
    ),
]


@pytest.mark.parametrize(
    ("pollster", "service", "path", "answer", "volumes", "project_id"),
    BY_HAND,
    ids=lambda each: getattr(each, "name", ""),
)
@pytest_twisted.ensureDeferred
async def test_entry_of_another_service_has_its_volumes_and_project(
    pollster: Any, service: str, path: str, answer: JsonResponse, volumes: dict[str, float], project_id: str
) -> None:
    samples = await polled(pollster, cloud_with(service, path, answer))
    assert {name: each.volume for (name, _), each in samples.items()} == volumes
    assert {(each.resource_id, each.project_id) for each in samples.values()} == {("b", project_id)}


COPIES: list[dict[str, Any]] = [
    {"status": "migration_target", "os-vol-mig-status-attr:migstat": "target:v"},
    {"status": "migration_target_creating"},
    {"status": "deleting", "os-vol-mig-status-attr:migstat": "deleting"},  # the old one, after Cinder has swapped them
]
MIGRATES = {"status": "in-use", "os-vol-mig-status-attr:migstat": "migrating"}


@pytest.mark.parametrize(
    ("pollster", "service", "path", "key", "metered", "unmetered"),
    [
        *((family.volume, "block-storage", "/v3/volumes/detail", "volumes", MIGRATES, copy) for copy in COPIES),
        *(
            (family.share, "sharev2", "/v2/shares/detail", "shares", {"status": "available"}, {"status": status})
            for status in ("deferred_deleting", "error_deferred_deleting")
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_entry_that_is_no_resource_of_its_project_is_not_metered(
    pollster: Any, service: str, path: str, key: str, metered: dict[str, Any], unmetered: dict[str, Any]
) -> None:
    stub = cloud_with(
        service, path, reply({key: [{"id": "yes", "size": 7} | metered, {"id": "no", "size": 7} | unmetered]})
    )
    assert {resource for _, resource in await polled(pollster, stub)} == {"yes"}


@pytest.mark.parametrize("status", [["deferred_deleting"], {}, None])
@pytest_twisted.ensureDeferred
async def test_entry_whose_status_is_no_text_does_not_end_the_listing(status: Any) -> None:
    shares = [{"id": "strange", "size": 7, "status": status}, {"id": "yes", "size": 7, "status": "available"}]
    stub = cloud_with("sharev2", "/v2/shares/detail", reply({"shares": shares}))
    assert "yes" in {resource for _, resource in await polled(family.share, stub)}


@pytest_twisted.ensureDeferred
async def test_ports_on_all_pages_include_those_without_project() -> None:
    last = {"ports": [{**document("neutron-20-ports-limit2")["ports"][0], "id": "last"}]}
    stub = captured_cloud()
    stub.on("GET", "/v2.0/ports", captured("neutron-20-ports-limit2"), reply(last))
    samples = await polled(family.port, stub)
    assert [(each.resource_id[:8], each.project_id and each.project_id[:8]) for each in samples.values()] == [
        ("05aaba07", None),
        ("070f91c8", DEMO_A[:8]),
        ("last", None),
    ]


@pytest_twisted.ensureDeferred
async def test_recordsets_are_counted_by_zone_over_all_pages() -> None:
    def sets(*zones: object) -> list[dict[str, object]]:
        return [
            {"id": f"r{number}", "zone_id": zone, "zone_name": "example.org.", "project_id": "p", "type": "A"}
            for number, zone in enumerate(zones)
        ]

    first = {"recordsets": sets("z1", "z1", "z2"), "links": {"next": "https://dns/v2/recordsets?marker=r2"}}
    stub = cloud_with("dns", "/v2/recordsets", reply(first), reply({"recordsets": sets("z1", None), "links": {}}))
    cycle = cycle_of(stub)
    samples = {each.resource_id: each for each in await family.recordsets.poll(cycle)}
    assert {zone: each.volume for zone, each in samples.items()} == {"z1": 3, "z2": 1}
    assert samples["z1"].project_id == "p"
    assert stub.requests[-1].header("X-Auth-All-Projects") == "true"
    assert cycle.provider(ISkippedSamples).counted == {("dns.zone.recordsets", "no-id"): 1}


@pytest_twisted.ensureDeferred
async def test_hypervisors_are_requested_with_the_microversion_that_has_sizes() -> None:
    stub = captured_cloud()
    sizes = {"vcpus": 8, "vcpus_used": 2, "memory_mb": 16000, "memory_mb_used": 512, "local_gb": 100}
    entry = {**document("nova-06-hypervisors-detail-2.88")["hypervisors"][0], **sizes, "id": 1}
    more = {"local_gb_used": 3, "running_vms": 1}
    stub.on("GET", "/v2.1/os-hypervisors/detail", reply({"hypervisors": [{**entry, **more}]}))
    samples = await polled(family.hypervisor, stub)
    assert stub.requests[-1].header("OpenStack-API-Version") == "compute 2.1"
    assert samples["hypervisor.memory", "fake1"].volume == 16000
    assert len(samples) == 8


# --- enabled(), unsupported listings, and skipped entries


@pytest_twisted.ensureDeferred
async def test_pollster_is_disabled_if_the_catalogue_lacks_its_service() -> None:
    context = FakePluginContext({IOpenStack: openstack(captured_cloud())})
    assert await family.image.enabled(context) == Enabled()
    assert await family.storage.enabled(context) == Enabled()
    answer = await family.loadbalancer.enabled(context)
    assert isinstance(answer, Disabled)
    assert "no public endpoint of 'load-balancer'" in answer.reason
    assert await family.image.enabled(FakePluginContext()) == Disabled(
        "no OpenStack cloud is configured in [openstack]"
    )


@pytest_twisted.ensureDeferred
async def test_pollster_is_disabled_if_neutron_lacks_its_extension() -> None:
    stub = captured_cloud()
    stub.on("GET", "/v2.0/vpn/vpnservices", captured("neutron-24-loadbalancers-404"))
    answer = await family.vpn.enabled(FakePluginContext({IOpenStack: openstack(stub)}))
    assert isinstance(answer, Disabled)
    assert "no such extension" in answer.reason


@pytest.mark.parametrize("status", [404, 410, 501])
@pytest_twisted.ensureDeferred
async def test_missing_extension_is_logged_once_and_retried_after_an_hour(status: int) -> None:
    def requests_sent() -> int:
        return sum(request.path == "/v2.0/fwaas/firewall_groups" for request in stub.requests)

    stub, clock = captured_cloud(), Clock()
    stub.on("GET", "/v2.0/fwaas/firewall_groups", JsonResponse(status))
    cycle = cycle_of(stub, clock)
    with capturedLogs() as logs:
        for _ in range(12):
            assert not list(await family.firewall.poll(cycle))
            clock.advance(299)
            cycle = cycle.following()
        assert requests_sent() == 1
        clock.advance(12)
        assert not list(await family.firewall.poll(cycle.following()))
        assert requests_sent() == 2
        stub.on("GET", "/v2.0/fwaas/firewall_groups", reply({"firewall_groups": [{"id": "f", "project_id": "p"}]}))
        clock.advance(3600)
        cycle = cycle.following()
        assert len(list(await family.firewall.poll(cycle))) == 1
        assert requests_sent() == 3
        stub.on("GET", "/v2.0/fwaas/firewall_groups", JsonResponse(status))
        with pytest.raises(Unavailable):  # a listing that has worked is unavailable
            await family.firewall.poll(cycle.following())
    logged = [each["log_format"] for each in logs if "pollster" in each.get("log_format", "")]
    assert ["unsupported" in each for each in logged] == [True, False]


@pytest_twisted.ensureDeferred
async def test_status_404_of_a_mandatory_listing_is_unavailable() -> None:
    stub = captured_cloud()
    stub.on("GET", "/v2/images", JsonResponse(404))
    with pytest.raises(Unavailable):
        await family.image.poll(cycle_of(stub))


@pytest.mark.parametrize("silent", [True, False])
def test_pollster_is_enabled_and_unavailable_while_keystone_is_down(silent: bool) -> None:
    stub, clock = StubCloud(), Clock()
    stub.on("POST", "/v3/auth/tokens", JsonResponse(503, silent=silent))
    context = FakePluginContext({IOpenStack: openstack(stub, clock)}, clock=clock)
    answer = Deferred.fromCoroutine(family.image.enabled(context))
    clock.advance(9)
    assert answer.result == Enabled()
    poll = Deferred.fromCoroutine(family.image.poll(cycle_of(stub, clock)))
    clock.advance(60)
    poll.addErrback(lambda failure: failure.trap(Unavailable))
    assert issubclass(poll.result, Unavailable)


@pytest_twisted.ensureDeferred
async def test_entries_that_cannot_be_metered_are_counted_and_logged_once() -> None:
    stub = captured_cloud()
    sizes: list[Any] = [None, -1, "many", True, "NaN", [], "7", 5]
    images: list[Any] = [{"id": str(number), "size": size} for number, size in enumerate(sizes)]
    page = {"images": [*images, {"size": 3}, {"id": None, "size": 3}, {"id": "名前 😀", "owner": 5, "size": 9}]}
    stub.on("GET", "/v2/images", reply(page))
    cycle = cycle_of(stub)
    with capturedLogs() as logs:
        samples = list(await family.image.poll(cycle))
        await family.image.poll(cycle.following())
    assert {each.resource_id: each.volume for each in samples if each.name == "image.size"} == {
        "6": 7,
        "7": 5,
        "名前 😀": 9,
    }
    assert cycle.provider(ISkippedSamples).counted == {
        ("image", "no-volume"): 2,
        ("image", "bad-volume"): 10,
        ("image", "no-id"): 4,
    }
    assert len([each for each in logs if "are not metered" in each["log_format"]]) == 3


@pytest_twisted.ensureDeferred
async def test_entry_on_two_pages_is_one_sample() -> None:
    stub = captured_cloud()
    page = document("glance-02-images-page2")
    stub.on("GET", "/v2/images", reply({**page, "next": "/v2/images?marker=x"}), reply(page))
    samples = list(await family.image.poll(cycle_of(stub)))
    assert len(samples) == len({(each.name, each.resource_id) for each in samples})


@pytest.mark.parametrize("metered", METERED_LISTINGS, ids=lambda metered: metered.name)
def test_resource_whose_id_is_not_reused_has_the_run_exists(metered: MeteredListing) -> None:
    reused = {"volume.pool", "volume.service", "hypervisor"}
    reserved = metered.metadata_of({"id": "1", "name": "n"}).get("_meter")
    assert reserved == (None if metered.name in reused else {"run": "exists"})
