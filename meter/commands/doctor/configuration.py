"""The checks *configuration* and *plugins*: what ``--check`` of each daemon would say of the configuration file."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence

from meter.commands.doctor.finding import Finding
from meter.counts import counted
from meter.declarative.notifications import load_user_definitions
from meter.declarative.pollster_files import load_user_pollsters
from meter.plugins.registry import Configured
from meter.plugins.registry import configure
from meter.plugins.registry import find
from meter.settings import Config
from meter.settings.config_file import SINGLE
from meter.settings.config_file import load
from meter.settings.problems import ConfigError
from meter.settings.problems import placed_in_file

DAEMONS = ("meter-compute", "meter-central", "meter-collector", "meter-api")


def configuration_findings(path: str | None, config: Config) -> Iterator[Finding]:
    """Yield the errors of the configuration of each daemon that may use the file at ``path``."""
    if path is None:
        yield Finding("configuration", "ok", "there is no configuration file: all settings have their defaults")
        return
    names = (SINGLE,) if config.bus.url.get_secret_value() == "local:" else DAEMONS
    problems: dict[str, list[str]] = {}
    for name in names:
        try:
            load(path, name)
        except ConfigError as error:
            for problem in error.problems:
                problems.setdefault(problem, []).append(name)
    for problem, daemons in problems.items():
        text = f"{problem} ({', '.join(daemons)} cannot start)"
        yield Finding("configuration", "fault", text, "correct the file; --check of the daemon shows the result")
    if not problems:
        yield Finding("configuration", "ok", f"{path} is valid for {', '.join(names)}")


def configured_plugins(config: Config) -> tuple[Configured, Sequence[str]]:
    """Return all plugins that are installed on this host, configured, and warnings about files of definitions."""
    own, wrong = load_user_definitions(config.notifications.definitions)
    rest, wrong_rest = load_user_pollsters(config.central.pollsters_dir)
    sections = {"pollsters": config.pollsters, "listeners": config.listeners}
    return configure([*find(), *own, *rest], sections, config.plugins.disable), [*wrong, *wrong_rest]


def plugin_findings(path: str | None, config: Config) -> Iterator[Finding]:
    """Yield plugins that cannot be loaded, settings of plugins that are wrong, and files of definitions that are ignored."""
    configured, wrong = configured_plugins(config)
    quiet = True
    for problem in placed_in_file(configured.problems, path):
        quiet = False
        yield Finding("plugins", "fault", problem, "correct the setting: no daemon starts with it")
    for warning in (*configured.warnings, *wrong):
        quiet = False
        yield Finding("plugins", "warning", warning, "correct the setting or the file, and restart the daemon")
    for decision in configured.decisions:
        if decision.state == "broken":
            quiet = False
            text = (
                f"the {decision.kind.name} plugin {decision.name} ({decision.origin}) cannot be used: {decision.reason}"
            )
            yield Finding("plugins", "warning", text, "update or remove the package that the plugin comes from")
    if quiet:
        yield Finding("plugins", "ok", f"{counted(len(configured.decisions), 'installed plugin')}")
