"""A notification that nobody wanted is kept, and makes its sample once there is a definition and it is replayed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from meter.message import seal
from tests.system.daemons import until
from tests.system.test_spine import publish

pytestmark = pytest.mark.timeout(180)

METER_NOTIFY = str(Path(sys.executable).with_name("meter-notify"))
CAPTURED = json.loads((Path(__file__).parents[1] / "data/notifications/openstack.volume.resize.end.json").read_text())
DEFINITION = """\
[[meter]]
name = "share.snapshot.size"
event_types = ["share_snapshot.create.end"]
unit = "GiB"
volume = "$.payload.size"
resource = "$.payload.snapshot_id"
"""


def test_what_nobody_wanted_makes_samples_after_a_replay(furnished, tmp_path):
    definitions = tmp_path / "meters.d"
    definitions.mkdir()
    config = f'[notifications]\ndefinitions = "{definitions}"\narchive_messages = 10\n'
    collector = furnished.daemon("meter-collector", config).start().until_ready()
    said = CAPTURED["message"] | {
        "event_type": "share_snapshot.create.end",
        "payload": {"snapshot_id": "s1", "size": 7},
    }
    publish(
        furnished.bus,
        [{"exchange": "openstack", "routing_key": "notifications.info", "body": seal(said).decode()}],
    )
    kept = 'meter_archived_notifications_total{outcome="kept"}'
    until(lambda: collector.metric(kept) == 1, "the notification in the archive")

    collector.stop()
    (definitions / "own.toml").write_text(DEFINITION)
    collector.start().until_ready()
    ran = subprocess.run(
        [METER_NOTIFY, "--config", collector.config_file, "replay"], capture_output=True, text=True, timeout=180
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        "share_snapshot.create.end from openstack: replayed to meter.notifications",
        "1 of 1 notification replayed",
    ]
    api = furnished.daemon("meter-api").start().until_ready()
    [sample] = until(lambda: api.get("/v2/meters/share.snapshot.size"), "the sample of what was missed")
    assert (sample["counter_volume"], sample["timestamp"]) == (7, "2026-11-22T16:07:24.711807")
