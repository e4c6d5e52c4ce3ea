"""A receiver with oslo.messaging, such as Ceilometer's collector, takes the casts of Meter although it does not know their signature."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from meter.batch_signature import BATCH_SIGNATURE_FIELD
from meter.bus.batches import batch_publications
from meter.message import open_envelope
from meter.sample import Sample
from tests.signed import outgoing
from tests.store_messages import KEYS
from tests.store_messages import NOON

DISPATCHER = """
import json, sys, types
import oslo_messaging
from oslo_messaging.rpc.dispatcher import DefaultRPCAccessPolicy, RPCDispatcher

class Collector:
    target = oslo_messaging.Target(version="1.0")

    def record_metering_data(self, context, data):
        return [each["message_id"] for each in data]

dispatcher = RPCDispatcher([Collector()], oslo_messaging.NoOpSerializer(), DefaultRPCAccessPolicy)
incoming = types.SimpleNamespace(message=json.load(sys.stdin), ctxt={}, client_timeout=None)
try:
    print(json.dumps(dispatcher.dispatch(incoming)))
except TypeError as error:
    print(json.dumps(str(error)))
"""
"""In a process of its own: oslo.messaging patches what it runs in."""


def dispatched(content):
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DISPATCHER],
        input=json.dumps(content),
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture
def content():
    sample = Sample(name="cpu", type="gauge", unit="ns", volume=1, resource_id="r", timestamp=NOON, message_id="m")
    [publication] = batch_publications([outgoing(sample, KEYS)])
    return open_envelope(publication.body)


def test_signature_beside_the_arguments_is_ignored(content):
    assert BATCH_SIGNATURE_FIELD in content
    assert dispatched(content) == ["m"]


def test_signature_among_the_arguments_would_be_an_error(content):
    content["args"][BATCH_SIGNATURE_FIELD] = content.pop(BATCH_SIGNATURE_FIELD)
    assert "unexpected keyword argument" in dispatched(content)
