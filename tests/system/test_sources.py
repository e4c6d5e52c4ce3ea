"""Ceilometer's own agents as sources: what they publish, however they publish it, is verified and stored to the letter."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from functools import partial
from pathlib import Path

import pytest
import pytest_twisted

from meter.ceilometer_signature import signature
from meter.message import seal
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.store import PostgresStore
from tests.signed import stored_message
from tests.system.daemons import until
from tests.system.test_spine import publish
from tests.waiting import until as until_true

CAPTURED = sorted((Path(__file__).parents[1] / "data/ceilometer-polling").glob("*.json"))
SECRET = "change this for valid signing"
KEYS = Keyring([SigningKey("ceilometer", SECRET.encode(), schemes=("ceilometer",))])
CONFIG = f"""
[meter]
state_dir = "{{directory}}/state"
[status]
listen = "tcp:{{status_port}}:interface=127.0.0.1"
[[signing.keys]]
id = "meter"
key = "Meter's own"
[[signing.keys]]
id = "ceilometer"
key = "{SECRET}"
schemes = ["ceilometer"]
"""
STORED = 'meter_collected_samples_total{outcome="stored"}'
DUPLICATE = 'meter_collected_samples_total{outcome="duplicate"}'
DEAD = "meter_dead_letters_total"

NOTIFIER = """
import json, sys
import oslo_messaging
from oslo_config import cfg

url, driver, topic, event_type = sys.argv[1:]
oslo_messaging.set_transport_defaults("ceilometer")
configuration = cfg.ConfigOpts()
configuration([])
transport = oslo_messaging.get_notification_transport(configuration, url)
notifier = oslo_messaging.Notifier(transport, driver=driver, publisher_id="ceilometer.polling", topics=[topic])
for payload in json.load(sys.stdin):
    notifier.sample({}, event_type, payload)
transport.cleanup()
"""
"""Publishes as Ceilometer does: with its exchange, its priority and the notifier that it uses."""


def notify(url, driver, topic, event_type, payloads):
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NOTIFIER, url.replace("amqp:", "rabbit:"), driver, topic, event_type],
        input=json.dumps(payloads),
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == 0, ran.stderr


def captured():
    """The messages of the real agent, and all samples in them."""
    messages = [json.loads(path.read_text()) for path in CAPTURED]
    return messages, [each for message in messages for each in message["message"]["payload"]["samples"]]


@pytest.fixture
def collector(furnished):
    return furnished.daemon("meter-collector", base=CONFIG).start().until_ready()


async def given_back(dsn, ids):
    """What ``IStore.proof`` gives for each id."""
    from twisted.internet import reactor

    store = PostgresStore(reactor, dsn, clock=reactor, migrate=False, writers=0)
    store.startService()
    try:
        await until_true(lambda: store.readiness().ready)
        return [await stored_message(store, each) for each in ids]
    finally:
        await store.stopService()


async def stored_to_the_letter(furnished, collector, samples):
    until(lambda: collector.metric(STORED) >= len(samples) or collector.metric(DEAD), "the samples")
    assert collector.metric(DEAD) == 0
    found = await given_back(furnished.store, [each["message_id"] for each in samples])
    as_text = partial(json.dumps, sort_keys=True)  # a signature covers the fields in the order of their names
    assert [as_text(each) for each in found] == [as_text(each) for each in samples]
    for each in found:
        assert each["message_signature"] == signature(each, SECRET.encode())


@pytest.mark.parametrize("driver", ["messagingv2", "messaging"])
@pytest_twisted.ensureDeferred
async def test_what_the_polling_agent_publishes_is_stored(furnished, collector, driver):
    messages, samples = captured()
    notify(
        furnished.bus,
        driver,
        "notifications",
        "telemetry.polling",
        [each["message"]["payload"] for each in messages],
    )
    await stored_to_the_letter(furnished, collector, samples)


@pytest_twisted.ensureDeferred
async def test_the_captured_messages_are_stored_once_however_often_they_come(furnished, collector):
    messages, samples = captured()
    bodies = [
        {"exchange": each["exchange"], "routing_key": each["routing_key"], "body": seal(each["message"]).decode()}
        for each in messages
    ]
    publish(furnished.bus, bodies * 3)
    await stored_to_the_letter(furnished, collector, samples)
    until(lambda: collector.metric(DUPLICATE) == 2 * len(samples), "the copies")
    assert collector.metric(STORED) == len(samples)


@pytest.mark.parametrize("event_type", ["metering", "metering.cpu"])
@pytest_twisted.ensureDeferred
async def test_what_the_notifier_publisher_sends_is_stored(furnished, collector, event_type):
    _, samples = captured()
    notify(furnished.bus, "messagingv2", "metering", event_type, [samples[:5], samples[5:]])
    await stored_to_the_letter(furnished, collector, samples)


@pytest.mark.parametrize("wrapped", [True, False])
@pytest_twisted.ensureDeferred
async def test_what_an_old_agent_casts_is_stored(furnished, collector, wrapped):
    _, samples = captured()
    content = {
        "method": "record_metering_data",
        "version": "1.0",
        "args": {"data": samples},
        "_unique_id": uuid.uuid4().hex,
        "_context_is_admin": True,
        "_context_auth_token": None,
    }
    body = seal(content).decode() if wrapped else json.dumps(content)
    publish(furnished.bus, [{"exchange": "ceilometer", "routing_key": "metering", "body": body}])
    await stored_to_the_letter(furnished, collector, samples)


@pytest_twisted.ensureDeferred
async def test_one_forged_sample_of_a_batch_is_set_aside_and_the_others_are_stored(furnished, collector):
    messages, samples = captured()
    content = messages[0]["message"]
    content["payload"]["samples"][1]["counter_volume"] += 1
    good = [each for each in content["payload"]["samples"] if each is not content["payload"]["samples"][1]]
    publish(
        furnished.bus,
        [{"exchange": "ceilometer", "routing_key": "notifications.sample", "body": seal(content).decode()}],
    )
    until(lambda: collector.metric('meter_dead_letters_total{reason="unverified"}') == 1, "the dead letter")
    found = await given_back(furnished.store, [each["message_id"] for each in good])
    assert found == good
    assert collector.metric(STORED) == len(samples) / len(messages) - 1
