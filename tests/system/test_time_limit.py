"""Time limits, shown on tests that wait for ever."""

from __future__ import annotations

import pytest

TESTS = """
import time
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

@pytest_twisted.async_fixture
async def never():
    await Deferred()

@pytest_twisted.ensureDeferred
async def test_that_waits_for_ever():
    await Deferred()  # it waited here

def test_whose_fixture_waits_for_ever(never):
    pass

def test_that_blocks():
    time.sleep(1000)

@pytest_twisted.ensureDeferred
async def test_after_them():
    pass
"""


def test_a_test_that_waits_for_ever_fails_and_the_others_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-p", "tests.time_limit", "-p", "no:cacheprovider", "--timeout=6")
    result.assert_outcomes(passed=1, failed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*nothing came within the time limit of 6 s",
            "*await Deferred()  # it waited here",
            "*TimeoutError: the test waited here for longer than its time limit",
        ]
    )
