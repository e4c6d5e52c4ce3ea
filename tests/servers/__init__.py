"""Private servers for tests, each a plugin of pytest with one fixture; and what a test does where it cannot have one.

Under tox whatever can be installed has been installed: that something is missing fails the test. Called by hand, pytest
skips the test and says what to install.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def not_installed(how: str) -> NoReturn:
    """Skip, or with ``METER_REQUIRE_SERVERS=1`` fail, the running test; ``how`` names what is missing and installs it."""
    if os.environ.get("METER_REQUIRE_SERVERS") == "1":
        pytest.fail(how, pytrace=False)
    pytest.skip(how)


def not_allowed(why: str) -> NoReturn:
    """Skip the running test: ``why`` names what this user, container or kernel does not permit, and nothing installs."""
    pytest.skip(why)
