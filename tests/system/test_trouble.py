"""Daemons whose configuration is wrong, or whose dependencies are away, late, or lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.system.daemons import STOPPED
from tests.system.daemons import fetch
from tests.system.daemons import until

DAEMONS = ("meter-compute", "meter-central", "meter-collector", "meter-api", "meter")


@pytest.mark.parametrize("name", DAEMONS)
def test_a_check_shows_what_is_in_effect_without_secrets(house, name):
    house.bus = "" if name == "meter" else "amqp://meter:hunter2@127.0.0.1:1/"
    checked = house.daemon(name).check()

    assert checked.returncode == 0, checked.stderr
    assert "hunter2" not in checked.stdout
    assert "the system tests' secret" not in checked.stdout
    configuration = checked.stdout.partition("\nPLUGIN ")[0]
    shown = tomllib.loads(configuration)
    assert shown["polling"]["interval_seconds"] == 300.0
    if name != "meter-api":
        assert re.search(r"^PLUGIN +KIND +STATE +ORIGIN +REASON$", checked.stdout, re.M)
    if name in ("meter-compute", "meter"):
        assert re.search(r"^cpu +compute +active ", checked.stdout, re.M)
        assert re.search(r"^example +compute +not applicable ", checked.stdout, re.M)
    assert not (house.directory / f"{name}-0/state").exists()


MISTAKES = """
[polling]
interval_second = 3
timeout_seconds = "soon"
[pollsters.nonesuch]
x = 1
"""


@pytest.mark.parametrize("how", ["check", "start"])
@pytest.mark.parametrize("name", DAEMONS)
def test_all_mistakes_are_told_at_once_and_the_status_is_1(house, name, how):
    daemon = house.daemon(name, MISTAKES)
    command = daemon.command(*(["--check"] if how == "check" else []))

    ran = subprocess.run(command, cwd=daemon.directory, capture_output=True, text=True, timeout=180)

    assert ran.returncode == 1
    assert "[polling] interval_second: unknown key; did you mean interval_seconds?" in ran.stderr
    assert '[polling] timeout_seconds: should be a number, not "soon"' in ran.stderr
    assert "Traceback" not in ran.stderr


def test_options_of_a_plugin_that_is_not_installed_are_a_mistake(house):
    ran = house.daemon("meter-compute", "[pollsters.nonesuch]\nx = 1\n").check()

    assert ran.returncode == 1
    assert ".toml, line " in ran.stderr
    assert ": [pollsters.nonesuch]: no such plugin" in ran.stderr
    assert "cpu" in ran.stderr  # what is installed


def test_without_its_dependencies_a_daemon_says_so_and_waits(house):
    house.bus = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    house.store = f"postgresql://meter@127.0.0.1:{free_port()}/meter"
    compute = house.daemon("meter-compute", '[compute]\nlibvirt_uri = "qemu+unix:///system?socket=/nowhere"\n').start()
    collector = house.daemon("meter-collector").start()
    api = house.daemon("meter-api").start()

    for daemon, dependency, expected in (
        (compute, "bus", "refused"),
        (compute, "libvirt", "/nowhere"),
        (collector, "bus", "refused"),
        (collector, "store", "refused"),
        (api, "store", "refused"),
    ):
        until(
            lambda d=daemon, n=dependency, e=expected: e in (d.reason(n) or ""),
            f"{daemon.name} to miss its {dependency}",
        )
        assert daemon.readiness()["status"] == 503
        assert fetch(f"http://127.0.0.1:{daemon.status_port}/healthz") == (200, b"ok\n")
    status, body = fetch(f"{api.api}/v2/samples")
    assert status == 503
    assert "try again later" in json.loads(body)["error_message"]["faultstring"]
    for daemon in (compute, collector, api):
        assert daemon.stop() in STOPPED
        assert "Traceback" not in daemon.log


def example_of_the_page() -> dict[str, Any]:
    """The response of ``/readyz`` that docs/operating.rst shows: of a collector while PostgreSQL is down."""
    page = (Path(__file__).parents[2] / "docs/operating.rst").read_text(encoding="utf-8")
    example: dict[str, Any] = json.loads(re.search(r'\{"ready".*?\]\}', page, re.S)[0])
    return example


def without_addresses(readiness: dict[str, Any], **more: Any) -> dict[str, Any]:
    """``readiness`` without what differs from host to host."""
    text = json.dumps(readiness | more)
    text = re.sub(r"[\w.-]+:\d+/\w+", "DATABASE", text)
    text = re.sub(r"[\w.-]+:\d+, virtual host [^,]+, user \w+", "BROKER", text)
    text = re.sub(r"listens on [\w.-]+:\d+", "listens on ADDRESS", text)
    result: dict[str, Any] = json.loads(re.sub(r"RabbitMQ [\d.]+", "RabbitMQ", text))
    return result


def test_a_daemon_works_as_soon_as_its_dependencies_come(furnished, postgresql, libvirtd):
    store = furnished.store
    libvirtd.stop()
    postgresql.stop()
    try:
        collector = furnished.daemon("meter-collector").start()
        compute = furnished.daemon(
            "meter-compute", f'[compute]\nlibvirt_uri = "{libvirtd.uri}"\n[polling]\ninterval_seconds = 1.0\n'
        ).start()
        until(lambda: collector.reason("store"), "the collector to miss its store")
        until(lambda: compute.reason("libvirt"), "the agent to miss libvirt")
        until(lambda: "refused" in (collector.reason("store") or ""), "the collector to be refused")
        until(lambda: collector.reason("bus") is None, "the collector to consume its queue")
        assert without_addresses(collector.readiness(), status=503) == without_addresses(
            example_of_the_page(), status=503
        )
    finally:
        postgresql.start()
        libvirtd.start()
    with libvirtd.guest("late"):
        collector.until_ready()
        compute.until_ready()
        furnished.store = store
        until(lambda: collector.metric('meter_collected_samples_total{outcome="stored"}') >= 4, "samples")


POLLING = "[polling]\ninterval_seconds = 60.0\n"
OF_TESTS = '[compute]\nlibvirt_uri = "test:///default"\n'


def test_a_port_that_another_kind_of_daemon_has_is_waited_for(house):
    house.bus = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    first = house.daemon("meter-central", POLLING)
    second = house.daemon("meter-compute", POLLING + OF_TESTS)
    second.config_file.write_text(
        second.config_file.read_text().replace(str(second.status_port), str(first.status_port))
    )
    first.start()
    until(lambda: fetch(f"http://127.0.0.1:{first.status_port}/healthz")[0] == 200, "the first to listen")
    second.start()
    until(lambda: "cannot listen on" in second.log, "the second to say so")
    assert "[status.by_daemon]" in second.log
    first.stop()

    until(lambda: fetch(f"http://127.0.0.1:{first.status_port}/healthz")[0] == 200, "the second to listen")


def refused(daemon):
    """The only line of a daemon that ends at once, without a traceback."""
    assert daemon.start().process.wait(60) == 1
    [line] = daemon.log.splitlines()
    return line


def same(daemon, other, *, port):
    """Have ``other`` work in the state_dir of ``daemon``, or on its port."""
    text = other.config_file.read_text()
    pairs = [(other.status_port, daemon.status_port), (other.api_port, daemon.api_port)]
    if not port:
        pairs = [(f"{other.directory}/state", f"{daemon.directory}/state")]
    for old, new in pairs:
        text = text.replace(str(old), str(new))
    other.config_file.write_text(text)


@pytest.mark.parametrize("name", ["meter", "meter-compute", "meter-central"])
@pytest.mark.parametrize("what", ["state_dir", "port"])
def test_a_daemon_that_polls_is_refused_where_another_of_its_name_works(house, name, what):
    house.bus = "" if name == "meter" else f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    house.store = f"postgresql://meter@127.0.0.1:{free_port()}/meter"
    first, second = (house.daemon(name, POLLING + OF_TESTS) for _ in range(2))
    same(first, second, port=what == "port")
    first.start()
    until(lambda: fetch(f"http://127.0.0.1:{first.status_port}/healthz")[0] == 200, "the first to listen")

    line = refused(second)

    assert f"process {first.process.pid} (" in line
    assert str(first.config_file) in line
    assert ("[meter] state_dir" if what == "state_dir" else "[status] listen") in line
    if what == "state_dir":
        assert f"{first.directory}/state/{name}.lock" in line
    assert second.check().returncode == 0  # which owns nothing
    first.send(signal.SIGKILL)
    first.process.wait()
    second.start()
    until(
        lambda: (
            fetch(f"http://127.0.0.1:{first.status_port if what == 'port' else second.status_port}/healthz")[0] == 200
        ),
        "the second to work after a crash of the first",
    )


def test_a_daemon_in_the_background_owns_its_directory(house):
    house.bus = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    first, second = (house.daemon("meter-compute", POLLING + OF_TESTS) for _ in range(2))
    same(first, second, port=False)
    pidfile = first.directory / "pid"
    command = [each for each in first.command() if each not in ("-n", "--pidfile=")]
    options = [f"--pidfile={pidfile}", f"--logfile={first.log_file}"]
    subprocess.run([command[0], *options, *command[1:]], cwd=first.directory, check=True, timeout=180)
    try:
        until(lambda: fetch(f"http://127.0.0.1:{first.status_port}/healthz")[0] == 200, "the first to listen")
        process = int(pidfile.read_text())

        assert f"is locked by process {process} (" in refused(second)
    finally:
        os.kill(int(pidfile.read_text()), signal.SIGKILL)


def test_two_kinds_of_daemons_may_share_a_directory(house):
    house.bus = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    first, second = (house.daemon(name, POLLING + OF_TESTS) for name in ("meter-central", "meter-compute"))
    same(first, second, port=False)
    for each in (first, second):
        each.start()
    for each in (first, second):
        until(lambda each=each: fetch(f"http://127.0.0.1:{each.status_port}/healthz")[0] == 200, "both to work")


def test_what_was_measured_for_another_broker_is_not_sent_to_this_one_unasked(furnished):
    bus = furnished.bus
    furnished.daemon("meter-collector").start()  # makes the queue
    furnished.bus = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    config = "[polling]\ninterval_seconds = 1.0\n" + OF_TESTS
    agent = furnished.daemon("meter-compute", config).start()
    until(lambda: agent.metric("meter_spool_messages") > 0, "samples to wait")
    agent.stop()
    agent.config_file.write_text(agent.config_file.read_text().replace(furnished.bus, bus))
    agent.log_file.unlink()

    line = refused(agent)
    assert "meter-compute.spool" in line
    assert "send_to_new_destination" in line

    agent.config_file.write_text(agent.config_file.read_text() + "[spool]\nsend_to_new_destination = true\n")
    agent.start()
    until(lambda: agent.metric('meter_publications_total{outcome="confirmed"}') > 0, "them to go out, asked")


def test_requests_that_the_api_does_not_understand_get_json(furnished):
    furnished.daemon("meter-collector").start()
    api = furnished.daemon("meter-api").start().until_ready()

    for path, expected in (
        ("/v2/samples?limit=many", 400),
        ("/v2/samples?nonsense=1", 400),
        ("/v2/meters/cpu/statistics?period=-1", 400),
        ("/v2/samples/nonesuch", 404),
        ("/nowhere", 404),
    ):
        status, body = fetch(api.api + path)
        assert status == expected, path
        assert "error_message" in json.loads(body), path
        assert b"<html" not in body.lower()
        assert b"Traceback" not in body


def test_a_wrong_signing_key_sets_everything_aside_and_says_why(furnished):
    collector = furnished.daemon("meter-collector").start().until_ready()
    stranger = furnished.daemon("meter-central", "[polling]\ninterval_seconds = 1.0\n")
    stranger.config_file.write_text(stranger.config_file.read_text().replace("the system tests' secret", "another"))
    stranger.start().until_ready()

    until(lambda: collector.metric('meter_dead_letters_total{reason="unverified"}') >= 3, "dead letters")

    assert collector.metric('meter_collected_samples_total{outcome="stored"}') == 0
    assert "signed with another key" in collector.log


THIRD_PARTY = Path(__file__).with_name("third_party")


def test_a_plugin_of_another_distribution_works_at_the_next_start(furnished, tmp_path):
    """Installed beside Meter, without a touch to any file of Meter's."""
    site, source = tmp_path / "site", shutil.copytree(THIRD_PARTY, tmp_path / "source")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "--target",
            str(site),
            str(source),
        ],
        check=True,
        timeout=180,
    )
    furnished.daemon("meter-collector").start().until_ready()
    api = furnished.daemon("meter-api").start().until_ready()
    compute = furnished.daemon(
        "meter-compute",
        '[compute]\nlibvirt_uri = "test:///default"\n[polling]\ninterval_seconds = 1.0\n[pollsters.lamp]\nroom = "küche"\n',
    )
    compute.extra_environment = {"PYTHONPATH": str(site)}
    compute.start()

    [lamp] = until(lambda: api.get("/v2/meters/lamp.power?limit=1"), "a sample of the lamp")

    assert lamp["resource_id"] == "küche/lamp"
    assert lamp["counter_unit"] == "W"
    assert re.search(r"lamp +compute +active +meter_lamp:lamp \(meter-lamp 1\.0\)", compute.log)
