"""Reloading the configuration, with parts that are functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.logger import formatEvent

from meter.daemon.reload import Reload
from meter.settings import Config
from meter.settings.config_file import parse
from meter.settings.problems import ConfigError

BASE = '[bus]\nurl = "amqp://meter:hunter2@rabbit/"\n'


class Counts:
    """What a reload counts."""

    def __init__(self) -> None:
        self.results: list[str] = []
        self.settings = 0

    def reloaded(self, result: str) -> None:
        self.results.append(result)

    def waiting(self, settings: int) -> None:
        self.settings = settings


class Site:
    """A configuration, and what reloads it."""

    def __init__(self, **more: Any) -> None:
        self.text = BASE
        self.counts = Counts()
        self.in_force: list[Config] = []
        self.reload = Reload(self._load(), self._load, metrics=self.counts, in_force=self.in_force.append, **more)

    def _load(self) -> Config:
        return parse(self.text, "meter-collector", "meter.toml")

    def now(self, text: str) -> list[str]:
        """Request a reload with another configuration; return what is logged."""
        self.text = text
        with capturedLogs() as events:
            self.reload.request()
        return [formatEvent(event) for event in events if event["log_namespace"].startswith("meter.daemon.reload")]


@pytest.fixture
def site() -> Site:
    return Site()


def test_settings_of_a_part_are_given_to_it_together_and_told_one_by_one(site: Site) -> None:
    given: list[Config] = []
    site.reload.add(["polling.interval_seconds", "polling.intervals"], given.append)
    lines = site.now(BASE + "[polling]\ninterval_seconds = 60.0\nintervals = { cpu = 10.0 }\n")
    assert lines[1:] == [
        "reloaded [polling] interval_seconds: 300.0 -> 60.0",
        "reloaded [polling] intervals: {} -> {'cpu': 10.0}",
    ]
    assert [each.polling.interval_of("cpu") for each in given] == [10.0]
    assert site.in_force == given == [site.reload.config]
    assert site.counts.results == ["ok"]
    assert site.now(site.text)[1:] == []  # nothing has changed since


def test_setting_of_no_part_waits_and_is_told_once_until_it_is_as_before(site: Site) -> None:
    changed = BASE + "[store]\nreaders = 9\n"
    assert site.now(changed)[1:] == ["[store] readers has changed and takes effect after a restart: 4 -> 9"]
    assert site.counts.settings == 1
    assert site.now(changed)[1:] == []
    assert site.now(BASE + "[store]\nreaders = 8\n")[1:] == [
        "[store] readers has changed and takes effect after a restart: 4 -> 8"
    ]
    assert site.now(BASE)[1:] == ["[store] readers has the value again that is in force"]
    assert site.counts.settings == 0
    assert site.reload.config.store.readers == 4


def test_part_is_given_nothing_that_waits_for_a_restart(site: Site) -> None:
    given: list[Config] = []
    site.reload.add(["polling.*"], given.append)
    site.now(BASE + "[store]\nreaders = 9\n[polling]\ninterval_seconds = 60.0\n")
    assert [(each.polling.interval_seconds, each.store.readers) for each in given] == [(60.0, 4)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('[bus]\nurl = "amqp://meter:s3cret@rabbit/"\n', ["[bus] url"]),
        (BASE + '[signing]\nkey = "s3cret"\n', ["[signing] key"]),
        (BASE + '[[signing.keys]]\nid = "a"\nkey = "s3cret"\n', ["[signing] keys"]),
        (BASE + '[pollsters.lamp]\npassword = "s3cret"\n', ["[pollsters.lamp]"]),
        (BASE + '[compute]\nlibvirt_uri = "qemu+ssh://me:s3cret@h/"\n', ["[compute] libvirt_uri"]),
        (BASE + f'[[api.auth.tokens]]\nsha256 = "{"5" * 64}"\nadmin = true\n', ["[api.auth] tokens"]),
    ],
)
def test_no_secret_is_logged(text: str, names: list[str]) -> None:
    for part in (True, False):
        site = Site()
        if part:
            site.reload.add(["*"], lambda _: None)
        lines = site.now(text)
        assert len(lines) == 1 + len(names)
        assert all(name in line for name, line in zip(names, lines[1:], strict=True))
        assert not any(secret in "".join(lines) for secret in ("s3cret", "hunter2", "5" * 64))


def test_invalid_configuration_changes_nothing_and_is_one_line(site: Site, logged_errors: Any) -> None:
    site.reload.add(["*"], lambda _: pytest.fail("given"))
    [line] = site.now(BASE + "[polling]\ninterval_seconds = -1.0\nintervall = 1\n")
    assert line.startswith(
        "the configuration was not reloaded, what was in force stays so: meter.toml, line 4: [polling]"
    )
    assert "did you mean" in line
    assert site.counts.results == ["invalid"]
    assert site.now("[polling")[0].startswith("the configuration was not reloaded")
    assert len(logged_errors.flush()) == 2


@pytest.mark.parametrize("error", [ValueError("no such file"), ConfigError(["no such file"])])
def test_part_that_refuses_keeps_its_values_and_others_change(site: Site, error: Exception, logged_errors: Any) -> None:
    def refuse(_: Config) -> None:
        raise error

    site.reload.add(["polling.*"], refuse)
    site.reload.add(["store.*"], lambda _: None)
    lines = site.now(BASE + "[store]\nreaders = 9\n[polling]\ninterval_seconds = 60.0\n")
    assert lines[1:] == [
        "not reloaded: [polling] interval_seconds, the former values stay in force: no such file",
        "reloaded [store] readers: 4 -> 9",
    ]
    assert len(logged_errors.flush()) == 1
    assert site.counts.results == ["partial"]
    assert site.counts.settings == 0
    assert (site.reload.config.store.readers, site.reload.config.polling.interval_seconds) == (9, 300.0)


def test_part_that_fails_stops_no_other(site: Site, logged_errors: Any) -> None:
    site.reload.add(["polling.*"], lambda _: 1 / 0)  # type: ignore[arg-type,return-value]
    site.reload.add(["store.*"], lambda _: None)
    site.reload.add_refresh(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    files: list[int] = []
    site.reload.add_refresh(lambda: files.append(1))
    lines = site.now(BASE + "[store]\nreaders = 9\n[polling]\ninterval_seconds = 60.0\n")
    assert "reloaded [store] readers: 4 -> 9" in lines
    assert len(logged_errors.flush(ZeroDivisionError)) == 2
    assert files == [1]


def test_requests_during_a_reload_are_one_more_reload(site: Site) -> None:
    waiting: list[Deferred[None]] = []

    def apply(_: Config) -> Deferred[None]:
        waiting.append(Deferred())
        return waiting[-1]

    site.reload.add(["polling.*"], apply)
    site.now(BASE + "[polling]\ninterval_seconds = 60.0\n")
    for seconds in (70.0, 80.0, 90.0):
        site.now(BASE + f"[polling]\ninterval_seconds = {seconds}\n")
    waiting[0].callback(None)
    waiting[1].callback(None)
    assert site.counts.results == ["ok", "ok"]
    assert site.reload.config.polling.interval_seconds == 90.0


def test_reload_ends_with_the_daemon(site: Site) -> None:
    cancelled: list[bool] = []
    site.reload.add(["polling.*"], lambda _: Deferred(lambda _: cancelled.append(True)))
    site.now(BASE + "[polling]\ninterval_seconds = 60.0\n")
    site.reload.end()
    assert cancelled
    assert site.counts.results == []
    assert site.now(BASE) == ["the configuration is not reloaded: the daemon stops"]


def test_settings_of_other_daemons_are_not_told() -> None:
    concerns: Callable[[Any], bool] = lambda setting: setting[0] != "api"  # noqa: E731
    site = Site(concerns=concerns)
    assert site.now(BASE + "[api]\nmax_limit = 77\n[store]\nreaders = 5\n")[1:] == [
        "[store] readers has changed and takes effect after a restart: 4 -> 5"
    ]


def test_what_a_restart_would_stumble_over_is_told_at_each_reload(site: Site, logged_errors: Any) -> None:
    site.reload.add_check(lambda config: "8 are too many" if config.store.readers == 8 else "")
    assert "mend before the restart: 8 are too many" in site.now(BASE + "[store]\nreaders = 8\n")
    assert "mend before the restart: 8 are too many" in site.now(BASE + "[store]\nreaders = 8\n")
    assert not [each for each in site.now(BASE + "[store]\nreaders = 5\n") if "mend" in each]
    assert len(logged_errors.flush()) == 2
