"""What is logged, from which level, and in which format."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from twisted.logger import Logger
from twisted.logger import LogLevel
from twisted.logger import LogPublisher
from twisted.python.failure import Failure

from meter.daemon.logs import as_json
from meter.daemon.logs import as_text
from meter.daemon.logs import json_lines
from meter.daemon.logs import level_filter
from meter.daemon.logs import observer
from meter.daemon.logs import set_levels
from meter.daemon.logs import text_lines


@pytest.fixture
def written():
    """Return a function that logs and returns what ``write`` made of it."""

    def write(log, how=as_text, levels="info", namespace="meter.agent.polling"):
        stream = io.StringIO()
        log(Logger(namespace=namespace, observer=LogPublisher(observer(stream, how, levels))))
        return stream.getvalue()

    return write


EVENT = {
    "log_time": 1795366859.7015,
    "log_level": LogLevel.warn,
    "log_namespace": "meter.agent.polling",
    "log_format": "polled {samples} samples of {who}",
    "samples": 12,
    "who": "Zoë",
    "what": object(),
}


def test_text_line_has_time_level_namespace_and_text():
    assert as_text(EVENT) == "2026-11-22T17:00:59.701Z warn meter.agent.polling: polled 12 samples of Zoë"


def test_json_line_has_the_text_and_the_plain_fields():
    assert json.loads(as_json(EVENT)) == {
        "time": "2026-11-22T17:00:59.701Z",
        "level": "warn",
        "namespace": "meter.agent.polling",
        "text": "polled 12 samples of Zoë",
        "format": "polled {samples} samples of {who}",
        "fields": {"samples": 12, "who": "Zoë"},
    }


def test_a_field_cannot_replace_a_member_of_the_json_line():
    line = json.loads(as_json({**EVENT, "time": "never", "level": "none", "text": "forged", "namespace": "x"}))
    assert (line["level"], line["text"]) == ("warn", "polled 12 samples of Zoë")
    assert line["fields"]["level"] == "none"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_json_line_is_json_whatever_the_number(value):
    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(as_json({**EVENT, "samples": value}), parse_constant=refuse)["fields"]["samples"] == str(value)


def test_the_page_describes_each_member_of_a_json_line():
    page = (Path(__file__).parents[3] / "docs/operating.rst").read_text()
    table = page.partition("A line of JSON is an object")[2].partition("\n---")[0]
    described = re.findall(r"^``(\w+)`` ", table, re.MULTILINE)
    with_traceback = as_json({**EVENT, "log_failure": Failure(ValueError("x"))})
    assert described == list(json.loads(with_traceback))


@pytest.mark.parametrize("how", [as_text, as_json])
def test_lone_surrogate_does_not_lose_the_line(written, how):
    assert "broken \\ud83d name" in written(lambda log: log.info("broken {x}", x="\ud83d name"), how)


@pytest.mark.parametrize("how", [as_text, as_json])
def test_failures_are_logged_with_their_traceback(written, how):
    def fail(log):
        try:
            raise ZeroDivisionError("by\nzero")
        except ZeroDivisionError:
            log.failure("cannot divide")

    text = written(fail, how)
    assert "cannot divide" in text
    assert "Traceback" in text
    assert "ZeroDivisionError: by" in text


def test_json_event_is_one_line_whatever_it_contains(written):
    line = written(lambda log: log.info("{text}", text="two\nlines\u2028and \u0000 more {gone}"), as_json)
    assert len(line.splitlines()) == 1
    assert json.loads(line)["text"] == "two\nlines\u2028and \u0000 more {gone}"


@pytest.mark.parametrize(
    ("levels", "namespace", "level", "appears"),
    [
        ("info", "meter.bus.amqp", "info", True),
        ("info", "meter.bus.amqp", "debug", False),
        ("info meter.bus.amqp=debug", "meter.bus.amqp.client", "debug", True),
        ("info meter.bus.amqp=debug", "meter.store", "debug", False),
        ("error,meter.bus.amqp=warn", "meter.bus.amqp", "warn", True),
        ("error,meter.bus.amqp=warn", "meter.store", "warn", False),
        ("info", "twisted.conch.ssh.session", "info", False),
        ("info twisted.conch=info", "twisted.conch.ssh.session", "info", True),
        ("", "meter", "info", True),
    ],
)
def test_level_can_be_set_globally_and_per_namespace(written, levels, namespace, level, appears):
    assert bool(written(lambda log: getattr(log, level)("x"), levels=levels, namespace=namespace)) is appears


@pytest.mark.parametrize("levels", ["loud", "info meter.bus.amqp", "info meter=loud"])
def test_unknown_level_is_refused_with_the_known_ones(levels):
    with pytest.raises(ValueError, match="not one of the levels debug, info, warn, error, critical"):
        level_filter(levels)


@pytest.mark.parametrize("factory", [text_lines, json_lines])
def test_twistd_can_call_the_formats_without_arguments(factory, capsys, monkeypatch):
    monkeypatch.setenv("METER_LOG_LEVELS", "warn")
    log = Logger(namespace="meter", observer=factory())
    log.info("not this")
    log.warn("but this")
    out = capsys.readouterr().out
    assert "but this" in out
    assert "not this" not in out


@pytest.mark.parametrize("lines", [text_lines, json_lines])
def test_invalid_level_in_the_environment_ends_the_process_with_its_reason(lines, monkeypatch):
    monkeypatch.setenv("METER_LOG_LEVELS", "loud")
    with pytest.raises(SystemExit, match="METER_LOG_LEVELS: 'loud' must be"):
        lines()


def test_levels_of_the_configuration_replace_those_of_the_environment_while_the_process_runs(capsys, monkeypatch):
    monkeypatch.setenv("METER_LOG_LEVELS", "warn")
    log = Logger(namespace="meter", observer=text_lines())
    log.info("one")
    set_levels("info")
    log.info("two")
    with pytest.raises(ValueError, match="not one of the levels"):
        set_levels("loud")
    log.info("three")
    set_levels("")
    log.info("four")
    assert [line.rsplit(" ", 1)[1] for line in capsys.readouterr().out.splitlines()] == ["two", "three"]
