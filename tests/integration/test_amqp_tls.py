"""TLS to a real RabbitMQ that requires client certificates: what is wrong is told once, and mended without a restart."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent
from twisted.logger import LogLevel
from twisted.logger import formatEvent
from twisted.logger import globalLogPublisher

from meter.bus.amqp import AmqpBus
from meter.bus.amqp.url import BrokerAddress
from meter.interfaces import Binding
from meter.interfaces import Publication
from meter.interfaces import Subscription
from tests.servers import not_installed
from tests.servers.certificates import Authority
from tests.servers.certificates import Certificate
from tests.servers.rabbitmq import INSTALL
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.rabbitmq import installed
from tests.waiting import until


class Site:
    """A broker, the CA of its certificate and of its clients', and the files of one client."""

    def __init__(self, broker: RabbitMQ, authority: Authority, directory: Path) -> None:
        self.broker = broker
        self.authority = authority
        self.directory = directory
        self.ca_file = directory / "client-ca.pem"
        self.cert_file = directory / "client.pem"
        self.key_file = directory / "client-key.pem"
        self.trust(authority)
        self.use(authority.issue("meter-agent"))

    def trust(self, authority: Authority) -> None:
        self.ca_file.write_bytes(authority.file.read_bytes())

    def use(self, client: Certificate) -> None:
        self.cert_file.write_bytes(client.cert_file.read_bytes())
        self.key_file.write_bytes(client.key_file.read_bytes())
        self.key_file.chmod(0o600)

    def url(self, *, mechanism: str = "", certificate: bool = True) -> str:
        vhost = self.broker.vhost().rpartition("/")[2]
        self.broker.allow("meter-agent")
        parameters = [f"cacertfile={self.ca_file}"]
        parameters += [f"certfile={self.cert_file}", f"keyfile={self.key_file}"] if certificate else []
        parameters += [f"auth_mechanism={mechanism}"] if mechanism else []
        account = "" if mechanism == "external" else "guest:guest@"
        return f"amqps://{account}localhost:{self.broker.tls_port}/{vhost}?{'&'.join(parameters)}"


@pytest.fixture(scope="module")
def tls_broker(server_directory: Callable[[str], Path]) -> Iterator[tuple[RabbitMQ, Authority, Path]]:
    sbin = installed()
    if sbin is None:
        not_installed(INSTALL)
    directory = server_directory("meter-rabbitmq-tls-")
    authority = Authority(directory)
    broker = RabbitMQ(sbin, directory, client_ca=authority.file)
    try:
        broker.start()
        broker.add_user("meter-agent")
        yield broker, authority, directory
    finally:
        broker.close()


@pytest.fixture
def site(tls_broker: tuple[RabbitMQ, Authority, Path], tmp_path: Path) -> Site:
    broker, authority, _ = tls_broker
    right = authority.issue("broker", "localhost")
    broker.present(right.cert_file, right.key_file)
    return Site(broker, authority, tmp_path)


@pytest.fixture
def bus() -> Iterator[Callable[[str], AmqpBus]]:
    from twisted.internet import reactor

    buses: list[AmqpBus] = []

    def make(url: str, **arguments: Any) -> AmqpBus:
        bus = AmqpBus(reactor, url, clock=reactor, **arguments)  # type: ignore[arg-type]
        bus.startService()
        buses.append(bus)
        return bus

    yield make
    for each in buses:
        pytest_twisted.blockon(maybeDeferred(each.stopService))


class CountedEndpoint:
    """An endpoint that appends to ``attempts`` when it connects."""

    def __init__(self, endpoint: IStreamClientEndpoint, attempts: list[None]) -> None:
        self._endpoint = endpoint
        self._attempts = attempts

    def connect(self, factory: Any) -> Any:
        self._attempts.append(None)
        return self._endpoint.connect(factory)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """As many members as there were attempts to connect to a broker."""
    found: list[None] = []
    endpoint = BrokerAddress.endpoint

    def counted(address: BrokerAddress, *arguments: Any) -> CountedEndpoint:
        return CountedEndpoint(endpoint(address, *arguments), found)

    monkeypatch.setattr(BrokerAddress, "endpoint", counted)
    return found


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged of connections to the broker that fail."""
    found: list[str] = []

    def observe(event: LogEvent) -> None:
        text = formatEvent(event)
        if "retrying" in text or event.get("log_level") in (LogLevel.error, LogLevel.critical):
            found.append(text)

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


async def publish(bus: Any) -> None:
    async def ignore(_: Any) -> None:
        pass

    consumer = bus.subscribe(Subscription(queue="q", bindings=(Binding("metering", "metering.#", ours=True),)), ignore)
    consumer.startService()
    await until(lambda: consumer.ready)
    await bus.publish(Publication(exchange="metering", routing_key="metering.cpu", body=b"{}"))


def ready(bus: AmqpBus) -> Callable[[], bool]:
    return lambda: bus.readiness().ready


@pytest_twisted.ensureDeferred
async def test_client_certificate_opens_the_tls_port_and_password_the_account(site: Site, bus: Any) -> None:
    connected = bus(site.url())
    await until(ready(connected))
    assert "user guest" in connected.readiness().reason
    await publish(connected)


@pytest_twisted.ensureDeferred
async def test_mechanism_external_takes_the_user_from_the_client_certificate(site: Site, bus: Any) -> None:
    connected = bus(site.url(mechanism="external"))
    await until(ready(connected))
    assert "user of the client certificate" in connected.readiness().reason
    await publish(connected)
    users = await deferToThread(site.broker.ctl, "list_connections", "user", "auth_mechanism", "ssl")
    assert "meter-agent\tEXTERNAL\ttrue" in users


@pytest_twisted.ensureDeferred
async def test_mechanism_external_for_an_unknown_user_is_refused_by_the_broker(site: Site, bus: Any) -> None:
    site.use(site.authority.issue("somebody"))
    refused = bus(site.url(mechanism="external"))
    await until(lambda: "ACCESS_REFUSED" in refused.readiness().reason)


@pytest_twisted.ensureDeferred
async def test_broker_without_the_mechanism_external_is_told(rabbitmq: RabbitMQ, site: Site, bus: Any) -> None:
    vhost = rabbitmq.vhost(tls=True)
    refused = bus(f"{vhost}&certfile={site.cert_file}&keyfile={site.key_file}&auth_mechanism=external")
    await until(lambda: "does not offer the mechanism EXTERNAL" in refused.readiness().reason)
    assert "rabbitmq_auth_mechanism_ssl" in refused.readiness().reason


@pytest_twisted.ensureDeferred
async def test_tls_port_of_a_url_without_tls_is_told(site: Site, bus: Any) -> None:
    plain = bus(site.url(certificate=False).replace("amqps://", "amqp://").partition("?")[0])
    await until(lambda: "the port speaks TLS: use amqps://" in plain.readiness().reason)


@pytest.mark.parametrize(
    ("host", "days", "signed_by_other", "words"),
    [
        ("localhost", 1.0, True, "has signed it, its issuer is CN=other"),
        ("localhost", -1.0, False, "cannot be verified: it has expired, at "),
        ("broker.example.org", 1.0, False, "for another host: not for localhost, but for broker.example.org"),
    ],
    ids=["another CA", "expired", "another host"],
)
@pytest_twisted.ensureDeferred
async def test_wrong_certificate_of_the_broker_is_told_once_and_a_right_one_connects(
    site: Site,
    bus: Any,
    lines: list[str],
    attempts: list[None],
    host: str,
    days: float,
    signed_by_other: bool,
    words: str,
) -> None:
    by = Authority(site.directory, "other") if signed_by_other else site.authority
    wrong = by.issue("wrong", host, days=days)
    site.broker.present(wrong.cert_file, wrong.key_file)
    refused = bus(site.url())
    await until(lambda: words in refused.readiness().reason)
    assert f"localhost:{site.broker.tls_port}" in refused.readiness().reason
    await until(lambda: len(attempts) >= 3)
    assert len(lines) == 1, lines

    right = site.authority.issue("broker", "localhost")
    site.broker.present(right.cert_file, right.key_file)
    await until(ready(refused))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("none", "requires a client certificate, and none is configured"),
        ("another CA", "does not trust the CA that signed the certificate presented to it"),
        ("expired", "the certificate presented to the peer has expired"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_wrong_client_certificate_is_told_and_a_right_one_connects_without_a_restart(
    site: Site, bus: Any, wrong: str, words: str
) -> None:
    if wrong == "another CA":
        site.use(Authority(site.directory, "other").issue("meter-agent"))
    elif wrong == "expired":
        site.use(site.authority.issue("meter-agent", days=-1))
    refused = bus(site.url(certificate=wrong != "none"))
    await until(lambda: words in refused.readiness().reason)
    if wrong != "none":
        site.use(site.authority.issue("meter-agent"))
        await until(ready(refused))


@pytest_twisted.ensureDeferred
async def test_changed_file_of_cas_is_read_for_the_next_connection(site: Site, bus: Any) -> None:
    site.trust(Authority(site.directory, "other"))
    refused = bus(site.url())
    await until(lambda: "no trusted CA" in refused.readiness().reason)
    site.trust(site.authority)
    await until(ready(refused))
