"""``meter-notify publish`` on a real RabbitMQ: publishes as the service did, or reports why not."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue

from meter.collector.notifications import NOTIFICATIONS_QUEUE
from meter.commands import notify
from meter.commands.command import EXIT_OK
from meter.commands.command import UNAVAILABLE
from meter.interfaces import Binding
from meter.interfaces import Subscription
from meter.interfaces import Unavailable
from meter.message import open_envelope
from tests.waiting import until

NOTIFICATIONS = Path(__file__).parents[1] / "data" / "notifications"
RESIZED = NOTIFICATIONS / "openstack.volume.resize.end.json"
UPLOADED = NOTIFICATIONS / "glance.image.upload.json"


async def meter_notify(*arguments):
    """Run the command; return its exit status, output and errors."""
    out, errors, status = await getProcessOutputAndValue(
        sys.executable,
        ["-c", "from meter.commands.notify import main; main()", "publish", *map(str, arguments)],
        env=os.environ,
        reactor=reactor,
    )
    return status, out.decode(), errors.decode()


@pytest.fixture
def collecting(amqp_bus):
    """Binds the collector's queue to exchanges; returns the list of deliveries."""

    async def collecting(url, *exchanges):
        bus, came = amqp_bus(url), []

        async def take(delivery):
            came.append(delivery)

        bindings = tuple(Binding(exchange, "notifications.info") for exchange in exchanges)
        bus.subscribe(Subscription(queue=NOTIFICATIONS_QUEUE, bindings=bindings), take).startService()
        await until(lambda: bus.readiness().ready)
        return came

    return collecting


@pytest_twisted.ensureDeferred
async def test_published_file_reaches_the_collector_as_sent_by_the_service(rabbitmq, collecting):
    url = rabbitmq.vhost()
    came = await collecting(url, "openstack", "glance")

    status, out, errors = await meter_notify("--url", url, RESIZED, UPLOADED)

    assert (status, errors) == (EXIT_OK, "")
    assert out.splitlines() == [
        f"{RESIZED}: published to exchange openstack with routing key notifications.info",
        f"{UPLOADED}: published to exchange glance with routing key notifications.info",
    ]
    await until(lambda: len(came) == 2)
    for path, delivery in zip((RESIZED, UPLOADED), came, strict=True):
        captured = json.loads(path.read_text())
        assert (delivery.exchange, delivery.routing_key) == (captured["exchange"], captured["routing_key"])
        assert open_envelope(delivery.body) == captured["message"]


@pytest_twisted.ensureDeferred
async def test_exchange_and_routing_key_of_the_command_line_override_the_file(rabbitmq, collecting):
    url = rabbitmq.vhost()
    came = await collecting(url, "elsewhere")

    status, out, errors = await meter_notify("--url", url, "--exchange", "elsewhere", RESIZED)

    assert (status, errors) == (EXIT_OK, "")
    assert out == f"{RESIZED}: published to exchange elsewhere with routing key notifications.info\n"
    await until(lambda: len(came) == 1)


@pytest_twisted.ensureDeferred
async def test_unroutable_notification_is_reported(rabbitmq, collecting):
    url = rabbitmq.vhost()
    came = await collecting(url, "openstack")

    status, out, errors = await meter_notify("--url", url, "--routing-key", "notifications.critical", RESIZED)

    assert (status, out) == (UNAVAILABLE, "")
    assert errors == (
        f"{RESIZED}: NO_ROUTE: no queue is bound to exchange 'openstack' for routing key 'notifications.critical'\n"
    )
    assert came == []


@pytest_twisted.ensureDeferred
async def test_missing_exchange_is_reported(rabbitmq):
    status, out, errors = await meter_notify("--url", rabbitmq.vhost(), "--exchange", "nonesuch", RESIZED)

    assert (status, out) == (UNAVAILABLE, "")
    assert f"{RESIZED}: " in errors
    assert "no exchange 'nonesuch'" in errors
    assert "Traceback" not in errors


@pytest_twisted.ensureDeferred
async def test_notification_that_is_too_large_is_reported_and_the_next_is_published(rabbitmq, collecting, tmp_path):
    url = rabbitmq.vhost()
    came = await collecting(url, "openstack", "glance", "cinder")
    captured = [(str(RESIZED), each) for each in notify.read_captured(str(RESIZED))]
    too_large = [("large.json", replace(each, body=each.body + b" " * 2**24)) for _, each in captured]

    assert await notify.publish([*too_large, *captured], reactor, url, exchange=None, routing_key=None) == 1
    await until(lambda: len(came) == len(captured))


@pytest_twisted.ensureDeferred
async def test_unavailable_broker_is_reported_with_the_reason(rabbitmq, monkeypatch):
    monkeypatch.setattr(notify, "READY_SECONDS", 1.0)
    captured = [(str(path), each) for path in (RESIZED,) for each in notify.read_captured(str(path))]

    with pytest.raises(Unavailable, match=r"the broker: .*nonesuch"):
        await notify.publish(captured, reactor, f"{rabbitmq.vhost()}-nonesuch", exchange=None, routing_key=None)
