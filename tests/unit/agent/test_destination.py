"""The destination of the samples in a spool."""

from __future__ import annotations

import stat

import pytest
import pytest_twisted
from msgspec.structs import replace
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from meter.agent.destination import Destination
from meter.agent.destination import decoded
from meter.agent.destination import encoded
from meter.agent.spool import Spool
from meter.daemon.process_lock import AlreadyLocked
from meter.interfaces import Publication
from meter.settings.config_file import keyring
from meter.settings.config_file import parse
from meter.taps.parts.process_locks import check_spool
from meter.taps.parts.process_locks import claimed
from meter.taps.parts.process_locks import destination

HERE = Destination("rabbit-1", 5672, "/", ("k1", "k2"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"host": "rabbit-2"},
        {"port": 5671},
        {"keys": ("k2", "k3")},
        {"keys": ("k2",)},
    ],
    ids=repr,
)
def test_another_host_name_tls_and_a_rotated_key_are_the_same_destination(changes):
    assert HERE.difference(replace(HERE, **changes)) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"port": 5673}, "rabbit-1:5672, virtual host / instead of rabbit-1:5673, virtual host /"),
        ({"vhost": "b"}, "virtual host b"),
        ({"keys": ("k3",)}, "another signing key"),
        ({"host": "rabbit-2", "own_key": True}, "rabbit-2"),
        ({"host": "", "port": 0, "vhost": ""}, "within the process"),
    ],
)
def test_another_broker_or_key_is_another_destination(changes, words):
    assert words in HERE.difference(replace(HERE, **changes))
    assert replace(HERE, **changes).difference(HERE)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 1}'])
def test_invalid_text_is_not_a_destination(text):
    assert decoded(text) is None


def configured(url, key="secret"):
    config = parse(f'[bus]\nurl = "{url}"\n[signing]\nkey = "{key}"\n', "meter-compute")
    return destination(config, keyring(config))


def test_changed_password_is_the_same_destination_and_is_not_stored():
    before, after = (configured(f"amqp://u:{password}@h/v") for password in ("hunter1", "hunter2"))

    assert before == after
    assert "hunter" not in encoded(before)
    assert "secret" not in encoded(before)
    assert decoded(encoded(before)) == before
    assert before.difference(configured("amqp://u:p@h/v", key="other")) == "another signing key"


@pytest.fixture
def spool(tmp_path):
    def open_for(filled_for):
        return Spool(
            tmp_path / "x.spool",
            max_bytes=10**6,
            max_age_seconds=10**6,
            clock=Clock(),
            run=maybeDeferred,
            filled_for=encoded(filled_for) if filled_for else "",
        )

    return open_for


A_PUBLICATION = Publication(exchange="metering", routing_key="k", body=b"1")


@pytest_twisted.ensureDeferred
async def test_spool_of_another_broker_is_refused_with_advice(spool, tmp_path):
    filled = spool(HERE)
    await filled.put([A_PUBLICATION])
    await filled.close()
    elsewhere = replace(HERE, vhost="b")

    check_spool(tmp_path / "x.spool", HERE)
    with pytest.raises(
        AlreadyLocked, match=r"x.spool holds 1 messages .*virtual host /.* send_to_new_destination = true"
    ):
        check_spool(tmp_path / "x.spool", elsewhere)

    asked = spool(elsewhere)
    assert len(await asked.oldest(10)) == 1
    await asked.close()
    check_spool(tmp_path / "x.spool", elsewhere)


@pytest_twisted.ensureDeferred
async def test_spool_of_an_agent_whose_keys_change_while_it_runs_is_for_the_new_ones(spool, tmp_path):
    filled = spool(HERE)
    await filled.put([A_PUBLICATION])
    await filled.set_destination(encoded(replace(HERE, keys=("new",))))
    await filled.close()
    check_spool(tmp_path / "x.spool", replace(HERE, keys=("new",)))
    with pytest.raises(AlreadyLocked, match="another signing key"):
        check_spool(tmp_path / "x.spool", HERE)


@pytest_twisted.ensureDeferred
async def test_empty_spool_is_accepted_for_any_broker(spool, tmp_path):
    filled = spool(HERE)
    await filled.put([A_PUBLICATION])
    await filled.remove([each.id for each in await filled.oldest(10)])
    await filled.close()

    check_spool(tmp_path / "x.spool", replace(HERE, vhost="b"))


@pytest_twisted.ensureDeferred
async def test_spool_without_a_destination_is_sent(spool, tmp_path):
    older = spool(None)
    await older.put([A_PUBLICATION])
    await older.close()

    check_spool(tmp_path / "x.spool", HERE)


@pytest.mark.parametrize("content", [b"", b"no database"])
def test_file_that_is_not_a_spool_is_not_refused_here(tmp_path, content):
    (tmp_path / "x.spool").write_bytes(content)

    check_spool(tmp_path / "x.spool", HERE)
    check_spool(tmp_path / "none.spool", HERE)


def test_directory_created_for_a_database_is_private(tmp_path):
    state, database = tmp_path / "state", tmp_path / "database"
    locks = list(claimed("meter", {"[meter] state_dir": state, "[store] dsn": database}, {"[status] listen": ""}))

    assert [lock.name for lock in locks] == [f"lock on {each}/meter.lock" for each in (state, database)]
    assert stat.S_IMODE(database.stat().st_mode) == 0o700
    for lock in locks:
        lock.release()
