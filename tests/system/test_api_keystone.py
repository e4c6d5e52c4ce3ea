"""Authentication with tokens of a real Keystone, and discovery of the API in its catalogue."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import urllib.request
from typing import Any

from tests.servers.keystone import PASSWORD
from tests.servers.keystone import TOKEN_SECONDS
from tests.servers.keystone import Keystone
from tests.servers.keystone import keystone  # noqa: F401 - a fixture
from tests.servers.openstack import HOME
from tests.system.daemons import BASE
from tests.system.daemons import Daemon
from tests.system.daemons import House
from tests.system.daemons import fetch
from tests.system.daemons import until


def apples(project_id: str | None) -> dict[str, Any]:
    sample = {"counter_name": "apples", "counter_type": "gauge", "counter_unit": "apple", "counter_volume": 3}
    return {**sample, "resource_id": f"tree of {project_id}", "project_id": project_id}


def settings(keystone: Keystone) -> str:  # noqa: F811
    return f"""
[api.auth]
mode = "keystone"
[api.auth.keystone]
auth_url = "{keystone.url}"
username = "admin"
password = "{PASSWORD}"
project_name = "admin"
revalidate_seconds = 1.0
[api.posted_samples]
tenant_meters = ["apples"]
"""


def validating(house: House, keystone: Keystone) -> Daemon:  # noqa: F811
    """Return an API that validates tokens at ``keystone``, with a cache lifetime of one second."""
    base = BASE.replace("[api]\n", "[api]\naccept_samples = true\n")
    return house.daemon("meter-api", settings(keystone), base=base).start().until_ready()


def send(api: Daemon, token: str, project_id: str) -> None:
    request = urllib.request.Request(
        f"{api.api}/v2/meters/apples?direct=1",
        json.dumps([apples(project_id)]).encode(),
        {"Content-Type": "application/json", "X-Auth-Token": token},
    )
    assert urllib.request.urlopen(request, timeout=60).status == 201


def test_tokens_are_validated_scoped_and_dropped_when_revoked_or_expired(
    furnished: House,
    keystone: Keystone,  # noqa: F811
) -> None:
    blue = keystone.add("blue", "ann", "hers")
    red = keystone.add("red", "bob", "his")
    api = validating(furnished, keystone)
    ann, bob = keystone.token("ann", "hers", "blue"), keystone.token("bob", "his", "red")
    admin = keystone.token("admin", PASSWORD, "admin")
    unscoped = keystone.token("ann", "hers", None)
    # A meter that blue submits is not another tenant's to submit.
    for token, project_id in ((ann, blue), (admin, red)):
        send(api, token, project_id)

    def seen(token: str, query: str = "") -> Any:
        status, body = fetch(f"{api.api}/v2/samples{query}", **{"X-Auth-Token": token})
        return {sample["project_id"] for sample in json.loads(body)} if status == 200 else status

    assert seen(ann) == {blue}
    assert seen(bob) == {red}
    assert seen(admin) == {blue, red}
    assert seen(ann, f"?q.field=project&q.value={red}") == 401
    assert seen(unscoped) == 403
    assert seen("") == 401
    assert seen(hashlib.sha256(b"guessed").hexdigest()) == 401

    keystone.revoke(ann)
    until(lambda: seen(ann) == 401, "the revoked token to leave the cache")
    bob = keystone.token("bob", "his", "red")  # a busy machine may have taken until now for as long as the other lasts
    assert seen(bob) == {red}
    until(lambda: seen(bob) == 401, "the token to expire", seconds=TOKEN_SECONDS + 10)
    # The API's own token has expired too.
    assert seen(keystone.token("bob", "his", "red")) == {red}
    assert "Traceback" not in api.log
    for token in (ann, bob, admin):
        assert token not in api.log


def last_event(stream: Any) -> dict[str, Any]:
    """Read a live stream to its end, and return the data of its last event."""
    lines = stream.read().splitlines()
    assert lines[-3:-1] == [b"event: end", lines[-2]]
    return dict(json.loads(lines[-2].removeprefix(b"data: ")))


def test_live_stream_ends_when_its_token_is_revoked_or_expires(
    furnished: House,
    keystone: Keystone,  # noqa: F811
) -> None:
    keystone.add("teal", "tom", "his")
    api = validating(furnished, keystone)

    def stream(token: str) -> Any:
        request = urllib.request.Request(f"{api.api}/v2/live", headers={"X-Auth-Token": token})
        opened = urllib.request.urlopen(request, timeout=120)
        assert opened.readline().startswith(b": connected")
        return opened

    revoked, expiring = (keystone.token("tom", "his", "teal") for _ in range(2))
    streams = stream(revoked), stream(expiring)
    keystone.revoke(revoked)
    assert last_event(streams[0])["status"] == 401
    assert last_event(streams[1])["status"] == 401
    assert "not valid any more" in api.log
    assert "Traceback" not in api.log


def test_admin_role_counts_in_projects_and_not_in_domains(
    furnished: House,
    keystone: Keystone,  # noqa: F811
) -> None:
    lime = keystone.add("lime", "liz", "hers")
    admin = {"X-Auth-Token": keystone.token("admin", PASSWORD, "admin")}
    _, roles = keystone.ask("GET", "/roles?name=admin", **admin)
    _, users = keystone.ask("GET", "/users?name=liz", **admin)
    keystone.ask("PUT", f"/domains/default/users/{users['users'][0]['id']}/roles/{roles['roles'][0]['id']}", **admin)
    api = validating(furnished, keystone)
    send(api, keystone.token("liz", "hers", "lime"), lime)

    def seen(token: str) -> int:
        return fetch(f"{api.api}/v2/samples", **{"X-Auth-Token": token})[0]

    assert seen(keystone.token("liz", "hers", "lime")) == 200
    assert seen(keystone.scoped_token("liz", "hers", {"domain": {"id": "default"}})) == 403
    assert seen(keystone.scoped_token("admin", PASSWORD, {"system": {"all": True}})) == 200


def test_readiness_follows_an_outage_of_keystone(
    furnished: House,
    keystone: Keystone,  # noqa: F811
) -> None:
    keystone.add("grey", "gil", "his")
    api = validating(furnished, keystone)
    gil = {"X-Auth-Token": keystone.token("gil", "his", "grey")}
    assert fetch(f"{api.api}/v2/meters", **gil)[0] == 200
    keystone.stop()
    try:
        until(lambda: fetch(f"{api.api}/v2/meters", **gil)[0] == 503, "the token to be validated again")
        until(lambda: api.readiness()["status"] == 503, "the API to be not ready")
        assert api.reason("keystone")
    finally:
        keystone.serve()
    api.until_ready()
    assert fetch(f"{api.api}/v2/meters", **{"X-Auth-Token": keystone.token("gil", "his", "grey")})[0] == 200
    assert "Traceback" not in api.log


def test_readiness_shows_that_keystone_refuses_the_account(
    furnished: House,
    keystone: Keystone,  # noqa: F811
) -> None:
    api = furnished.daemon("meter-api", settings(keystone).replace(PASSWORD, "wrong")).start()
    until(lambda: "credentials" in (api.reason("keystone") or ""), "the API to report that its account is refused")
    assert api.readiness()["status"] == 503


SDK = """
import json, sys
import openstack
from keystoneauth1.adapter import Adapter
auth_url, username, password, project = sys.argv[1:]
cloud = openstack.connect(
    auth={
        "auth_url": auth_url, "username": username, "password": password, "project_name": project,
        "user_domain_id": "default", "project_domain_id": "default",
    },
    load_yaml_config=False, load_envvars=False,
)
by_version = cloud.config.get_session_client("metering", version="2")
as_published = Adapter(cloud.session, service_type="metering", interface="public")
print(json.dumps({
    "published": cloud.session.get_endpoint(service_type="metering", interface="public"),
    "discovered": by_version.get_endpoint(),
    "api_version": by_version.get_api_major_version(),
    "meters": by_version.get("/meters").json(),
    "samples": as_published.get("/v2/samples", params={"limit": 1}).json(),
}))
"""


def test_openstacksdk_finds_the_api_in_the_catalogue(furnished: House, keystone: Keystone) -> None:  # noqa: F811
    green = keystone.add("green", "eve", "eve's")
    api = validating(furnished, keystone)
    keystone.publish("metering", api.api)
    send(api, keystone.token("eve", "eve's", "green"), green)

    command = [HOME / "bin/python", "-c", SDK, keystone.url, "eve", "eve's", "green"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["published"], found["discovered"], found["api_version"]) == (api.api, f"{api.api}/v2", [2, 0])
    [meter] = found["meters"]
    assert (meter["name"], meter["project_id"]) == ("apples", green)
    assert [sample["volume"] for sample in found["samples"]] == [3.0]


OBSERVE = """
import json, sys, warnings
warnings.simplefilter("ignore")
from keystoneauth1.identity.v3 import Password
from keystoneauth1.session import Session
from observabilityclient.v1.client import Client
url, user, password, project = sys.argv[1:]
domains = {"user_domain_id": "default", "project_domain_id": "default"}
auth = Password(url, username=user, password=password, project_name=project, **domains)
client = Client(Session(auth=auth))
answers = [client.query.query("ceilometer_apples", disable_rbac=each) for each in (True, False)]
print(json.dumps({
    "metrics": client.query.list(),
    "answers": [[(each.labels["project"], each.value) for each in answer] for answer in answers],
}))
"""


def test_observabilityclient_finds_metric_storage_in_the_catalogue(
    furnished: House,
    keystone: Keystone,  # noqa: F811
) -> None:
    pink = keystone.add("pink", "pia", "hers")
    brown = keystone.add("brown", "gus", "his")
    api = validating(furnished, keystone)
    keystone.publish("metric-storage", api.api)
    send(api, keystone.token("pia", "hers", "pink"), pink)
    send(api, keystone.token("admin", PASSWORD, "admin"), brown)

    command = [sys.executable, "-c", OBSERVE, keystone.url, "pia", "hers", "pink"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "ceilometer_apples" in found["metrics"]
    # The second is restricted by the client too, as in front of a Prometheus that knows no projects.
    assert found["answers"] == [[[pink, "3"]], [[pink, "3"]]]
