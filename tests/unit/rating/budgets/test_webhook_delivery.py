"""Delivery of webhooks: what is sent, when it is repeated, and when it has failed."""

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.logger import formatEvent
from twisted.web.http_headers import Headers

from meter.http import BadResponse
from meter.http import HttpResponse
from meter.interfaces import Unavailable
from meter.rating.budgets.budget_store import ReachedThreshold
from meter.rating.budgets.budget_store import WaitingWebhook
from meter.rating.budgets.webhook_delivery import CLAIM
from meter.rating.budgets.webhook_delivery import MAX_PAUSE
from meter.rating.budgets.webhook_delivery import RETRY_FOR
from meter.rating.budgets.webhook_delivery import RUN_SECONDS
from meter.rating.budgets.webhook_delivery import WebhookDelivery
from meter.rating.budgets.webhook_delivery import WebhookTarget
from meter.rating.budgets.webhook_signature import signature_headers
from meter.testing.memory_rating_budgets import MemoryBudgets

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
KEY = b"k" * 24
PATHS = {name: f"https://{name}.example.org/hooks/s3cret-path" for name in ("billing", "chat")}


class Receivers:
    """Answers requests with ``answers``, the last of which repeats: a status, an exception, or a Deferred; by host name."""

    def __init__(self, clock):
        self.clock = clock
        self.answers = {"billing": [200], "chat": [200]}
        self.requests = []

    async def send(self, request, timeout_seconds=None):
        self.requests.append(request)
        answers = self.answers[next(name for name, url in PATHS.items() if url == request.url)]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Deferred):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        status, headers = answer if isinstance(answer, tuple) else (answer, {})
        return HttpResponse(
            request=request,
            status=status,
            headers=Headers({name: [value] for name, value in headers.items()}),
            body=f"no, {request.url} is not for you".encode(),
            received_at=datetime.fromtimestamp(self.clock.seconds(), UTC),
        )

    @property
    def ids(self):
        return [each.headers["webhook-id"] for each in self.requests]


class Counted:
    def __init__(self):
        self.outcomes = []

    def attempted(self, target, outcome):
        self.outcomes.append((target, outcome))


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(START.timestamp())
    return clock


@pytest.fixture
def receivers(clock):
    return Receivers(clock)


@pytest.fixture
def targets(receivers):
    return {name: WebhookTarget(name=name, url=url, keys=[KEY], client=receivers) for name, url in PATHS.items()}


@pytest.fixture
def counted():
    return Counted()


@pytest.fixture
def store():
    return MemoryBudgets()


@pytest.fixture
def delivery(store, targets, clock, counted):
    return WebhookDelivery(store, targets, clock, metrics=counted, rng=lambda: 1.0)


def result_of(work):
    results = []
    Deferred.fromCoroutine(work).addBoth(results.append)
    [outcome] = results
    if hasattr(outcome, "raiseException"):
        outcome.raiseException()
    return outcome


def queue(store, *ids, target="billing", hours=0.0):
    for id in ids:
        at = START + timedelta(hours=hours)
        webhook = WaitingWebhook(
            id=id,
            target=target,
            body=b'{"type":"x"}',
            created_at=at,
            retry_until=at + RETRY_FOR,
            attempts=0,
            next_attempt_at=at,
        )
        threshold = ReachedThreshold(budget_id=id, period="2026-11", basis="used", percent=80, at=at)
        assert result_of(store.reach(threshold, [webhook]))


def run(delivery, clock):
    result_of(delivery.run(datetime.fromtimestamp(clock.seconds(), UTC)))


def waiting(store):
    return {each.id: each for each in result_of(store.webhooks(100))}


def seconds_until(moment, clock):
    return moment.timestamp() - clock.seconds()


def test_accepted_webhook_is_sent_once_and_signed(delivery, store, receivers, clock, counted):
    queue(store, "msg_1")
    run(delivery, clock)
    run(delivery, clock)
    [request] = receivers.requests
    assert (request.method, request.url, request.body) == ("POST", PATHS["billing"], b'{"type":"x"}')
    assert request.headers["content-type"] == "application/json"
    signed = signature_headers([KEY], "msg_1", int(START.timestamp()), request.body)
    assert request.headers.items() >= signed.items()
    assert waiting(store) == {}
    assert counted.outcomes == [("billing", "delivered")]


def test_all_that_wait_are_sent_in_order(delivery, store, receivers, clock):
    queue(store, "msg_2", hours=-1)
    queue(store, "msg_1", "msg_3")
    run(delivery, clock)
    assert receivers.ids == ["msg_2", "msg_1", "msg_3"]


@pytest.mark.parametrize("answer", [500, 503, 429, 400, 401, 404, 302, 307, Unavailable("refused"), BadResponse("odd")])
def test_anything_but_2xx_is_repeated_with_the_same_id_and_a_new_time(answer, delivery, store, receivers, clock):
    receivers.answers["billing"] = [answer, 204]
    queue(store, "msg_1")
    run(delivery, clock)
    [failed] = waiting(store).values()
    assert failed.attempts == 1
    assert failed.last_error
    clock.advance(seconds_until(failed.next_attempt_at, clock))
    run(delivery, clock)
    first, second = receivers.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == "msg_1"
    assert int(second.headers["webhook-timestamp"]) == int(first.headers["webhook-timestamp"]) + 30
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    assert waiting(store) == {}


def test_redirect_is_not_followed_and_its_address_is_not_kept(delivery, store, receivers, clock):
    receivers.answers["billing"] = [(302, {"location": "http://169.254.169.254/latest"})]
    queue(store, "msg_1")
    run(delivery, clock)
    assert [each.url for each in receivers.requests] == [PATHS["billing"]]
    assert waiting(store)["msg_1"].last_error.startswith("redirected (302)")
    assert "169" not in waiting(store)["msg_1"].last_error


def test_pauses_double_up_to_a_limit(delivery):
    error = Unavailable("x")
    pauses = [delivery.pause_after(attempts, error).total_seconds() for attempts in range(1, 30)]
    assert pauses[:5] == [30, 60, 120, 240, 480]
    assert pauses[-1] == MAX_PAUSE.total_seconds()
    assert sorted(pauses) == pauses


def test_pauses_are_cut_by_up_to_half(store, clock):
    delivery = WebhookDelivery(store, {}, clock, rng=lambda: 0.0)
    assert delivery.pause_after(3, Unavailable("x")) == timedelta(seconds=60)


@pytest.mark.parametrize(
    ("asked", "seconds"), [("600", 600), ("5", 30), ("99999999999999999999", MAX_PAUSE.total_seconds()), ("soon", 30)]
)
def test_retry_after_lengthens_the_pause_up_to_a_limit(asked, seconds, delivery, store, receivers, clock):
    receivers.answers["billing"] = [(503, {"retry-after": asked})]
    queue(store, "msg_1")
    run(delivery, clock)
    assert seconds_until(waiting(store)["msg_1"].next_attempt_at, clock) == seconds


def test_webhook_fails_after_three_days_and_is_kept(delivery, store, receivers, clock, counted):
    receivers.answers["billing"] = [503]
    queue(store, "msg_1")
    while (due := waiting(store)["msg_1"].next_attempt_at) is not None:
        clock.advance(max(0, seconds_until(due, clock)))
        run(delivery, clock)
    assert RETRY_FOR <= datetime.fromtimestamp(clock.seconds(), UTC) - START < RETRY_FOR + MAX_PAUSE
    assert 15 <= waiting(store)["msg_1"].attempts <= 30
    assert counted.outcomes[-1] == ("billing", "failed")
    sent = len(receivers.requests)
    clock.advance(10 * 86400)
    run(delivery, clock)
    assert len(receivers.requests) == sent


def test_410_ends_the_attempts_of_a_webhook_at_once(delivery, store, receivers, clock, counted):
    receivers.answers["billing"] = [410]
    queue(store, "msg_1")
    run(delivery, clock)
    assert waiting(store)["msg_1"].next_attempt_at is None
    assert counted.outcomes == [("billing", "failed")]


def test_failure_postpones_the_others_of_the_target_and_no_other_target(delivery, store, receivers, clock):
    receivers.answers["billing"] = [503]
    queue(store, "msg_1", "msg_2")
    queue(store, "msg_3", "msg_4", target="chat")
    run(delivery, clock)
    assert receivers.ids == ["msg_1", "msg_3", "msg_4"]


def test_hung_target_does_not_delay_the_others(delivery, store, receivers, clock):
    hung = Deferred()
    receivers.answers["billing"] = [hung]
    queue(store, "msg_1")
    queue(store, "msg_2", target="chat")
    running = Deferred.fromCoroutine(delivery.run(START))
    assert waiting(store).keys() == {"msg_1"}
    hung.callback(200)
    assert waiting(store) == {}
    assert running.called


def test_slow_target_does_not_lengthen_a_run_without_bound(delivery, store, receivers, clock):
    queue(store, *(f"msg_{n}" for n in range(9)))
    answers = [Deferred() for _ in range(9)]
    receivers.answers["billing"] = list(answers)
    running = Deferred.fromCoroutine(delivery.run(START))
    for answer in answers:
        if running.called:
            break
        clock.advance(RUN_SECONDS / 3)
        answer.callback(200)
    assert running.called
    assert len(receivers.requests) == 3


def test_attempt_without_an_outcome_is_begun_again_with_the_same_id(delivery, store, receivers, clock):
    """Its process was killed after the request and before it stored the outcome."""
    killed = Deferred()
    receivers.answers["billing"] = [killed, 200]
    queue(store, "msg_1")
    Deferred.fromCoroutine(delivery.run(START)).addErrback(lambda failure: failure.trap(CancelledError))
    killed.cancel()
    run(delivery, clock)
    assert receivers.ids == ["msg_1"]
    clock.advance(CLAIM.total_seconds())
    run(delivery, clock)
    assert receivers.ids == ["msg_1", "msg_1"]
    assert waiting(store) == {}


def test_webhook_of_a_target_that_is_not_configured_waits_for_it(store, receivers, targets, clock):
    queue(store, "msg_1")
    run(WebhookDelivery(store, {}, clock), clock)
    assert "no target with the name 'billing'" in waiting(store)["msg_1"].last_error
    clock.advance(60)
    run(WebhookDelivery(store, targets, clock), clock)
    assert receivers.ids == ["msg_1"]


def test_failure_is_logged_once_and_the_recovery_too(delivery, store, receivers, clock):
    receivers.answers["billing"] = [500, 500, 200]
    queue(store, "msg_1")
    with capturedLogs() as logged:
        for _ in range(3):
            run(delivery, clock)
            clock.advance(3600)
    assert [each["log_level"].name for each in logged] == ["warn", "info"]


def test_no_secret_is_logged_or_kept(delivery, store, receivers, targets, clock):
    receivers.answers = {"billing": [500], "chat": [410]}
    queue(store, "msg_1")
    queue(store, "msg_2", target="chat")
    with capturedLogs() as logged:
        run(delivery, clock)
    texts = [*map(formatEvent, logged), *(each.last_error for each in waiting(store).values()), repr(targets)]
    assert len(texts) == 5
    for text in texts:
        assert "s3cret-path" not in text
    assert repr(KEY) not in texts[-1]


def test_unavailable_store_is_told(clock, targets):
    def check():
        raise Unavailable("no database")

    with pytest.raises(Unavailable, match="no database"):
        run(WebhookDelivery(MemoryBudgets(check), targets, clock), clock)
