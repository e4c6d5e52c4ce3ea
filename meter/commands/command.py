"""What all commands share: the configuration, exit statuses, and escaping of terminal output."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from typing import NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python import usage

import meter
from meter.interfaces import Unavailable
from meter.message import BadMessage
from meter.message import parse_timestamp
from meter.printable import printable
from meter.settings import Config
from meter.settings.config_file import DEFAULT_FILE
from meter.settings.config_file import SINGLE
from meter.settings.config_file import load
from meter.settings.config_file import parse
from meter.settings.problems import ConfigError

EXIT_OK = 0
EXIT_FOUND_PROBLEMS = 1
"""The command succeeded, and found problems in what it checked."""
UNAVAILABLE = 2
"""A dependency is unavailable; the same command may succeed later."""
EXIT_USAGE = 3
"""The command line or the configuration is invalid."""
EXIT_INTERRUPTED = 130
"""The command was stopped by a signal, such as Ctrl-C, before it had ended."""

MAX_INTERRUPT_SECONDS = 5.0
"""How long work that is interrupted may take to end."""


class CommandError(Exception):
    """The command cannot do what the user requested; the text says what is wrong and what is allowed."""


def time_option(options: Mapping[str, Any], name: str) -> datetime | None:
    """Return the time that the option ``name`` states, ``None`` if it is not given; :class:`CommandError` if it is not a time."""
    try:
        return parse_timestamp(options[name], f"--{name}") if options[name] else None
    except BadMessage as error:
        raise CommandError(str(error)) from error


def parse_range(options: usage.Options) -> None:
    """Parse the times of the options ``from`` and ``to``; raises Twisted's ``UsageError`` if one is not a time."""
    for name in ("from", "to"):
        try:
            options[name] = None if options[name] is None else parse_timestamp(options[name], f"--{name}")
        except BadMessage as error:
            raise usage.UsageError(str(error)) from error


class _VersionOption(usage.Options):
    """The version is Meter's, not Twisted's."""

    def opt_version(self) -> None:
        """Display Meter's version and exit."""
        sys.stdout.write(f"Meter {meter.__version__}\n")
        sys.exit(EXIT_OK)


class CommandOptions(_VersionOption):
    """The options of every command."""

    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["config", "c", None, f"Configuration file, TOML. [default: {DEFAULT_FILE} if it exists]"]
    ]


class SubcommandOptions(_VersionOption):
    """The options of a subcommand. ``synopsis`` has its arguments and options."""

    def getSynopsis(self) -> str:
        """Return how the subcommand is used, without what other subcommands take."""
        command: Any = self.parent
        name = command.synopsis.removeprefix("Usage: ").partition(" [")[0]
        return f"Usage: {name} [--config FILE] {command.subCommand} {getattr(self, 'synopsis', '[options]')}"


def unreadable(error: OSError | ValueError) -> str:
    """Return why a file cannot be read as text, without words of Python."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "it is not in UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


_NOT_A_NUMBER = re.compile(
    r"Parameter type enforcement failed: (?:(?P<whole>invalid literal for int\(\) with base 10)|could not convert string to float): (?P<given>.*)",
    re.DOTALL,
)
"""What Twisted says about the value of an option whose type is ``int`` or ``float``."""


def _plain_usage(error: usage.UsageError) -> str:
    """Return what is wrong with a command line, without words of Python."""
    if found := _NOT_A_NUMBER.fullmatch(str(error)):
        return f"{found['given']} is not a {'whole ' if found['whole'] else ''}number"
    return str(error).removeprefix("Parameter type enforcement failed: ")


def options_first(words: Sequence[str], with_value: Sequence[str]) -> list[str]:
    """Return the words of a command line, options before arguments; those in ``with_value`` take the next word along."""
    options, arguments = [], []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            arguments += rest
            break
        if word.startswith("-") and len(word) > 1:
            options.append(word)
            options += [rest.pop(0)] if word in with_value and rest else []
        else:
            arguments.append(word)
    return [*options, "--", *arguments]


Work = Callable[[Any, Any], Awaitable[int]]
"""Implements a command, given the reactor and its options; returns the exit status."""


def run(options: usage.Options, arguments: Sequence[str], work: Work) -> NoReturn:
    """Run ``work`` and exit with its status, or with a status of this module and a line on standard error."""
    try:
        options.parseOptions(arguments)
    except usage.UsageError as error:
        subcommand: Any = getattr(options, "subOptions", None)  # a dictionary, empty if it has no options
        given: Any = options if subcommand is None else subcommand
        sys.stderr.write(f"{_plain_usage(error)}\n{given.getSynopsis()}\nTry --help.\n")
        sys.exit(EXIT_USAGE)
    except SystemExit:
        # The help was written.
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _reader_left()
        raise
    except BrokenPipeError:
        sys.exit(_reader_left())

    interrupted = False

    async def main(reactor: Any) -> None:
        ended: Deferred[None] = Deferred()

        def interrupt() -> Deferred[None] | None:
            """Let the work end, whose connections are closed (:func:`meter.commands.database.connected`)."""
            nonlocal interrupted
            if ended.called:
                return None
            interrupted = True
            ended.addTimeout(MAX_INTERRUPT_SECONDS, reactor)
            return ended.addErrback(lambda failure: None)

        reactor.addSystemEventTrigger("before", "shutdown", interrupt)
        status = EXIT_INTERRUPTED
        try:
            status = await status_of(work(reactor, options), lambda: interrupted)
        finally:
            if not ended.called:
                ended.callback(None)
        raise SystemExit(EXIT_INTERRUPTED if interrupted else status)

    try:
        react(main)
    finally:
        if interrupted:
            # Work that has not ended holds nothing that must be closed; its coroutine cannot be closed while the interpreter ends.
            sys.stdout.flush()
            sys.stderr.write("interrupted\n")
            sys.stderr.flush()
            os._exit(EXIT_INTERRUPTED)


async def status_of(work: Awaitable[int], interrupted: Callable[[], bool] = lambda: False) -> int:
    """Return the exit status of ``work``, and write why it failed; ``interrupted`` says whether somebody has ended it."""
    try:
        return await work
    except ConfigError as error:
        return _ended(EXIT_USAGE, *error.problems)
    except CommandError as error:
        return _ended(EXIT_USAGE, str(error))
    except Unavailable as error:
        # Whoever interrupts closes the connections.
        return EXIT_INTERRUPTED if interrupted() else _ended(UNAVAILABLE, str(error))
    except BrokenPipeError:
        return _reader_left()


def _reader_left() -> int:
    """Return the status after the reader has closed the pipe, as head does. Unwritten output must not raise again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_OK


def _ended(status: int, *lines: str) -> int:
    for line in lines:
        sys.stderr.write(f"{escape_terminal(line)}\n")
    return status


def configuration(path: str | None) -> Config:
    """Return the configuration of the daemons that use the file at ``path``, or the default file, or none.

    It is that of ``twistd meter``, whose bus and store are internal unless they are configured, if that daemon has run with
    it, or if no other daemon can use it; otherwise it is that of ``meter-collector``.
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
    """Return ``text`` with all unprintable characters escaped, except line breaks."""
    return printable(text)
