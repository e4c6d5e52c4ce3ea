"""What every command has: a configuration, ways to end, and words that are safe to show."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from typing import NoReturn

from twisted.internet.task import react
from twisted.python import usage

import meter
from meter.interfaces import Unavailable
from meter.settings import Config
from meter.settings.config_file import DEFAULT_FILE
from meter.settings.config_file import SINGLE
from meter.settings.config_file import ConfigError
from meter.settings.config_file import load
from meter.settings.config_file import parse

EXIT_OK = 0
EXIT_FOUND_PROBLEMS = 1
"""The command did its work, and what it looked at is not as it should be."""
UNAVAILABLE = 2
"""Something that it needs is away; the same command may work later."""
EXIT_USAGE = 3
"""The command line or the configuration cannot be used as it is."""


class CommandError(Exception):
    """What the user asked for cannot be done; the text says what would be right."""


class CommandOptions(usage.Options):
    """What every command takes."""

    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["config", "c", None, f"The configuration, a TOML file. [default: {DEFAULT_FILE}, where it exists]"]
    ]

    def opt_version(self) -> None:
        """Display Meter's version and exit."""
        sys.stdout.write(f"Meter {meter.__version__}\n")
        sys.exit(EXIT_OK)


Work = Callable[[Any, Any], Awaitable[int]]
"""Does what a command is for, given the reactor and its options; returns the exit status."""


def run(options: usage.Options, arguments: Sequence[str], work: Work) -> NoReturn:
    """Run ``work`` and leave with its status, or with one of this module's and a line on standard error."""
    try:
        options.parseOptions(arguments)
    except usage.UsageError as error:
        sys.stderr.write(f"{error}\nTry --help.\n")
        sys.exit(EXIT_USAGE)

    async def main(reactor: Any) -> None:
        raise SystemExit(await _status(work(reactor, options)))

    react(main)


async def _status(work: Awaitable[int]) -> int:
    try:
        return await work
    except ConfigError as error:
        return _ended(EXIT_USAGE, *error.problems)
    except CommandError as error:
        return _ended(EXIT_USAGE, str(error))
    except Unavailable as error:
        return _ended(UNAVAILABLE, str(error))
    except BrokenPipeError:
        # Whoever read has seen enough, as head does. What is left unwritten must not raise again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK


def _ended(status: int, *lines: str) -> int:
    for line in lines:
        sys.stderr.write(f"{escape_terminal(line)}\n")
    return status


def configuration(path: str | None) -> Config:
    """Return the configuration of the daemons that use the file at ``path``, or the default file, or none.

    A file may be silent about bus and store, which ``twistd meter`` then has within itself: it is read that daemon's
    way where it has run, or where no other could use the file.
    """
    if path is None:
        path = DEFAULT_FILE if os.path.exists(DEFAULT_FILE) else None

    def read(daemon: str) -> Config:
        return load(path, daemon) if path else parse("", daemon, "built-in defaults")

    single = read(SINGLE)
    if spool_of(single, SINGLE).exists():
        return single
    try:
        return read("meter-collector")
    except ConfigError:
        return single


def spool_of(config: Config, name: str) -> Path:
    """Return the spool ``name`` in the daemons' directory."""
    return Path(config.meter.state_dir) / f"{name}.spool"


def escape_terminal(text: str) -> str:
    """Return ``text`` with what would steer a terminal escaped; line ends stay."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode() for each in text
    )
