"""What the subcommands of ``meter-rate`` share: their options, and the configuration, prices and store that they use."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any
from typing import NamedTuple

from meter.audit_record import Record
from meter.commands.command import CommandError
from meter.commands.command import CommandOptions
from meter.commands.command import SubcommandOptions
from meter.commands.command import configuration
from meter.commands.command import escape_terminal
from meter.commands.command import options_first
from meter.commands.database import ready_store
from meter.commands.operator import audit_recorder
from meter.rating.book.book_problem import PriceBookError
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_directory import read_directory
from meter.settings import Config
from meter.store import PostgresStore


class RateOptions(SubcommandOptions):
    """The options of every subcommand; those of :class:`~meter.commands.rate.command.Options` may stand after it, too."""

    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        *CommandOptions.optParameters,
        ["prices", None, None, "Price directory. [default: [rating] price_directory of the configuration]"],
    ]
    optFlags = [["json", None, "Write one JSON object per line."]]  # noqa: N815, RUF012

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Accept options after the arguments too, as in ``close 2026-11 --json``; what follows ``--`` are arguments."""
        with_value = [f"--{name[:-1]}" for name in self.longOpt if name.endswith("=")]
        with_value += [f"-{letter}" for letter in re.findall(r"(.):", self.shortOpt)]
        super().parseOptions(options_first(options or (), with_value))

    synopsis: str

    def given(self, name: str) -> str | None:
        """Return the value of an option of every subcommand, given after the subcommand or before it."""
        own: str | None = self[name]
        before: str | None = self.parent[name] if self.parent is not None else None
        return own if own is not None else before


class RateContext:
    """What a subcommand works with. What it does not use is not read, so that ``verify`` works without any configuration."""

    def __init__(self, reactor: Any, config_file: str | None = None, prices: str | None = None) -> None:
        self.reactor = reactor
        self._config_file = config_file
        self._prices = prices
        self._config: Config | None = None

    @property
    def config(self) -> Config:
        """The configuration; ``ConfigError`` if it is wrong."""
        if self._config is None:
            self._config = configuration(self._config_file)
        return self._config

    def now(self) -> datetime:
        """Return the present time."""
        return datetime.fromtimestamp(self.reactor.seconds(), UTC)

    def price_directory(self) -> Path:
        """Return the price directory that the command line or the configuration states; :class:`CommandError` if neither does."""
        path = self._prices or self.config.rating.price_directory
        if not path:
            raise CommandError("there is no price directory: set [rating] price_directory, or give --prices DIRECTORY")
        return Path(path)

    @property
    def has_only_prices(self) -> bool:
        """Whether the command line states a price directory and no configuration: that of the host is not read for it."""
        return bool(self._prices) and self._config_file is None

    def webhooks(self) -> list[str] | None:
        """Return the names of the configured webhook targets; ``None`` if there is only a price directory."""
        if self.has_only_prices:
            return None
        return [each.name for each in self.config.rating.webhooks]

    def prices(self) -> PriceDirectory:
        """Return what the price directory says; :class:`CommandError`, with everything that is wrong, if it cannot be used."""
        path = self.price_directory()
        try:
            return read_directory(path, self.webhooks())
        except PriceBookError as error:
            raise CommandError(f"the price directory {path} cannot be used:\n{error}") from error

    def recorder(self, options: Any) -> AbstractAsyncContextManager[Record]:
        """Provide the function that records acts in the audit log, see :func:`meter.commands.operator.audit_recorder`."""
        return audit_recorder(self.reactor, self.config, options)

    def store(self) -> AbstractAsyncContextManager[PostgresStore]:
        """Provide the configured store, ready for use; an embedded server is started unless a daemon runs it."""
        return ready_store(
            self.reactor,
            self.config,
            lambda dsn: PostgresStore(
                self.reactor,
                dsn,
                clock=self.reactor,
                migrate=False,
                readers=1,
                writers=1,
                rating_connections=3,
                statement_timeout_seconds=self.config.store.statement_timeout_seconds,
                finalize_after_seconds=self.config.store.finalize_after_seconds,
                application_name="meter-rate",
            ),
        )


class Subcommand(NamedTuple):
    """A subcommand of ``meter-rate``. ``work`` returns the exit status, one of :mod:`meter.commands.command`."""

    name: str
    options: type[RateOptions]
    description: str
    work: Callable[[RateContext, Any], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Output:
    """Writes the answer of a subcommand to standard output: JSON objects, or lines of text for a terminal."""

    as_json: bool

    def write(self, objects: Iterable[Any], lines: Iterable[str]) -> None:
        """Write ``objects`` as JSON, one a line, or else ``lines``."""
        for each in objects if self.as_json else lines:
            text = json.dumps(each, ensure_ascii=False) if self.as_json else escape_terminal(each).replace("\n", " ")
            sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
