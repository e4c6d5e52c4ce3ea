"""Gnocchi lets every user make resources, with the name and in the project of others: an import must not take them for Ceilometer's."""

from __future__ import annotations

import base64
import json
import urllib.request
import uuid
from typing import Any

import pytest_twisted
from twisted.internet.threads import deferToThread

from meter.commands.command import EXIT_OK
from meter.commands.command import EXIT_USAGE
from tests.importing import meter_import as meter_import
from tests.integration.test_import_gnocchi import cloud as cloud
from tests.integration.test_import_gnocchi import import_gnocchi as import_gnocchi
from tests.integration.test_import_gnocchi import polls
from tests.integration.test_import_gnocchi import samples
from tests.servers.gnocchi import USER

TAP = "instance-00000001-tap1"
"""An id that is no UUID, as Ceilometer has for interfaces: Gnocchi derives one of its own from it and from the creator."""

CPU = {"cpu": ("ceilometer-low", "ns")}


def ask_as(cloud: Any, user: str, path: str, body: Any) -> Any:
    request = urllib.request.Request(
        f"{cloud.url}/v1/{path}",
        json.dumps(body).encode(),
        {
            "Content-Type": "application/json",
            "Authorization": f"Basic {base64.b64encode(f'{user}:'.encode()).decode()}",
        },
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read()
        return json.loads(text) if text else None


def claim(cloud: Any, user: str) -> dict[str, Any]:
    """Make, as ``user``, a resource with the name and the project of another one, and a measure of 0."""
    metrics = {"cpu": {"archive_policy_name": "ceilometer-low"}}
    made: dict[str, Any] = ask_as(
        cloud, user, "resource/generic", {"id": TAP, "project_id": "p1", "user_id": "u1", "metrics": metrics}
    )
    [(at, _)] = polls(0)
    ask_as(cloud, user, f"metric/{made['metrics']['cpu']}/measures", [{"timestamp": at, "value": 0}])
    cloud.ask("GET", f"metric/{made['metrics']['cpu']}/measures?refresh=true&aggregation=mean")
    return made


@pytest_twisted.ensureDeferred
async def test_a_users_resource_cannot_take_the_place_of_ceilometers(import_gnocchi: Any, cloud: Any) -> None:
    def make() -> str:
        true = cloud.resource(TAP, CPU, project_id="p1", user_id="u1")
        cloud.measure(true["metrics"]["cpu"], polls(100))
        for number in range(1000):
            claimed = claim(cloud, user := f"mallory{number}")
            if uuid.UUID(claimed["id"]) < uuid.UUID(true["id"]):  # it would be imported first
                return user
        raise AssertionError("no id is less")

    mallory = await deferToThread(make)

    for dry_run in ("--dry-run", "--restart"):
        status, _, errors = await import_gnocchi(dry_run)
        assert (status, f"{USER} (1 resource)" in errors, mallory in errors) == (EXIT_USAGE, True, True)
        assert "--creator" in errors
    status, _, errors = await import_gnocchi("--creator", "admim")
    assert (status, "admim has made no resource" in errors) == (EXIT_USAGE, True)

    status, out, errors = await import_gnocchi("--creator", USER)

    assert (status, errors, json.loads(out)["not_imported"]) == (EXIT_OK, "", 0)
    assert [(each.volume, each.resource_id) for each in await samples(import_gnocchi.dsn)] == [(100, TAP)]
