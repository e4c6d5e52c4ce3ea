"""From the command line of ``twistd`` to a service: options, configuration, composition, ``--check``."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NoReturn

from twisted.application.service import IService
from twisted.python import usage

import meter
from meter.daemon.logs import set_levels
from meter.daemon.process_lock import AlreadyLocked
from meter.plugins.registry import Kind
from meter.plugins.registry import decide_now
from meter.plugins.registry import report
from meter.settings import Config
from meter.settings.config_file import DEFAULT_FILE
from meter.settings.config_file import effective
from meter.settings.config_file import load
from meter.settings.config_file import parse
from meter.settings.masked import masked_urls
from meter.settings.problems import ConfigError
from meter.settings.problems import placed_in_file
from meter.taps.daemon import Daemon
from meter.taps.parts.diagnostics import add_diagnostics
from meter.taps.parts.reloads import add_reloads
from meter.taps.parts.service_manager import add_service_manager_notifier
from meter.taps.signals import exit_on_second_signal
from meter.taps.signals import reload_on_hangup


class Options(usage.Options):
    """Command line options of every daemon."""

    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["config", "c", None, f"Configuration file, TOML. [default: {DEFAULT_FILE} if it exists]"]
    ]
    optFlags = [  # noqa: N815, RUF012
        ["check", None, "Report every error in the configuration, print the effective configuration, and exit."]
    ]

    def opt_version(self) -> None:
        """Display Meter's version and exit."""
        sys.stdout.write(f"Meter {meter.__version__}\n")
        sys.exit(0)


Compose = Callable[[Daemon], None]
"""Adds the parts of one daemon."""


def make(name: str, kinds: Sequence[Kind], options: Mapping[str, Any], compose: Compose) -> IService:
    """Return the service of the daemon ``name``. Exits with all errors of its configuration, and after ``--check``."""
    checking = bool(options["check"])
    path = options["config"] or (DEFAULT_FILE if os.path.exists(DEFAULT_FILE) else None)

    def configuration() -> Config:
        return load(path, name) if path else parse("", name, "built-in defaults")

    try:
        config = configuration()
        if config.meter.log_levels:
            set_levels(config.meter.log_levels)
        daemon = Daemon(name, config, kinds, only_checking=checking, load=configuration)
        daemon.config_path = path
        add_service_manager_notifier(daemon)
        add_diagnostics(daemon)
        if checking or not daemon.problems:
            compose(daemon)
            add_reloads(daemon)
    except ConfigError as error:
        _leave(error.problems)
    except OSError as error:
        _leave([f"[meter] state_dir: {error}"])
    except AlreadyLocked as error:
        _leave([f"{path or 'built-in defaults'}: {error}"])
    except ValueError as error:
        _leave([str(error)])  # raised by the library that a setting is passed to
    daemon.health_metrics.watch(daemon.dependencies)
    if checking:
        _show(daemon)
    if daemon.problems:
        _leave(placed_in_file(daemon.problems, path))
    for warning in daemon.warnings:
        sys.stderr.write(f"{path or 'built-in defaults'}: {masked_urls(warning)}\n")
    exit_on_second_signal(daemon.reactor)
    reload_on_hangup(daemon.reactor, daemon.reload.request)
    # Everything loaded so far is permanent: without freezing it, each full garbage collection would take 40 ms longer.
    gc.collect()
    gc.freeze()
    return daemon.root


def _show(daemon: Daemon) -> NoReturn:
    """Print the effective configuration and the plugins, then exit: 0, or 1 with the errors on standard error."""
    decisions = [
        each for activation in daemon.activations for each in decide_now(activation.decisions, activation.context)
    ]
    try:
        sys.stdout.write(effective(daemon.config))
        sys.stdout.write(f"\n{report(decisions)}\n" if decisions else "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe, as head does. Unwritten output must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    for warning in daemon.warnings:
        sys.stderr.write(f"warning: {masked_urls(warning)}\n")
    _leave(placed_in_file(daemon.problems, daemon.config_path))


def _leave(problems: Sequence[str]) -> NoReturn:
    for problem in problems:
        sys.stderr.write(f"{masked_urls(problem)}\n")
    sys.exit(1 if problems else 0)
