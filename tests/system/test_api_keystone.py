"""Real tokens of a real Keystone decide who sees what."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from typing import Any

import pytest

from tests.servers.keystone import PASSWORD
from tests.servers.keystone import Keystone
from tests.servers.keystone import keystone  # noqa: F401 - a fixture
from tests.system.daemons import House
from tests.system.daemons import fetch
from tests.system.daemons import until

pytestmark = pytest.mark.timeout(180)


def apples(project_id: str | None) -> dict[str, Any]:
    sample = {"counter_name": "apples", "counter_type": "gauge", "counter_unit": "apple", "counter_volume": 3}
    return {**sample, "resource_id": f"tree of {project_id}", "project_id": project_id}


def test_tokens_are_validated_scoped_and_forgotten_when_revoked(furnished: House, keystone: Keystone) -> None:  # noqa: F811
    blue = keystone.add("blue", "ann", "hers")
    red = keystone.add("red", "bob", "his")
    ann, bob = keystone.token("ann", "hers", "blue"), keystone.token("bob", "his", "red")
    admin = keystone.token("admin", PASSWORD, "admin")
    unscoped = keystone.token("ann", "hers", None)
    api = furnished.daemon(
        "meter-api",
        f"""
[api.auth]
mode = "keystone"
[api.auth.keystone]
auth_url = "{keystone.url}"
username = "admin"
password = "{PASSWORD}"
project_name = "admin"
revalidate_seconds = 1.0
""",
    )
    api.start().until_ready()
    for token, project_id in ((ann, blue), (bob, red)):
        request = urllib.request.Request(
            f"{api.api}/v2/meters/apples?direct=1",
            json.dumps([apples(project_id)]).encode(),
            {"Content-Type": "application/json", "X-Auth-Token": token},
        )
        assert urllib.request.urlopen(request, timeout=20).status == 201

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
    until(lambda: seen(ann) == 401, "the revoked token to be forgotten")
    assert seen(bob) == {red}
    assert "Traceback" not in api.log
    for token in (ann, bob, admin):
        assert token not in api.log
