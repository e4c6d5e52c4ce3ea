"""Directories of private servers: open to the user that a server runs as, and removed when the whole run is over.

A busy disk may take longer to remove a database than a test may take, so no test's time limit runs meanwhile.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

_made = pytest.StashKey[list[Path]]()


@pytest.fixture(scope="session")
def server_directory(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """Make a directory whose name begins with the argument.

    It is none of pytest's own: those are closed to other users, and their paths are too long for a Unix socket, which
    has 107 bytes at most.
    """

    def make(prefix: str) -> Path:
        path = Path(tempfile.mkdtemp(prefix=prefix))
        pytestconfig.stash.setdefault(_made, []).append(path)
        return path

    return make


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove them all; every fixture has ended its server by now."""
    for path in session.config.stash.get(_made, []):
        shutil.rmtree(path, ignore_errors=True)
