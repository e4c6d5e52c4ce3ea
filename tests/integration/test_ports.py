"""A listening port, against real addresses of this host."""

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.task import deferLater

from meter.daemon.ports import Port
from meter.daemon.ports import address

FACTORY = Factory.forProtocol(Protocol)


def port(description, clock=reactor):
    return Port(description, FACTORY, name="api", reactor=reactor, clock=clock, advice="; choose another")


async def iterate_reactor():
    for _ in range(5):
        await deferLater(reactor, 0)


@pytest_twisted.ensureDeferred
async def test_port_reports_its_address():
    service = port("tcp:0:interface=127.0.0.1")
    assert not service.readiness().ready
    service.startService()
    await iterate_reactor()

    assert service.readiness().reason == f"listens on 127.0.0.1:{service.port.getHost().port}"
    assert service.readiness().ready
    await service.stopService()
    assert not service.readiness().ready


@pytest_twisted.ensureDeferred
async def test_port_in_use_is_retried_until_it_is_free(logged_errors):
    first, clock = port("tcp:0:interface=127.0.0.1"), Clock()
    first.startService()
    await iterate_reactor()
    number = first.port.getHost().port
    second = port(f"tcp:{number}:interface=127.0.0.1", clock)
    second.startService()
    await iterate_reactor()
    assert "cannot listen on" in second.readiness().reason
    assert len(logged_errors.flush()) == 1
    clock.advance(1)
    await iterate_reactor()
    assert logged_errors.flush() == []  # told once

    await first.stopService()
    clock.advance(2)
    await iterate_reactor()

    assert second.readiness().ready
    await second.stopService()


@pytest_twisted.ensureDeferred
async def test_stop_ends_the_pause_between_attempts(logged_errors):
    first, clock = port("tcp:0:interface=127.0.0.1"), Clock()
    first.startService()
    await iterate_reactor()
    second = port(f"tcp:{first.port.getHost().port}:interface=127.0.0.1", clock)
    second.startService()
    await iterate_reactor()

    await second.stopService()

    assert clock.getDelayedCalls() == []
    logged_errors.flush()
    await first.stopService()


@pytest_twisted.ensureDeferred
async def test_unix_socket_is_reported_by_its_path(tmp_path):
    service = port(f"unix:{tmp_path}/api.sock:mode=600")
    service.startService()
    await iterate_reactor()

    assert address(service.port.getHost()) == f"{tmp_path}/api.sock"
    await service.stopService()
