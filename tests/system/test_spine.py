"""One sample's whole road, with real daemons, a real broker, a real database and a real hypervisor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from datetime import UTC
from datetime import datetime
from pathlib import Path

import pytest

from meter.bus.batches import batch_publications
from meter.sample import Sample
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from tests.signed import outgoing
from tests.system.daemons import SECRET
from tests.system.daemons import STOPPED
from tests.system.daemons import fetch
from tests.system.daemons import until

KEYS = Keyring([SigningKey("default", SECRET.encode())])
PUBLISHER = str(Path(__file__).with_name("publish.py"))
CEILOMETER = str(Path(sys.executable).with_name("ceilometer"))


def ceilometer(daemon, *arguments):
    """Run the client that old billing scripts use; return what it prints."""
    ran = subprocess.run(
        [CEILOMETER, "--os-token", "x", "--os-endpoint", daemon.api, *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def publish(url, messages):
    """Publish bodies with kombu, as any other program on the bus would."""
    ran = subprocess.run(
        [sys.executable, PUBLISHER, url], input=json.dumps(messages), text=True, capture_output=True, timeout=180
    )
    assert ran.returncode == 0, ran.stderr


def cast_bodies(samples, batch_samples=100):
    return [
        {"exchange": "metering", "routing_key": each.routing_key, "body": each.body.decode()}
        for each in batch_publications([outgoing(sample, KEYS) for sample in samples], batch_samples=batch_samples)
    ]


def sample(volume, **more):
    fields = {
        "name": "lamp.power",
        "type": "gauge",
        "unit": "W",
        "volume": volume,
        "resource_id": "lamp",
        "project_id": "p",
        "timestamp": datetime(2026, 11, 22, 12, tzinfo=UTC),
        "message_id": str(uuid.UUID(int=volume)),
    }
    return Sample(**fields | more)


def test_a_qemu_domain_is_read_with_the_old_client(furnished, libvirtd):
    with libvirtd.guest("first-light") as domain_id:
        collector = furnished.daemon("meter-collector").start()
        api = furnished.daemon("meter-api").start()
        compute = furnished.daemon(
            "meter-compute", f'[compute]\nlibvirt_uri = "{libvirtd.uri}"\n[polling]\ninterval_seconds = 1.0\n'
        ).start()
        for daemon in (collector, api, compute):
            daemon.until_ready()

        def polls():
            return api.get("/v2/meters/cpu?q.field=resource&q.value=" + domain_id)

        # A guest that has just started may have used no time yet.
        until(lambda: len(found := polls()) >= 2 and found[0]["counter_volume"], "two polls of cpu, the last above 0")

        meters = ceilometer(api, "meter-list", "-q", f"resource={domain_id}")
        for name in ("instance", "cpu", "vcpus", "memory"):
            assert f" {name} " in meters
        listed = ceilometer(api, "sample-list", "-m", "cpu", "-q", f"resource={domain_id}")
        assert domain_id in listed
        assert " cumulative " in listed
        assert " ns " in listed
        statistics = ceilometer(api, "statistics", "-m", "cpu", "-q", f"resource={domain_id}")
        assert "Duration Start" in statistics
        assert domain_id in ceilometer(api, "resource-list")

        newest = polls()[0]
        cpu_time = int(libvirtd.stats("first-light")["cpu.time"])
        assert 0 < newest["counter_volume"] <= cpu_time * 2
        assert newest["resource_metadata"]["name"] == "first-light"
        assert newest["source"] == "openstack"
        for daemon in (compute, collector, api):
            assert daemon.stop() in STOPPED, daemon.log
            assert "Traceback" not in daemon.log


def notify(url, driver, payload):
    """Publish ``compute.instance.create.end`` as Nova does, with oslo.messaging's own notifier."""
    script = """
import json, sys
from oslo_config import cfg
import oslo_messaging
url, driver, payload = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
oslo_messaging.set_transport_defaults("nova")
conf = cfg.ConfigOpts()
conf([])
transport = oslo_messaging.get_notification_transport(conf, url=url)
notifier = oslo_messaging.Notifier(transport, publisher_id="compute.host1", driver=driver, topics=["notifications"])
notifier.info({}, "compute.instance.create.end", payload)
transport.cleanup()
"""
    ran = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            script,
            url.replace("amqp://", "rabbit://"),
            driver,
            json.dumps(payload),
        ],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("driver", ["messagingv2", "messaging"])
def test_a_notification_of_nova_becomes_a_sample_of_each_meter(furnished, driver):
    collector = furnished.daemon("meter-collector").start().until_ready()
    api = furnished.daemon("meter-api").start().until_ready()
    captured = Path(__file__).parents[1] / "data/notifications/nova.compute.instance.create.end.json"
    payload = json.loads(captured.read_text())["message"]["payload"]
    payload |= {"display_name": "Zoë 日本 🚀", "memory_mb": 512, "vcpus": 2, "root_gb": 10, "ephemeral_gb": 3}

    notify(furnished.bus, driver, payload)
    expected = {
        ("instance", 1.0, "instance"),
        ("memory", 512.0, "MiB"),
        ("vcpus", 2.0, "vcpu"),
        ("disk.root.size", 10.0, "GiB"),
        ("disk.ephemeral.size", 3.0, "GiB"),
    }

    def found():
        samples = [each for each in api.get("/v2/samples") if each["meter"] in {name for name, _, _ in expected}]
        return len(samples) >= len(expected) and samples

    samples = until(found, "five samples")

    assert {(each["meter"], each["volume"], each["unit"]) for each in samples} == expected
    assert len(samples) == 5
    for each in samples:
        assert each["user_id"] == payload["user_id"]
        assert each["project_id"] == payload["tenant_id"]
        assert each["resource_id"] == payload["instance_id"]
        assert each["metadata"]["display_name"] == "Zoë 日本 🚀"
    assert collector.metric("meter_dead_letters_total") == 0


def test_a_message_changed_after_signing_is_dead_and_not_stored(furnished, rabbitmq):
    collector = furnished.daemon("meter-collector").start().until_ready()
    api = furnished.daemon("meter-api").start().until_ready()
    good, forged = cast_bodies([sample(1500)])[0], cast_bodies([sample(1600)])[0]
    forged["body"] = forged["body"].replace("1600,", "1700,")
    assert "1700," in forged["body"]

    publish(furnished.bus, [forged, good])
    until(lambda: api.get("/v2/samples"), "the good sample")
    until(lambda: collector.metric('meter_dead_letters_total{reason="unverified"}'), "the dead letter")

    assert [each["volume"] for each in api.get("/v2/samples")] == [1500.0]
    taken = subprocess.run(
        [sys.executable, PUBLISHER, furnished.bus, "get", "metering.dead"], capture_output=True, text=True, timeout=180
    )
    [letter] = json.loads(taken.stdout)
    assert "differs from the one that key default signed" in letter["headers"]["meter-reason"]
    assert "1700" in letter["body"]


def test_a_collector_stopped_in_the_middle_stores_each_sample_once(furnished):
    collector = furnished.daemon("meter-collector", "[collector]\nbatch_samples = 200\n").start().until_ready()
    samples = [sample(number) for number in range(1, 10_001)]
    collector.stop()  # the queue exists now; it fills while nobody takes
    publish(furnished.bus, cast_bodies(samples, batch_samples=10))

    collector.start()
    stored = 'meter_collected_samples_total{outcome="stored"}'
    until(lambda: collector.metric(stored) >= 400, "the first hundreds of samples")
    collector.send(signal.SIGTERM)
    assert collector.stop() in STOPPED
    api = furnished.daemon("meter-api").start().until_ready()
    count = f"{api.api}/v2/meters/lamp.power/statistics"
    before = json.loads(fetch(count)[1])[0]["count"]
    assert 0 < before < 10_000

    collector.start()
    until(lambda: json.loads(fetch(count)[1])[0]["count"] >= 10_000, "the rest")

    [statistics] = api.get("/v2/meters/lamp.power/statistics")
    assert (statistics["count"], statistics["sum"]) == (10_000, sum(range(1, 10_001)))
    assert collector.stop() in STOPPED
    assert "Traceback" not in collector.log
