"""The rules that every test is held to, shown on tests that break them."""

from __future__ import annotations

import pytest

BAD_TESTS = """
import pytest_twisted
import tests.hygiene
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import Factory
from twisted.logger import Logger

log = Logger()
tests.hygiene.GRACE_SECONDS = 0.5

def test_leaves_a_delayed_call():
    reactor.callLater(1000, print)

def test_leaves_a_port():
    reactor.listenTCP(0, Factory(), interface="127.0.0.1")

def test_leaves_an_unhandled_error():
    fail(ZeroDivisionError("unseen"))

def test_logs_a_failure():
    try:
        1 / 0
    except ZeroDivisionError:
        log.failure("unexpected")

def test_logs_an_error():
    log.error("unexpected too")

@pytest_twisted.ensureDeferred
async def test_loses_the_error_of_a_coroutine():
    async def work():
        raise ZeroDivisionError("lost")
    Deferred.fromCoroutine(work())
"""

GOOD_TESTS = """
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import fail
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import Logger

log = Logger()

@pytest_twisted.ensureDeferred
async def test_waits_for_its_delayed_call():
    await deferLater(reactor, 0)

@pytest_twisted.ensureDeferred
async def test_closes_what_it_opens():
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Protocol))
    client = await TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(Factory.forProtocol(Protocol))
    client.transport.loseConnection()
    await port.stopListening()

def test_takes_the_errors_it_expects(logged_errors):
    log.error("{what}", what="as expected")
    fail(ZeroDivisionError("as expected"))
    [event] = logged_errors.flush(ZeroDivisionError)
    assert event["log_failure"].getErrorMessage() == "as expected"
    [event] = logged_errors.flush()
    assert event["log_format"] == "{what}"

def test_may_warn():
    log.warn("nothing to see")
"""


def run(pytester: pytest.Pytester, tests: str) -> pytest.RunResult:
    pytester.makepyfile(tests)
    return pytester.runpytest_subprocess("-p", "tests.hygiene", "-p", "no:cacheprovider")


def test_a_test_that_leaves_something_behind_fails(pytester: pytest.Pytester) -> None:
    result = run(pytester, BAD_TESTS)
    result.assert_outcomes(passed=6, errors=6)
    result.stdout.fnmatch_lines(
        [
            "The test left a delayed call: *print*",
            "The test left open: *Factory*",
            "The test logged an error:*",
            "*ZeroDivisionError: unseen",
            "The test logged an error: unexpected",
            "The test logged an error: unexpected too",
            "The test logged an error:*",
            "*ZeroDivisionError: lost",
        ]
    )


def test_a_test_that_tidies_up_passes(pytester: pytest.Pytester) -> None:
    run(pytester, GOOD_TESTS).assert_outcomes(passed=4)
