"""No setting shows a password that somebody wrote into a URL: not to ``--check``, not in the log, not in ``/readyz``."""

from __future__ import annotations

import io
from typing import Any

import pytest
from pydantic import ValidationError
from twisted.logger import Logger
from zope.interface import implementer

from meter.bus.amqp.hosts import broker_addresses
from meter.daemon.logs import as_json
from meter.daemon.logs import as_text
from meter.daemon.logs import observer
from meter.daemon.process_lock import command_of
from meter.daemon.status import readiness_of
from meter.interfaces import IDependency
from meter.interfaces import Readiness
from meter.pollsters.redfish.options import RedfishOptions
from meter.settings.config_file import effective
from meter.settings.config_file import parse
from meter.settings.differences import settings_of
from meter.settings.differences import shown_change
from meter.settings.masked import masked
from meter.settings.problems import ConfigError
from meter.store.postgres.dsn import connection_parameters
from meter.store.postgres.dsn import parsed

PASSWORD = "hunter2"
SETTINGS = """
[bus]
url = "amqp://meter:hunter2@bus:5672/%2F"
[store]
dsn = "postgresql://meter:hunter2@db/meter?sslpassword=hunter2"
[compute]
libvirt_uri = "qemu+ssh://root:hunter2@host/system"
[api.auth]
mode = "keystone"
[api.auth.keystone]
auth_url = "https://meter:hunter2@keystone.example.org/v3"
password = "hunter2"
[openstack.auth]
auth_url = "https://meter:hunter2@keystone.example.org:5000"
"""


def test_check_shows_no_password_of_any_url() -> None:
    shown = effective(parse(SETTINGS, "meter-api"))
    assert PASSWORD not in shown
    assert shown.count("https://meter:***@keystone.example.org") == 2
    assert "qemu+ssh://root:***@host/system" in shown


def test_error_in_the_configuration_shows_no_password() -> None:
    with pytest.raises(ConfigError) as caught:
        parse('[polling]\ninterval_seconds = "http://a:hunter2@b"\n[api]\nlisten = "http://a:hunter2@b"\n', "meter-api")
    assert PASSWORD not in str(caught.value)
    assert "http://a:***@b" in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        '[api.auth]\ntokens = [{sha256 = "hunter2-is-the-token-itself"}]\n',
        '[bus]\nurl_file = "amqp://meter:a hunter2@bus/"\n',
        '[store]\ndsn_file = "postgresql://meter:a hunter2@db/\\u0000"\n',
    ],
)
def test_error_about_a_secret_in_the_wrong_place_does_not_show_it(settings: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(settings, "meter-api")
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("password", [PASSWORD, f"a {PASSWORD}"])
def test_error_about_the_url_of_a_bmc_shows_no_password(password: str) -> None:
    host = {"host": "hv1", "url": f"https://root:{password}@bmc1.example.org"}
    with pytest.raises(ValidationError) as caught:
        RedfishOptions.model_validate({"hosts": [host], "username": "meter", "password_file": "/a"})
    [error] = caught.value.errors(include_input=False)
    assert (PASSWORD in error["msg"], "https://root:***@bmc1" in error["msg"]) == (False, True)


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://u:p@host/path", "https://u:***@host/path"),
        ("https://u:p@ss@host/path", "https://u:***@host/path"),
        ("https://u:p/w?x#y@host", "https://u:***@host"),
        ("https://:p@host", "https://:***@host"),
        ("https://u@host:80/a", "https://u@host:80/a"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
        ("http://[bad:p@host", "http://[bad:***@host"),
        ("host=db password='p w' user=meter", "host=db password=*** user=meter"),
        ("postgresql://db/meter?password=p&user=u", "postgresql://db/meter?password=***&user=u"),
        ("cannot reach amqp://u:p@bus: refused", "cannot reach amqp://u:***@bus: refused"),
    ],
)
def test_password_is_masked_in(location: str, shown: str) -> None:
    assert masked(location) == shown


@pytest.mark.parametrize("write", [as_text, as_json])
def test_log_shows_no_password(write: Any) -> None:
    stream = io.StringIO()
    log = Logger("test", observer=observer(stream, write, "info"))
    log.warn("cannot reach {url}", url="https://meter:hunter2@keystone.example.org")
    try:
        raise ValueError("no answer from https://meter:hunter2@keystone.example.org")
    except ValueError:
        log.failure("failed")
    assert PASSWORD not in stream.getvalue()
    assert "https://meter:***@keystone.example.org" in stream.getvalue()


@implementer(IDependency)
class Keystone:
    name = "keystone"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def readiness(self) -> Readiness:
        if self.error is not None:
            raise self.error
        return Readiness("keystone", False, "https://meter:hunter2@keystone/v3: refused")


@pytest.mark.parametrize("error", [None, ValueError("https://meter:hunter2@keystone/v3")])
def test_readiness_shows_no_password(error: Exception | None) -> None:
    reason = readiness_of(Keystone(error)).reason
    assert "https://meter:***@keystone/v3" in reason


def test_command_line_in_a_lock_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda _: b"twistd\0amqp://u:p@ss@bus/\0")
    assert command_of(1) == "twistd amqp://u:***@bus/"


@pytest.mark.parametrize(
    "url",
    [
        "amqp://u:12/hunter2@a,b/v",
        "amqp://u:12/hunter2@a",
        "amqp://u:12?hunter2@a/v",
        "amqp://u:12#hunter2@a/v",
        "amqps://u:1@2?hunter2@a/v",
        "amqp://u:hun/ter2@a,b",
        "amqp://u:hunter2@a:x,b/",
        "amqp://u:hunter2@a,/",
        "amqp://u:hunter2@[a,b/",
        "amqp://u:hunter2@a,u:hunter2@b/",
        "u:hunter2@a/v",
    ],
)
def test_url_of_the_broker_with_an_odd_password_is_refused_without_it(url: str) -> None:
    with pytest.raises(ValueError, match="URL") as caught:
        [str(each) for each in broker_addresses(url)]
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:12/hunter2@a/meter",
        "postgresql://u:hun/ter2@a,b/meter",
        "postgresql://u:hun@ter2@a/meter",
        "postgresql://u:hun@ter2@a,b:5433/meter?sslmode=require",
        "postgresql://u:%zzhunter2@a/meter",
        "u:hunter2@a",
        "password = a hunter2",
    ],
)
def test_dsn_with_an_odd_password_is_refused_without_it(dsn: str) -> None:
    for parse_it in (
        parsed,
        lambda each: connection_parameters(each, statement_timeout_seconds=1, application_name="x"),
    ):
        with pytest.raises(ValueError, match="postgresql://user@host/database") as caught:
            parse_it(dsn)
        assert "ter2" not in str(caught.value)


def test_unknown_parameter_of_a_dsn_is_named() -> None:
    with pytest.raises(ValueError, match="bogus"):
        parsed("postgresql://u:hunter2@a/meter?bogus=1")


@pytest.mark.parametrize("password", ["hun ter2", "it's hunter2", 'a"hunter2', "a@hunter2"])
def test_no_password_with_odd_characters_is_shown(password: str) -> None:
    value = f"https://meter:{password}@keystone.example.org/v3".replace('"', '\\"')
    config = parse(f'[openstack.auth]\nauth_url = "{value}"\n', "meter-central")
    assert "ter2" not in effective(config)
    place = ("openstack", "auth", "auth_url")
    changed = shown_change(place, "", settings_of(config)[place])
    assert changed is not None
    assert "ter2" not in changed
    with pytest.raises(ConfigError) as caught:
        parse(f'[polling]\ninterval_seconds = "{value}"\n', "meter-central")
    assert "ter2" not in str(caught.value)
