"""The short form of the fault campaign: some of its faults, and what needs no fault to go wrong.

``make chaos`` runs all of them; docs/reliability.rst says what is promised and how it is counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.campaign import run
from tests.chaos.faults import FAULTS
from tests.system.daemons import STOPPED
from tests.system.daemons import until

SHORT = (
    "second SIGTERM of an agent that drains",
    "SIGKILL of the collector between commit and ack",
    "SIGKILL of PostgreSQL",
    "network cut in the middle of frames",
)
CREATED = Path(__file__).parents[1] / "data/notifications/nova.compute.instance.create.end.json"
FIVE = {"instance", "memory", "vcpus", "disk.root.size", "disk.ephemeral.size"}
STORED = 'meter_collected_samples_total{outcome="stored"}'
SAMPLED = 'meter_notifications_total{event_type="compute.instance.create.end",outcome="sampled"}'
DUPLICATES = 'meter_collected_samples_total{outcome="duplicate"}'


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.name in SHORT], ids=lambda fault: fault.name)
def test_nothing_is_lost_and_nothing_is_doubled_by(fault, rabbitmq, postgresql, tmp_path):
    outcome = run(fault, rabbitmq, postgresql, tmp_path / "site")

    assert outcome.passed, f"{outcome}"
    assert outcome.sent > 1000


def test_a_notification_delivered_five_times_yields_its_samples_once(furnished):
    collector = furnished.daemon("meter-collector").start().until_ready()
    api = furnished.daemon("meter-api").start().until_ready()
    message = json.loads(CREATED.read_text())["message"]
    body = json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)})
    publish = [sys.executable, str(Path(__file__).with_name("publish.py")), furnished.bus]
    notification = {"exchange": "nova", "routing_key": "notifications.info", "body": body}

    subprocess.run(publish, input=json.dumps([notification] * 5), text=True, check=True, timeout=180)
    until(lambda: collector.metric(SAMPLED) == 5, "five deliveries")
    until(
        lambda: collector.metric(DUPLICATES) == 4 * collector.metric(STORED) >= 4 * len(FIVE),
        "four of five to be known already",
    )

    samples = api.get("/v2/samples?limit=1000")
    assert {each["meter"] for each in samples} >= FIVE
    assert len({each["meter"] for each in samples}) == len(samples) == collector.metric(STORED)
    assert collector.stop() in STOPPED
