"""Names of projects from a real Keystone, its notifications and a file, by way of a real broker, in the API."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.servers.keystone import PASSWORD
from tests.servers.keystone import Keystone
from tests.servers.keystone import keystone  # noqa: F401 - a fixture
from tests.system.daemons import Daemon
from tests.system.daemons import House
from tests.system.daemons import until


def cloud(keystone: Keystone) -> str:  # noqa: F811
    return f"""
[central]
identity_interval_seconds = 1.0
[openstack.auth]
auth_url = "{keystone.url}"
username = "admin"
password = "{PASSWORD}"
project_name = "admin"
"""


def updated(project: str, at: datetime) -> dict[str, Any]:
    """Return Keystone's notification that a project was updated."""
    message = {
        "message_id": str(uuid.uuid4()),
        "publisher_id": "identity.host",
        "event_type": "identity.project.updated",
        "priority": "INFO",
        "payload": {"resource_info": project},
        "timestamp": at.isoformat(" ").removesuffix("+00:00"),
    }
    body = {"oslo.version": "2.0", "oslo.message": json.dumps(message)}
    return {"exchange": "keystone", "routing_key": "notifications.info", "body": json.dumps(body)}


def names(api: Daemon, query: str) -> list[dict[str, Any]]:
    return [each for found in api.get(f"/v2/identities?{query}") for each in found["names"]]


def test_renamed_and_deleted_project_stays_readable(furnished: House, keystone: Keystone) -> None:  # noqa: F811
    file = furnished.directory / "identities.toml"
    file.write_text('[[identity]]\nid = "lab"\nname = "Laboratory"\nsince = 2026-01-01\n')
    collector = furnished.daemon("meter-collector", f'[identities]\nfile = "{file}"\n').start().until_ready()
    api = furnished.daemon("meter-api").start().until_ready()
    central = furnished.daemon("meter-central", cloud(keystone)).start().until_ready()
    admin = {"X-Auth-Token": keystone.token("admin", PASSWORD, "admin")}

    _, made = keystone.ask("POST", "/projects", {"project": {"name": "red planet"}}, **admin)
    project = str(made["project"]["id"])
    until(lambda: names(api, f"id={project}"), "the name of the project")
    until(lambda: names(api, "id=lab"), "the name in the file")

    admin = {"X-Auth-Token": keystone.token("admin", PASSWORD, "admin")}
    at = datetime.now(UTC)
    keystone.ask("PATCH", f"/projects/{project}", {"project": {"name": "Красная"}}, **admin)
    publish = [sys.executable, str(Path(__file__).with_name("publish.py")), furnished.bus]
    subprocess.run(publish, input=json.dumps([updated(project, at)]).encode(), check=True, timeout=180)
    until(lambda: len(names(api, f"id={project}")) == 2, "the new name")
    until(lambda: names(api, f"id={project}")[1]["since_exact"], "the time of the notification")
    before, after = names(api, f"id={project}")
    assert (before["name"], after["name"], after["until"]) == ("red planet", "Красная", None)
    assert before["until"] == after["since"] == at.isoformat().removesuffix("+00:00")

    keystone.ask("DELETE", f"/projects/{project}", **admin)
    until(lambda: names(api, f"id={project}")[1]["until"], "the end of the project")
    assert [each["name"] for each in names(api, "name=red%20planet")] == ["red planet", "Красная"]

    file.write_text("")
    until(lambda: names(api, "id=lab")[0]["until"], "the end of the name in the file")
    for daemon in (collector, api, central):
        assert "Traceback" not in daemon.log
        daemon.stop()
