"""The checks of ``meter-doctor``: each says *ok* of what is healthy, and names what is not, and what to do."""

from __future__ import annotations

import json
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta

import msgspec
import pytest

import meter
from meter.bus.amqp import QueueState
from meter.bus.dead_letter_advice import KIND_ADVICE
from meter.bus.dead_letters import parse_dead_letter
from meter.bus.queue_names import CONSUMED_QUEUES
from meter.commands.doctor import broker
from meter.commands.doctor import certificates
from meter.commands.doctor import daemons
from meter.commands.doctor import database
from meter.commands.doctor.finding import Finding
from meter.commands.doctor.finding import as_json
from meter.commands.doctor.finding import as_text
from meter.commands.doctor.finding import exit_status
from meter.commands.doctor.secrets import secret_findings
from meter.commands.doctor.status_pages import status_finding
from meter.commands.doctor.status_pages import status_url
from meter.commands.doctor.status_pages import status_urls
from meter.heartbeat import DependencyState
from meter.heartbeat import Heartbeat
from meter.heartbeat import SpoolState
from meter.sample import utc_text
from meter.settings.config_file import parse
from meter.store.maintenance.inspection import DatabaseServer
from meter.store.maintenance.inspection import HeartbeatRow
from meter.store.maintenance.inspection import PartitionState
from tests.servers.certificates import Authority

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
KEY = ("default", "00ff00ff00ff00ff")


def levels(findings):
    return [each.level for each in findings]


def advised(findings):
    """The texts of what is not ok; each of them says what to do."""
    wrong = [each for each in findings if each.level in ("warning", "fault")]
    assert all(each.advice for each in wrong), wrong
    return [f"{each.level}: {each.text}" for each in wrong]


# --- broker, queues, dead letters ----------------------------------------------------------------------------------

IDLE = {name: QueueState(0, 1) for name in CONSUMED_QUEUES}


def test_broker_version_and_permissions():
    assert broker.version_finding("RabbitMQ 3.10.8", "rabbit1").level == "ok"
    [old] = advised([broker.version_finding("RabbitMQ 3.9.29", "rabbit1")])
    assert old == "warning: RabbitMQ 3.9.29 at rabbit1: Meter needs RabbitMQ 3.10 or newer"
    assert broker.version_finding("LavinMQ 2.0.0", "rabbit1").level == "ok"
    assert broker.permission_finding([], "meter").level == "ok"
    refused = broker.permission_finding(["write to the exchange metering"], "meter")
    assert advised([refused]) == [
        "fault: the user meter may not write to the exchange metering: no daemon with this user can publish"
    ]
    [agent] = advised([broker.permission_finding(["configure queues (x)"], "meter")])
    assert agent == (
        "warning: the user meter may not configure queues (x): a collector needs that; agents and the API do not"
    )


def test_queues_that_are_consumed_and_short_are_healthy():
    assert levels(broker.queue_findings(IDLE)) == ["ok"]


@pytest.mark.parametrize(
    ("queues", "expected"),
    [
        ({**IDLE, "meter.metering": None}, "fault: there is no queue meter.metering"),
        ({**IDLE, "meter.metering": QueueState(5, 0)}, "fault: meter.metering has no consumer and 5 messages"),
        ({**IDLE, "meter.notifications": QueueState(20_000, 2)}, "warning: meter.notifications has 20000 messages"),
        ({**IDLE, "meter.metering.waiting": QueueState(1, 1)}, "warning: meter.metering.waiting has 1 message"),
    ],
)
def test_queues_that_are_missing_unconsumed_or_long_are_named(queues, expected):
    [found] = advised(broker.queue_findings(queues))
    assert found.startswith(expected)


def test_a_queue_without_listeners_need_not_exist():
    assert levels(broker.queue_findings({**IDLE, "meter.notifications": None})) == ["ok"]


def letter(kind, reason, id="0123456789"):
    headers = {"meter-id": id, "meter-kind": kind, "meter-reason": reason, "meter-at": "2026-11-27T11:00:00"}
    return parse_dead_letter(headers, b"")


def test_dead_letters_are_counted_by_kind_with_the_commonest_reason():
    letters = [
        letter("unverified", "key x"),
        letter("unverified", "key y"),
        letter("unverified", "key y"),
        letter("?", "z"),
    ]
    found = list(broker.dead_letter_findings(broker.LetterSample(4, letters), 100))
    assert levels(found) == ["warning", "warning"]
    assert found[0].text.startswith("3 of 4 dead letters are unverified, from 2026-11-27T11:00:00")
    assert "most often: key y (such as 01234567)" in found[0].text
    assert "keys" in found[0].advice
    assert advised(found)
    assert levels(broker.dead_letter_findings(broker.LetterSample(0, []), 100)) == ["ok"]


def test_a_full_queue_of_dead_letters_is_a_fault():
    found = list(broker.dead_letter_findings(broker.LetterSample(100, [letter("invalid", "x")]), 100))
    assert levels(found) == ["fault", "warning"]
    assert "of the oldest 1 of 100 dead letters is invalid" in found[1].text


def test_every_kind_of_dead_letters_has_advice():
    from tests.unit.test_documents import TOP

    page = (TOP / "docs/dead-letters.rst").read_text(encoding="utf-8")
    table = page.partition("=============  ===")[2].partition("\n\n")[0]
    kinds = {line.split()[0] for line in table.splitlines()[2:] if line[:1].isalpha()}
    assert kinds - {"Kind"} == set(KIND_ADVICE)


# --- the database --------------------------------------------------------------------------------------------------


def server(**more):
    given = {
        "where": "PostgreSQL at db1/meter",
        "version": "15.4 (Debian)",
        "version_number": 150004,
        "standby": False,
        "database_bytes": 10**9,
        "data_directory": None,
        "schema_version": 8,
        "required_schema_version": 8,
        "schema_problem": None,
        "unsafe_settings": {},
    }
    return DatabaseServer(**(given | more))


def test_a_usable_database_is_healthy():
    [found] = database.server_findings(server())
    assert (found.level, found.text) == ("ok", "PostgreSQL 15.4, db1/meter, schema version 8")
    assert database.durability_finding(server()).level == "ok"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"version_number": 130001}, "fault: PostgreSQL 15.4, db1/meter: Meter needs PostgreSQL 14"),
        (
            {"schema_problem": "the database has schema version 7"},
            "fault: PostgreSQL 15.4, db1/meter: the database has schema",
        ),
        ({"standby": True}, "warning: PostgreSQL 15.4, db1/meter is a standby"),
    ],
)
def test_a_database_that_cannot_be_used_is_named(facts, expected):
    [found] = advised(database.server_findings(server(**facts)))
    assert found.startswith(expected)


def test_unsafe_settings_are_a_fault_with_the_statements_that_mend_them():
    found = database.durability_finding(server(unsafe_settings={"fsync": "off", "full_page_writes": "off"}))
    assert found.level == "fault"
    assert "fsync = off, full_page_writes = off" in found.text
    assert "ALTER SYSTEM SET fsync = on" in found.advice


@pytest.mark.parametrize(
    ("current", "next", "stray", "newest", "level"),
    [
        (True, True, 0, NOON, "ok"),
        (False, False, 0, None, "ok"),
        (False, False, 0, NOON - timedelta(days=30), "ok"),
        (True, False, 0, NOON, "warning"),
        (False, False, 0, NOON, "fault"),
        (False, True, 3, NOON, "warning"),
        (False, True, 1000, NOON, "fault"),
    ],
)
def test_partitions(current, next, stray, newest, level):
    found = database.partition_finding(PartitionState(date(2026, 11, 23), current, next, stray), newest)
    assert found.level == level
    assert bool(found.advice) == (level != "ok")


@pytest.mark.parametrize(
    ("hours", "level"), [(None, "ok"), (1, "ok"), (2, "ok"), (3, "warning"), (24, "warning"), (27, "fault")]
)
def test_hours_that_are_not_final(hours, level):
    oldest = None if hours is None else NOON - timedelta(hours=hours)
    found = database.finalization_finding(oldest, NOON, 900.0)
    assert found.level == level
    if level != "ok":
        assert f"{oldest:%Y-%m-%d %H:%M} UTC, {hours} hours ago" in found.text


def test_disks(tmp_path, monkeypatch):
    monkeypatch.setattr(database.shutil, "disk_usage", lambda _: database.shutil._ntuple_diskusage(1000, 960, 40))
    assert database.space_finding(tmp_path, "x").level == "warning"
    monkeypatch.setattr(database.shutil, "disk_usage", lambda _: database.shutil._ntuple_diskusage(1000, 980, 20))
    assert database.space_finding(tmp_path, "x").level == "fault"
    assert database.disk_finding(None, 5).level == "not checked"
    assert database.readable_bytes(1_400_000_000) == "1.4 GB"


# --- heartbeats ----------------------------------------------------------------------------------------------------


def row(name, *, seconds=10, ahead=0.0, **members):
    """A heartbeat that arrived so many seconds ago, of a daemon whose clock is ahead."""
    received = NOON - timedelta(seconds=seconds)
    clock = received + timedelta(seconds=ahead)
    daemon, _, host = name.partition("@")
    given = {"version": meter.__version__, "started_at": "2026-11-27T00:00:00", "key_ids": (KEY,), **members}
    content = Heartbeat(name=name, daemon=daemon, host=host, boot="b", sequence=1, clock=utc_text(clock), **given)
    return HeartbeatRow(name, clock, received, msgspec.json.encode(content).decode())


COLLECTOR = row("meter-collector@c1")
AGENT = row("meter-compute@host1")


def states(*rows):
    return daemons.daemon_states(rows)


def test_running_daemons_are_healthy_in_every_respect():
    healthy = states(COLLECTOR, AGENT)
    for findings in (
        daemons.daemon_findings(healthy, NOON),
        daemons.version_findings(healthy, NOON),
        daemons.clock_findings(healthy, NOON, NOON),
        daemons.key_findings(healthy, NOON, [KEY]),
        daemons.spool_findings(healthy, NOON),
    ):
        assert levels(findings) == ["ok"]


def test_silent_and_stopped_daemons_are_named_since_when():
    silent = row("meter-compute@host2", seconds=600)
    stopped = row("meter-api@host3", seconds=60, stopping=True)
    found = advised(daemons.daemon_findings(states(COLLECTOR, silent, stopped), NOON))
    assert found[0].startswith("fault: meter-compute@host2 is silent since 2026-11-27 11:50:00 UTC")
    assert found[1] == "warning: meter-api@host3 was stopped at 2026-11-27 11:59:00 UTC"


def test_daemons_that_are_silent_for_a_week_count_as_removed():
    gone = row("meter-compute@old", seconds=8 * 86400)
    found = list(daemons.daemon_findings(states(COLLECTOR, AGENT, gone), NOON))
    assert levels(found) == ["ok", "ok"]
    assert found[1].text == "silent for more than 7 days, and so counted as removed: meter-compute@old"


def test_without_a_collector_nothing_is_said_of_the_others():
    found = list(daemons.daemon_findings(states(row("meter-collector@c1", seconds=900), row("a@b", seconds=900)), NOON))
    assert levels(found) == ["fault", "not checked"]
    assert found[0].text.startswith("meter-collector@c1 is silent since 2026-11-27 11:45:00 UTC")
    never = advised(daemons.daemon_findings(states(row("meter-compute@b", seconds=900)), NOON))
    assert never[0].startswith("fault: no collector runs")
    assert advised(daemons.daemon_findings([], NOON))[0].startswith("warning: no daemon has published")
    assert levels(daemons.key_findings([], NOON, [KEY])) == ["not checked"]


def test_dependencies_that_are_not_ready_and_recent_errors_are_named():
    sick = row(
        "meter-compute@host1",
        dependencies=(DependencyState("libvirt", False, "qemu:///system: refused"),),
        last_error="the cycle failed",
        last_error_at="2026-11-27T11:50:00",
    )
    old = row("meter-central@host1", last_error="long ago", last_error_at="2026-11-26T11:50:00")
    found = advised(daemons.daemon_findings(states(COLLECTOR, sick, old), NOON))
    assert found == [
        "warning: meter-compute@host1: libvirt is not ready: qemu:///system: refused",
        "warning: meter-compute@host1 logged an error at 11:50:00 UTC: the cycle failed",
    ]


def test_versions_that_differ_are_named():
    [found] = advised(daemons.version_findings(states(COLLECTOR, row("meter-compute@h", version="0.0.1")), NOON))
    assert "0.0.1: meter-compute@h" in found


@pytest.mark.parametrize(
    ("ahead", "level", "text"),
    [
        (3600, "fault", "the clock of meter-compute@h is 3600 s ahead of that of the database"),
        (
            -3600,
            "fault",
            "the clock of meter-compute@h is 3600 s behind that of the database, or its heartbeats are late",
        ),
        (10, "warning", "the clock of meter-compute@h is 10 s ahead of"),
    ],
)
def test_a_clock_that_is_off_is_named(ahead, level, text):
    [found] = advised(daemons.clock_findings(states(COLLECTOR, row("meter-compute@h", ahead=ahead)), NOON, NOON))
    assert found.startswith(f"{level}: {text}")


def test_the_clock_of_this_host_is_compared_too():
    [found] = advised(daemons.clock_findings(states(COLLECTOR), NOON, NOON + timedelta(seconds=90)))
    assert found == "fault: the clock of this host is 90 s ahead of that of the database"


def test_two_sets_of_keys_are_named_with_their_fingerprints():
    other = ("new", "1111111111111111")
    agent = row("meter-compute@h", key_ids=(other, KEY))
    [found] = advised(daemons.key_findings(states(COLLECTOR, agent), NOON, [KEY]))
    assert found.startswith(
        "fault: the key new of meter-compute@h (fingerprint 1111111111111111) is missing on a collector"
    )
    assert f"meter-collector@c1 has default {KEY[1]}" in found
    [found] = advised(daemons.key_findings(states(COLLECTOR), NOON, [other]))
    assert found.startswith("fault: the key new of this host (fingerprint 1111111111111111)")
    second = row("meter-collector@c2", key_ids=(other,))
    assert len(advised(daemons.key_findings(states(COLLECTOR, second), NOON, None))) == 2


@pytest.mark.parametrize(
    ("spool", "expected"),
    [
        (SpoolState(9, 600, 1000, 10.0, 10**12), "warning: the spool of meter-compute@h is 60% full with 9 messages"),
        (SpoolState(9, 950, 1000, 10.0, 10**12), "fault: the spool of meter-compute@h is 95% full"),
        (SpoolState(9, 1, 1000, 1000.0, 10**12), "warning: the spool of meter-compute@h is 0% full with 9 messages"),
        (
            SpoolState(0, 0, 10**9, 0.0, 5 * 10**8),
            "warning: the disk of the spool of meter-compute@h has 500.0 MB free",
        ),
        (SpoolState(0, 0, 10**9, 0.0, 10**6), "fault: the disk of the spool of meter-compute@h has 1.0 MB free"),
    ],
)
def test_spools_that_fill_and_disks_that_are_full_are_named(spool, expected):
    [found] = advised(daemons.spool_findings(states(COLLECTOR, row("meter-compute@h", spool=spool)), NOON))
    assert found.startswith(expected)


def test_ten_thousand_silent_agents_are_some_lines_and_a_number():
    rows = [COLLECTOR, *(row(f"meter-compute@h{n}", seconds=900) for n in range(10_000))]
    found = list(daemons.limited(daemons.daemon_findings(states(*rows), NOON)))
    assert len(found) == daemons.MAX_NAMED + 2
    assert found[-1].text == f"{10_000 - daemons.MAX_NAMED} more like these"


def test_a_heartbeat_that_cannot_be_read_is_left_out():
    assert states(AGENT._replace(content="{}"), AGENT._replace(content="no")) == []


# --- secrets -------------------------------------------------------------------------------------------------------

GOOD_KEY = "0123456789abcdef0123456789abcdef"


def secrets(tmp_path, text="", key=GOOD_KEY):
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o700, exist_ok=True)
    path = tmp_path / "meter.toml"
    path.write_text(f'[meter]\nstate_dir = "{state_dir}"\n[signing]\nkey = "{key}"\n{text}')
    path.chmod(0o600)
    config = parse(path.read_text(), "meter-collector", str(path))
    found = list(secret_findings(str(path), config))
    assert key not in as_json(found)
    return found


def test_good_secrets_are_healthy(tmp_path):
    assert levels(secrets(tmp_path)) == ["ok"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[bus]\nurl = "amqps://guest:guest@rabbit1/"\n',
            "fault: [bus] url: the user guest of the broker rabbit1 has a default password",
        ),
        (
            '[bus]\nurl = "amqp://meter:a-good-one@rabbit1/"\n',
            "warning: [bus] url: the password of the broker and all samples",
        ),
        ("accept_unsigned = true\n", "warning: [signing] accept_unsigned"),
        (
            '[store]\ndsn = "postgresql://meter:meter@db1/meter?sslmode=verify-full"\n',
            "fault: [store] dsn: the user meter of the database at db1 has a default password",
        ),
    ],
)
def test_default_secrets_are_named(tmp_path, text, expected):
    [found] = advised(secrets(tmp_path, text))
    assert found.startswith(expected)


@pytest.mark.parametrize("key", ["secret", "change this for valid signing", "short"])
def test_weak_signing_keys_are_named_without_the_key(tmp_path, key):
    state_dir = tmp_path
    state_dir.chmod(0o700)
    config = parse(f'[meter]\nstate_dir = "{state_dir}"\n[signing]\nkey = "{key}"\n', "meter-collector")
    [found] = advised(secret_findings(None, config))
    assert found.startswith("fault: [signing] the key default ")


def test_a_generated_key_that_cannot_be_read_is_not_judged(tmp_path):
    config = parse(f"[meter]\nstate_dir = '{tmp_path}'", "meter-compute")
    config.signing_key_file.mkdir()

    [found] = [each for each in secret_findings(None, config) if "[signing]" in each.text]

    assert (found.level, "cannot be read" in found.text) == ("not checked", True)


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("postgresql://meter@db/meter", "sslmode=prefer connections to db may be unencrypted"),
        (
            "postgresql://meter@db/meter?sslmode=require",
            "sslmode=require connections to db are encrypted, and the cert",
        ),
        ("host=db,127.0.0.1 dbname=meter", "sslmode=prefer connections to db may be unencrypted"),
        ("postgresql://meter@db/meter?sslmode=verify-full", ""),
        ("postgresql://meter@127.0.0.1/meter", ""),
        ("postgresql:///meter?host=/run/postgresql", ""),
        ("embedded:/var/lib/meter/postgresql", ""),
    ],
)
def test_database_on_another_host_that_is_not_verified_is_a_warning(tmp_path, monkeypatch, dsn, words):
    monkeypatch.delenv("PGSSLMODE", raising=False)
    found = advised(secrets(tmp_path, f'[store]\ndsn = "{dsn}"\n'))
    assert len(found) == bool(words)
    assert all(words in each and each.startswith("warning") for each in found)
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert advised(secrets(tmp_path, f'[store]\ndsn = "{dsn.partition("?sslmode=require")[0]}"\n')) == []


def test_files_of_secrets_that_others_can_read_are_named(tmp_path):
    file = tmp_path / "url"
    file.write_text("amqps://meter:a-good-one@rabbit1/")
    file.chmod(0o644)
    [found] = advised(secrets(tmp_path, f'[bus]\nurl_file = "{file}"\n'))
    assert found == f"fault: [bus] url_file: {file} has mode 0644: every user of this host can read the secret"


def test_a_readable_configuration_file_matters_only_if_it_has_secrets(tmp_path):
    path = tmp_path / "meter.toml"
    path.write_text("")
    path.chmod(0o644)
    tmp_path.chmod(0o700)
    plain = parse(f'[meter]\nstate_dir = "{tmp_path}"\n', "meter-collector")
    assert levels(secret_findings(str(path), plain)) == ["ok"]
    secret = parse(f'[meter]\nstate_dir = "{tmp_path}"\n[signing]\nkey = "{GOOD_KEY}"\n', "meter-collector")
    [found] = advised(secret_findings(str(path), secret))
    assert found.startswith("fault: the configuration file, which has secrets,")


# --- certificates --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "expected"), [(-1.0, ["fault"]), (60.0, ["fault"]), (1.9, ["warning"])])
def test_certificates_by_their_times(tmp_path, days, expected):
    # Those of the authority begin two days before they end: one that ends in 60 days has not begun.
    certificate = Authority(tmp_path).issue("server", "localhost", days=days).certificate
    now = datetime.now(UTC)
    found = list(certificates.certificate_findings("[api] listen", "renew it", [certificate], now))
    assert levels(found) == expected
    assert "CN=server of [api] listen" in found[0].text
    assert advised(found)


def test_a_certificate_that_lasts_is_healthy(tmp_path, monkeypatch):
    monkeypatch.setattr(certificates, "SOON", timedelta(hours=1))
    certificate = Authority(tmp_path).issue("server", "localhost").certificate
    [found] = certificates.certificate_findings("x", "renew it", [certificate], datetime.now(UTC))
    assert (found.level, found.text) == ("ok", f"x: valid until {certificate.not_valid_after_utc:%Y-%m-%d}")
    assert list(certificates.certificate_findings("x", "renew it", [], datetime.now(UTC))) == []


def test_certificates_of_listening_ports_and_files_are_found(tmp_path):
    ended = Authority(tmp_path).issue("server", "localhost", days=-1)
    file = ended.cert_file
    config = parse(
        f'[api]\nlisten = "ssl:8777:privateKey={ended.key_file}:certKey={file}:interface=127.0.0.1"\n',
        "meter-collector",
    )
    source = next(certificates.sources(config))
    assert source.label == f"[api] listen, {file}"
    [found] = certificates.certificate_findings(source.label, source.advice, source.read(), datetime.now(UTC))
    assert found.level == "fault"
    assert certificates.listening_certificate("tcp:8777") == ""
    assert certificates.listening_certificate("ssl:443:privateKey=/a\\:b.pem") == "/a:b.pem"


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("postgresql://m:p@db1,db2:5433,db3/meter", ["db1:5432", "db2:5433", "db3:5432"]),
        ("host=db1,db2 port=5433 dbname=meter password='a b'", ["db1:5433", "db2:5433"]),
        ("host=db1 hostaddr=192.0.2.1 sslmode=verify-full", ["db1:5432"]),
        ("postgresql://db1,db2/meter?sslmode=disable", []),
        ("postgresql:///meter?host=/run/postgresql", []),
        ("dbname=meter", []),
        ("embedded:/var/lib/meter/postgresql", []),
    ],
)
def test_certificates_of_each_host_of_the_database_are_found(dsn, expected):
    places = [
        source.label.split(", ")[1] for source in certificates.sources(config_with(dsn)) if "database" in source.label
    ]
    assert places == expected


def test_certificates_that_a_dsn_names_are_found():
    config = config_with("postgresql://db1/meter?sslrootcert=/etc/ca.pem&sslcert=/etc/client.pem&sslkey=/etc/key.pem")
    labels = [source.label for source in certificates.sources(config)]
    assert labels[:2] == ["sslrootcert of [store] dsn, /etc/ca.pem", "sslcert of [store] dsn, /etc/client.pem"]
    config = config_with("postgresql://db1/meter?sslrootcert=system")
    assert not [source for source in certificates.sources(config) if "sslrootcert" in source.label]


def config_with(dsn):
    return parse(f"[store]\ndsn = {json.dumps(dsn)}\n", "meter-collector")


def test_certificates_of_tls_sections_and_of_the_broker_url_are_found(tmp_path):
    issued = Authority(tmp_path).issue("server", "localhost")
    file = issued.cert_file
    config = parse(
        f'[bus]\nurl = "amqps://h/?cacertfile={file}&certfile={file}&keyfile={issued.key_file}"\n'
        f'[api.tls]\ncert_file = "{file}"\nkey_file = "{issued.key_file}"\nclient_ca_file = "{file}"\n'
        f'[status.tls]\ncert_file = "{file}"\nkey_file = "{issued.key_file}"\n',
        "meter-collector",
    )
    labels = [source.label for source in certificates.sources(config)]
    assert [label for label in labels if str(file) in label] == [
        f"{name}, {file}"
        for name in (
            "cacertfile of [bus] url",
            "certfile of [bus] url",
            "[api.tls] cert_file",
            "[api.tls] client_ca_file",
            "[status.tls] cert_file",
        )
    ]
    issued.key_file.chmod(0o644)
    named = [each for each in advised(secret_findings(None, config)) if str(issued.key_file) in each]
    assert [each.split(": ")[1] for each in named] == [
        "[api.tls] key_file",
        "[status.tls] key_file",
        "keyfile of [bus] url",
    ]


# --- status pages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("tcp:8779:interface=127.0.0.1", "http://127.0.0.1:8779/readyz"),
        ("tcp:port=8779", "http://127.0.0.1:8779/readyz"),
        ("tcp6:8779:interface=\\:\\:1", "http://[::1]:8779/readyz"),
        ("tcp:8779:interface=0.0.0.0", "http://127.0.0.1:8779/readyz"),
        ("unix:/run/meter", None),
        ("", None),
    ],
)
def test_urls_of_status_pages(listen, url):
    assert status_url(listen) == url


def test_status_pages_are_asked_once_each():
    config = parse(
        '[status]\nlisten = "tcp:1"\n[status.by_daemon]\nmeter-api = "tcp:2"\nmeter-compute = "tcp:1"\n', "meter-api"
    )
    assert list(status_urls(config).values()) == ["http://127.0.0.1:1/readyz", "http://127.0.0.1:2/readyz"]
    tls = config.status.tls.model_copy(update={"cert_file": "/c"})
    config = config.model_copy(update={"status": config.status.model_copy(update={"tls": tls})})
    assert next(iter(status_urls(config).values())) == "https://127.0.0.1:1/readyz"


def test_what_a_status_page_says():
    ready = {"ready": True, "dependencies": [{"name": "bus", "ready": True, "reason": "x"}]}
    degraded = {"ready": True, "dependencies": [{"name": "bus", "ready": False, "reason": "x"}]}
    assert status_finding("n", "u", ready).level == "ok"
    assert advised([status_finding("n", "u", degraded)]) == ["warning: n, u: degraded: bus: x"]
    assert advised([status_finding("n", "u", {**degraded, "ready": False})]) == ["fault: n, u: not ready: bus: x"]
    assert status_finding("n", "u", []).level == "warning"


# --- the result ----------------------------------------------------------------------------------------------------


def test_the_exit_status_is_that_of_the_worst_finding():
    ok, left_out = Finding("disk", "ok", "x"), Finding("disk", "not checked", "x")
    warning, fault = Finding("disk", "warning", "x", "y"), Finding("disk", "fault", "x", "y")
    assert exit_status([ok, left_out]) == 0
    assert exit_status([ok, warning]) == 1
    assert exit_status([warning, fault, ok]) == 2


def test_the_result_has_each_finding_what_to_do_and_no_secret():
    found = [
        Finding("disk", "fault", "amqp://meter:hunter2@rabbit1/ refused\n\x1b[2J", "renew it"),
        Finding("keys", "ok", "x" * 5000),
    ]
    text = as_text(found)
    assert text.splitlines()[0].startswith("FAULT        disk             amqp://***@rabbit1/ refused")
    assert text.splitlines()[1].strip() == "→ renew it"
    assert text.splitlines()[-1] == "1 fault, 0 warnings, 1 ok, 0 not checked"
    assert "\x1b" not in text
    content = json.loads(as_json(found))
    assert content["worst"] == "fault"
    assert [each["level"] for each in content["findings"]] == ["fault", "ok"]
    assert len(content["findings"][1]["text"]) == 1000
    assert "hunter2" not in as_json(found)
