"""Webhooks from PostgreSQL to real HTTP servers: that fail, hang, redirect, close in the middle, and a sender that is killed."""

from __future__ import annotations

import json
import signal
import sys
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from subprocess import Popen

import pytest
import pytest_twisted
import standardwebhooks
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.ssl import PrivateCertificate
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.server import Site

from meter.rating.budgets.budget_store import ReachedThreshold
from meter.rating.budgets.budget_store import WaitingWebhook
from meter.rating.budgets.webhook_delivery import RETRY_FOR
from meter.rating.budgets.webhook_delivery import WebhookDelivery
from meter.rating.budgets.webhook_service import WebhookService
from meter.settings.config_file import parse
from meter.store import PostgresStore
from meter.taps.parts.budgets import webhook_targets
from tests.servers.certificates import Authority
from tests.waiting import until

OLD = "whsec_" + 8 * "b2xk"
NEW = "whsec_" + 8 * "bmV3"
BODY = json.dumps({"type": "budget.threshold_reached", "data": {"budget_name": "Größe 予算"}}).encode()


class Receiver(Resource):
    """A receiver of webhooks; ``answer`` is what it does with each: a status, or a function of the request."""

    isLeaf = True  # noqa: N815

    def __init__(self, answer=200):
        super().__init__()
        self.answer = answer
        self.received = []

    def render_POST(self, request):
        headers = {
            name.decode().lower(): values[0].decode() for name, values in request.requestHeaders.getAllRawHeaders()
        }
        self.received.append((headers, request.content.read()))
        if callable(self.answer):
            return self.answer(request)
        request.setResponseCode(self.answer)
        return b"answered"

    @property
    def ids(self):
        return [headers["webhook-id"] for headers, _ in self.received]


@pytest.fixture
def serve():
    ports = []

    def listen(what, tls=None):
        factory = what if isinstance(what, Factory) else Site(what)
        port = (
            reactor.listenTCP(0, factory, interface="127.0.0.1")
            if tls is None
            else reactor.listenSSL(0, factory, tls, interface="127.0.0.1")
        )
        ports.append(port)
        return f"{'http' if tls is None else 'https'}://127.0.0.1:{port.getHost().port}/hooks"

    yield listen
    pytest_twisted.blockon(gatherResults([port.stopListening() for port in ports]))


@pytest.fixture(scope="module")
def database(request):
    return request.getfixturevalue("postgresql").dsn_with_schema()


@pytest.fixture
def store(database, postgresql):
    store = PostgresStore(reactor, database, clock=reactor, migrate=True, readers=0, writers=1, rating_connections=2)
    store.startService()
    budgets = store.rating.budgets
    pytest_twisted.blockon(Deferred.fromCoroutine(until(lambda: store.readiness().ready)))
    yield budgets
    pytest_twisted.blockon(store.stopService())
    postgresql.execute("TRUNCATE webhook, reached_threshold", database)


def targets_of(urls, *, secret=OLD, ca_file=""):
    text = "".join(
        f"[[rating.webhooks]]\nname = '{name}'\nurl = '{url}'\nsecret = '{secret}'\nca_file = '{ca_file}'\n"
        for name, url in urls.items()
    )
    targets, problems = webhook_targets(reactor, parse(text, "meter").rating)
    assert problems == []
    return targets


async def queue(store, *ids, target="billing"):
    now = datetime.now(UTC)
    for id in ids:
        webhook = WaitingWebhook(
            id=id,
            target=target,
            body=BODY,
            created_at=now,
            retry_until=now + RETRY_FOR,
            attempts=0,
            next_attempt_at=now,
        )
        threshold = ReachedThreshold(budget_id=id, period="2026-11", basis="used", percent=Decimal(80), at=now)
        assert await store.reach(threshold, [webhook])


async def deliver(store, urls, **options):
    await WebhookDelivery(store, targets_of(urls, **options), reactor).run(datetime.now(UTC))


@pytest_twisted.ensureDeferred
async def test_receiver_verifies_a_webhook_with_the_library_of_the_convention(store, serve):
    receiver = Receiver()
    await queue(store, "msg_1")
    await deliver(store, {"billing": serve(receiver)}, secret=f"{OLD} {NEW}")
    [(headers, body)] = receiver.received
    for secret in (OLD, NEW):
        assert standardwebhooks.Webhook(secret).verify(body, headers) == json.loads(BODY)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook("whsec_" + 8 * "eHh4").verify(body, headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(OLD).verify(body + b" ", headers)
    assert headers["content-type"] == "application/json"
    assert await store.webhooks(10) == []


@pytest_twisted.ensureDeferred
async def test_webhook_is_repeated_until_it_is_accepted(store, serve, postgresql, database):
    receiver = Receiver(503)
    urls = {"billing": serve(receiver)}
    await queue(store, "msg_1")
    await deliver(store, urls)
    [waiting] = await store.webhooks(10)
    assert (waiting.attempts, waiting.last_error) == (1, "POST: 503 answered")
    assert waiting.next_attempt_at - datetime.now(UTC) < timedelta(seconds=31)
    postgresql.execute("UPDATE webhook SET next_attempt_at = now()", database)
    receiver.answer = 202
    await deliver(store, urls)
    assert receiver.ids == ["msg_1", "msg_1"]
    assert await store.webhooks(10) == []


@pytest_twisted.ensureDeferred
async def test_redirect_is_not_followed(store, serve):
    private = Receiver()
    location = serve(private)

    def redirect(request):
        request.redirect(location.encode())
        request.setResponseCode(307)
        return b""

    await queue(store, "msg_1")
    await deliver(store, {"billing": serve(Receiver(redirect))})
    assert private.received == []
    [waiting] = await store.webhooks(10)
    assert waiting.last_error == "redirected (307): redirects are not followed, configure the final URL"


@pytest_twisted.ensureDeferred
async def test_410_ends_the_attempts(store, serve):
    await queue(store, "msg_1")
    await deliver(store, {"billing": serve(Receiver(410))})
    [failed] = await store.webhooks(10)
    assert failed.next_attempt_at is None


@pytest_twisted.ensureDeferred
async def test_hung_receiver_does_not_delay_another(store, serve):
    hung, other = Receiver(), Receiver()
    requests = []
    hung.answer = lambda request: requests.append(request) or NOT_DONE_YET
    await queue(store, "msg_1", "msg_2")
    await queue(store, "msg_3", "msg_4", target="chat")
    running = Deferred.fromCoroutine(deliver(store, {"billing": serve(hung), "chat": serve(other)}))
    await until(lambda: len(other.received) == 2 and requests)
    assert not running.called
    requests[0].transport.abortConnection()
    await running
    assert other.ids == ["msg_3", "msg_4"]
    assert hung.ids == ["msg_1"]
    assert [each.attempts for each in await store.webhooks(10)] == [1, 0]


@pytest_twisted.ensureDeferred
async def test_daemon_that_stops_abandons_its_requests(store, serve):
    hung = Receiver(lambda request: NOT_DONE_YET)
    await queue(store, "msg_1")
    delivery = WebhookDelivery(store, targets_of({"billing": serve(hung)}), reactor)
    service = WebhookService(store, delivery, reactor)
    service.startService()
    service.wake()
    await until(lambda: hung.received)
    await service.stopService()
    [waiting] = await store.webhooks(10)
    assert (waiting.attempts, waiting.last_error) == (1, "")
    assert waiting.next_attempt_at is not None


class ClosesInTheMiddle(Protocol):
    def dataReceived(self, data):
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        self.transport.loseConnection()


class SendsForEver(Protocol):
    def connectionMade(self):
        self.sent = 0

    def dataReceived(self, data):
        self.transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
        self.transport.registerProducer(self, False)

    def resumeProducing(self):
        self.sent += 1
        self.factory.sent = self.sent
        self.transport.write(b"x" * 65536)

    def stopProducing(self):
        pass


class NotHttp(Protocol):
    def connectionMade(self):
        self.transport.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        self.transport.loseConnection()


@pytest.mark.parametrize("protocol", [ClosesInTheMiddle, SendsForEver, NotHttp])
@pytest_twisted.ensureDeferred
async def test_odd_response_is_a_failed_attempt(store, serve, protocol):
    factory = Factory.forProtocol(protocol)
    await queue(store, "msg_1")
    await deliver(store, {"billing": serve(factory)})
    [waiting] = await store.webhooks(10)
    assert waiting.attempts == 1
    assert waiting.next_attempt_at is not None
    assert waiting.last_error.startswith("POST: ")
    assert getattr(factory, "sent", 0) < 100


# Twisted 26.10 hands certificates to pyOpenSSL 26 in a form that this will not take for ever.
@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
@pytest_twisted.ensureDeferred
async def test_certificate_of_the_receiver_is_verified(store, serve, tmp_path):
    authority = Authority(tmp_path)
    issued = authority.issue("receiver", "127.0.0.1")
    ours = PrivateCertificate.loadPEM(issued.cert_file.read_bytes() + issued.key_file.read_bytes())
    receiver = Receiver()
    url = serve(receiver, CertificateOptions(privateKey=ours.privateKey.original, certificate=ours.original))
    await queue(store, "msg_1")
    await deliver(store, {"billing": url})
    assert receiver.received == []
    await store.retry_webhooks(["msg_1"], datetime.now(UTC), datetime.now(UTC) + RETRY_FOR)
    await deliver(store, {"billing": url}, ca_file=authority.file)
    assert receiver.ids == ["msg_1"]


@pytest_twisted.ensureDeferred
async def test_two_collectors_send_each_webhook_once(store, serve):
    receiver = Receiver()
    url = serve(receiver)
    ids = [f"msg_{n}" for n in range(20)]
    await queue(store, *ids)
    await gatherResults([Deferred.fromCoroutine(deliver(store, {"billing": url})) for _ in range(2)])
    assert sorted(receiver.ids) == sorted(ids)


SENDER = """
import sys
from datetime import UTC, datetime
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from meter.daemon.services import sleep
from meter.settings.config_file import parse
from meter.rating.budgets.webhook_delivery import WebhookDelivery
from meter.store import PostgresStore
from meter.taps.parts.budgets import webhook_targets

dsn, settings = sys.argv[1:]

async def main():
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=False, readers=0, writers=1, rating_connections=1)
    store.startService()
    while not store.readiness().ready:
        await sleep(reactor, 0.05)
    targets, _ = webhook_targets(reactor, parse(settings, "meter").rating)
    await WebhookDelivery(store.rating.budgets, targets, reactor).run(datetime.now(UTC))

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()))
reactor.run()
"""


@pytest_twisted.ensureDeferred
async def test_sender_that_is_killed_after_the_request_sends_it_again_with_the_same_id(
    store, serve, database, postgresql
):
    receiver = Receiver(lambda request: NOT_DONE_YET)
    url = serve(receiver)
    await queue(store, "msg_1")
    settings = f"[[rating.webhooks]]\nname = 'billing'\nurl = '{url}'\nsecret = '{OLD}'\n"
    sender = Popen([sys.executable, "-c", SENDER, database, settings])  # noqa: ASYNC220 (it returns at once)
    try:
        await until(lambda: receiver.received)
    finally:
        sender.send_signal(signal.SIGKILL)
        sender.wait()
    receiver.answer = 200
    await deliver(store, {"billing": url})
    assert receiver.ids == ["msg_1"]  # another sender may still wait for the outcome
    postgresql.execute(
        "UPDATE webhook SET next_attempt_at = now() WHERE next_attempt_at <= now() + interval '2 minutes'", database
    )
    await deliver(store, {"billing": url})
    assert receiver.ids == ["msg_1", "msg_1"]
    assert await store.webhooks(10) == []
