"""The audit log has what administrators did, only grows, and shows that it was altered, cut or rewritten."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import msgspec
import psycopg2
import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.defer import maybeDeferred
from twisted.internet.utils import getProcessOutputAndValue

from meter.agent.spool import Spool
from meter.api.auth.requester import Requester
from meter.api.auth.static_tokens import StaticToken
from meter.api.auth.static_tokens import StaticTokens
from meter.bus.dead_letters import DeadLetterPublisher
from meter.interfaces import Delivery
from meter.query import AuditEntry
from meter.query import AuditFilter
from meter.signing_keys import SigningKey
from meter.store.audit.chain import BEGINNING
from meter.store.audit.chain import Anchor
from meter.store.audit.chain import ChainVerifier
from meter.store.audit.chain import canonical_details
from meter.store.audit.chain import entry_hash
from meter.store.audit.log import append
from meter.testing import MemoryStore
from tests.api_client import ApiClient
from tests.integration.test_store_rollups import running

KEY = SigningKey("k1", b"a secret")
AT = datetime(2026, 11, 27, 12, tzinfo=UTC)


def chain(count, key=KEY, **changes):
    """A log of ``count`` entries; ``changes`` are members of all of them."""
    entries, previous = [], BEGINNING
    for seq in range(1, count + 1):
        members = {
            "seq": seq,
            "at": AT + timedelta(seconds=seq),
            "who": "alice",
            "action": "void",
            "reason": "r",
            "details": canonical_details({"n": seq}),
            "key_id": key.id,
            "previous": previous,
            "hash": "",
        }
        entry = AuditEntry(**{**members, **changes})
        entry = msgspec.structs.replace(entry, hash=entry_hash(entry, key.secret))
        entries.append(entry)
        previous = entry.hash
    return entries


def problems(entries, anchors=(), keys=(KEY,), referenced=0):
    verifier = ChainVerifier(keys, anchors, referenced=referenced)
    found = [problem for entry in entries for problem in verifier.problems_of(entry)]
    return [*found, *verifier.problems_at_end()]


def test_unaltered_log_has_no_problems():
    assert problems([]) == []
    entries = chain(5)
    assert problems(entries, [Anchor(5, entries[4].hash.upper()), Anchor(2, entries[1].hash)], referenced=5) == []
    assert problems(entries, keys=[SigningKey("renamed", KEY.secret)]) == []


@pytest.mark.parametrize(
    "change",
    [
        {"who": "bob"},
        {"action": "unvoid"},
        {"reason": ""},
        {"details": "{}"},
        {"at": AT},
        {"key_id": "k2"},
        {"who": "alicevoid", "action": ""},  # the same bytes, between other members
        {"previous": BEGINNING},
        {"hash": "0" * 64},
    ],
    ids=str,
)
def test_altered_entry_is_named(change):
    entries = chain(4)
    entries[2] = msgspec.structs.replace(entries[2], **change)
    assert any("entry 3" in problem for problem in problems(entries))


def test_removed_inserted_and_reordered_entries_are_found():
    assert any(
        "entries 2 to 3 are missing" in each for each in problems([each for each in chain(5) if each.seq not in (2, 3)])
    )
    assert any("missing" in each for each in problems(chain(5)[1:]))
    entries = chain(5)
    renumbered = [msgspec.structs.replace(each, seq=each.seq - 1) for each in entries[1:]]
    assert problems(renumbered)
    assert problems([entries[0], entries[2], entries[1], *entries[3:]])
    assert problems([*entries, entries[4]])


def test_rewriting_the_log_needs_the_key():
    forged = chain(4, SigningKey("k1", b"another secret"), reason="nothing happened")
    assert len([each for each in problems(forged) if "was altered" in each]) == 4
    unknown = chain(4, SigningKey("k9", b"another secret"))
    assert all("signing key 'k9' is missing" in each for each in problems(unknown))


def test_cut_end_and_rewritten_log_are_found_with_a_noted_hash():
    entries = chain(5)
    assert problems(entries[:3]) == []
    [problem] = problems(entries[:3], [Anchor(5, entries[4].hash)])
    assert "the log ends with entry 3, and entry 5 is expected" in problem
    [problem] = problems(entries[:3], referenced=4)
    assert "samples were voided under entry 4" in problem
    rewritten = chain(5, reason="by a holder of the key")
    assert problems(rewritten) == []
    assert any("rewritten" in each for each in problems(rewritten, [Anchor(5, entries[4].hash)]))


TEXTS = st.text(st.characters(codec="utf-8"), max_size=4)


@given(st.tuples(TEXTS, TEXTS, TEXTS), st.tuples(TEXTS, TEXTS, TEXTS))
def test_different_entries_are_hashed_as_different_bytes(one, other):
    hashes = [chain(1, who=who, action=action, reason=reason)[0].hash for who, action, reason in (one, other)]
    assert (hashes[0] == hashes[1]) == (one == other)


# --- on PostgreSQL ---------------------------------------------------------------------------------------------------


@pytest.fixture
def database(postgresql, tmp_path):
    """A database and the commands on it; returns exit status, output and errors."""
    dsn = postgresql.dsn_with_schema()
    file = tmp_path / "meter.toml"
    file.write_text(
        f'[meter]\nstate_dir = "{tmp_path}"\n[bus]\nurl = "local:"\n[store]\ndsn = "{dsn}"\n[signing]\nkey = "k"\n'
    )

    async def command(name, *arguments, config=file):
        out, errors, status = await getProcessOutputAndValue(
            sys.executable,
            ["-c", f"from meter.commands.{name} import main; main()", "--config", str(config), *arguments],
            env=os.environ,
            reactor=reactor,
        )
        return status, out.decode(), errors.decode()

    command.dsn, command.file = dsn, file
    command.execute = lambda statement: postgresql.execute(statement, dsn)
    return command


async def noted(database, *texts):
    """Upgrade the database and note ``texts``; return the printed anchors."""
    await database("db", "upgrade")
    return [(await database("audit", "note", "--who", "alice", text))[1].strip() for text in texts]


@pytest_twisted.ensureDeferred
async def test_database_refuses_to_change_the_log(database):
    await noted(database, "one")
    for statement in ("UPDATE audit_entry SET who = 'bob'", "DELETE FROM audit_entry", "TRUNCATE audit_entry"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="append-only"):
            database.execute(statement)


@pytest.mark.parametrize(
    ("tampering", "problem"),
    [
        ("UPDATE audit_entry SET reason = 'x' WHERE seq = 2", "entry 2 was altered"),
        ("DELETE FROM audit_entry WHERE seq = 2", "entries 2 to 2 are missing"),
        ("DELETE FROM audit_entry WHERE seq = 3", "the log ends with entry 2, and entry 3 is expected"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_verify_finds_what_a_superuser_changed(database, tampering, problem):
    anchors = await noted(database, "one", "two", "three")
    status, out, _ = await database("audit", "verify", "--json", "--expect", anchors[-1])
    assert (status, json.loads(out)) == (0, {"entries": 3, "newest": anchors[-1], "problems": []})

    database.execute(f"ALTER TABLE audit_entry DISABLE TRIGGER USER; {tampering}")
    status, out, _ = await database("audit", "verify", "--json", "--expect", anchors[-1])
    assert status == 1
    assert any(problem in each for each in json.loads(out)["problems"])
    status, out, _ = await database("audit", "verify", "--expect", "3:x")
    assert status == 3


FORGED = (
    "INSERT INTO audit_entry SELECT {seq}, now() + interval '1 day', who, action, 'forged', details, key_id, previous, hash"
    " FROM audit_entry WHERE seq = 1"
)


@pytest_twisted.ensureDeferred
async def test_database_refuses_an_entry_with_a_number_below_one(database):
    await noted(database, "one")
    for seq in (0, -1):
        with pytest.raises(psycopg2.errors.CheckViolation):
            database.execute(FORGED.format(seq=seq))


@pytest.mark.parametrize("seq", [0, -1, -(2**63)])
@pytest_twisted.ensureDeferred
async def test_entry_with_a_number_below_one_is_found_if_a_superuser_inserts_it(database, seq):
    anchors = await noted(database, "one", "two")
    database.execute(
        f"ALTER TABLE audit_entry DROP CONSTRAINT IF EXISTS audit_entry_seq_check; {FORGED.format(seq=seq)}"
    )
    status, out, _ = await database("audit", "verify", "--json", "--expect", anchors[-1])
    report = json.loads(out)
    assert (status, report["entries"], report["newest"]) == (1, 3, anchors[-1])
    assert report["problems"] == [
        f"entry {seq} is not in the chain, which begins with entry 1: it was inserted"
    ]  # and nothing about the true entries


@pytest_twisted.ensureDeferred
async def test_first_entry_does_not_follow_one_with_a_number_below_one(database):
    [first] = await noted(database, "one")
    database.execute(
        "ALTER TABLE audit_entry DROP CONSTRAINT IF EXISTS audit_entry_seq_check;"
        f"{FORGED.format(seq=-1)}; ALTER TABLE audit_entry DISABLE TRIGGER USER; DELETE FROM audit_entry WHERE seq = 1"
    )
    [again] = await noted(database, "one again")
    assert (first != again, again.partition(":")[0]) == (True, "1")
    _, out, _ = await database("audit", "verify", "--json")
    [problem] = json.loads(out)["problems"]
    assert problem.startswith("entry -1 is not in the chain")


@pytest_twisted.ensureDeferred
async def test_concurrent_writers_make_one_chain(database):
    async with running(database.dsn, writers=8) as store:

        async def writer(session, n):
            await append(session, [KEY], who=f"user {n}", action="note", details={"text": "ü\0\ud800"})

        await gatherResults([Deferred.fromCoroutine(store._writers.run(writer, n)) for n in range(40)])
        entries = await store.audit_entries(AuditFilter(), 100)
    assert [each.seq for each in entries] == list(range(40, 0, -1))
    assert problems(entries[::-1]) == []
    assert [each.at for each in entries] == sorted((each.at for each in entries), reverse=True)


@pytest_twisted.ensureDeferred
async def test_act_that_fails_leaves_no_entry(database):
    async with running(database.dsn) as store:

        async def failing(session):
            await append(session, [KEY], who="alice", action="void")
            await session.count("SELECT 1 / 0")

        with pytest.raises(Exception, match="division by zero"):
            await store._writers.run(failing)
        assert list(await store.audit_entries(AuditFilter(), 10)) == []


@pytest_twisted.ensureDeferred
async def test_entries_are_filtered_and_paged_alike_on_postgresql_and_in_memory(database):
    memory = MemoryStore()
    async with running(database.dsn) as store:
        for n in range(6):

            async def note(session, n=n):
                who, action = f"user {n % 2}", ("void", "unvoid", "note")[n % 3]
                return await append(session, [KEY], who=who, action=action, reason=str(n))

            memory.audit_log.append(await store._writers.run(note))
        times = [entry.at for entry in memory.audit_log]
        for filter in (
            AuditFilter(),
            AuditFilter(action="void"),
            AuditFilter(who="user 1"),
            AuditFilter(start=times[2], end=times[4]),
            AuditFilter(action="note", who="user 0"),
        ):
            for limit, before in ((10, None), (2, None), (10, 4)):
                expected = list(await memory.audit_entries(filter, limit, before))
                assert list(await store.audit_entries(filter, limit, before)) == expected


@pytest_twisted.ensureDeferred
async def test_command_without_a_signing_key_cannot_write_the_log(database, tmp_path):
    await noted(database)
    keyless = tmp_path / "keyless.toml"
    keyless.write_text(f'[meter]\nstate_dir = "{tmp_path / "none"}"\n[store]\ndsn = "{database.dsn}"\n')
    status, _, errors = await database("audit", "note", "x", config=keyless)
    assert (status, "the audit log needs a signing key" in errors) == (3, True)


@pytest_twisted.ensureDeferred
async def test_key_of_some_hosts_or_of_ceilometer_cannot_write_the_log(database, tmp_path):
    await noted(database)
    theirs = '[[signing.keys]]\nid = "ceilometer"\nkey = "c"\nschemes = ["ceilometer"]\n'
    for limit in ('meters = ["cpu"]', 'sources = ["hv1"]'):
        limited = tmp_path / "limited.toml"
        ours = f'[[signing.keys]]\nid = "host"\nkey = "h"\n{limit}\n'
        limited.write_text(f'[store]\ndsn = "{database.dsn}"\n{theirs}{ours}')
        status, _, errors = await database("audit", "note", "x", config=limited)
        assert (status, "the audit log needs a signing key for all meters and sources" in errors) == (3, True)


# --- dead letters ----------------------------------------------------------------------------------------------------


@pytest.fixture
def dead_letters(tmp_path):
    """Puts dead letters into the spool of a ``twistd meter``; returns their ids."""

    async def dead_letters(*bodies):
        path = tmp_path / "dead-letters.spool"
        spool = Spool(path, max_bytes=10**9, max_age_seconds=1e9, clock=reactor, run=maybeDeferred)

        class Publisher:
            async def publish(self, publication):
                await spool.put([publication])

        publisher = DeadLetterPublisher(Publisher(), reactor, source_queue="meter.metering")
        for body in bodies:
            origin = Delivery(body=body, exchange="metering", routing_key="metering.x")
            await publisher.dead_letter(body=body, reason="the test says so", origin=origin, kind="invalid")
        await spool.close()

    return dead_letters


async def listed(database):
    out = (await database("dead_letters", "list", "--json"))[1]
    return [json.loads(line)["id"] for line in out.splitlines()]


@pytest_twisted.ensureDeferred
async def test_replay_and_discard_are_recorded_before_they_are_done(database, dead_letters):
    await noted(database)
    await dead_letters(b"one", b"two", b"three")
    first, second, third = await listed(database)
    status, _, errors = await database("dead_letters", "discard", "--who", "alice", "--reason", "rubbish", first)
    assert (status, errors) == (0, "")
    status, _, errors = await database("dead_letters", "replay", "--all")
    assert (status, errors) == (0, "")

    out = (await database("audit", "list", "--json"))[1]
    replayed, discarded = [json.loads(line) for line in out.splitlines()]
    assert (discarded["action"], discarded["who"], discarded["reason"]) == ("dead-letter.discard", "alice", "rubbish")
    assert [each["id"] for each in discarded["details"]["dead_letters"]] == [first]
    assert discarded["details"]["dead_letters"][0]["kind"] == "invalid"
    assert replayed["action"] == "dead-letter.replay"
    assert [each["id"] for each in replayed["details"]["dead_letters"]] == [second, third]


@pytest_twisted.ensureDeferred
async def test_while_the_log_is_away_nothing_is_done_unless_it_is_said_to_be_unrecorded(
    database, dead_letters, tmp_path
):
    await dead_letters(b"one", b"two")
    first, second = await listed(database)
    away = tmp_path / "away.toml"
    away.write_text(database.file.read_text().replace(database.dsn, "postgresql://meter@127.0.0.1:9/none"))

    status, _, errors = await database("dead_letters", "discard", first, config=away)
    assert (status, "nothing was done" in errors, "--unrecorded" in errors) == (2, True, True)
    assert await listed(database) == [first, second]

    status, _, errors = await database("dead_letters", "discard", "--unrecorded", first, second, config=away)
    assert (status, errors.count("NOT RECORDED")) == (0, 1)
    assert await listed(database) == []


# --- the API ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def api():
    def token(text, requester):
        return StaticToken(hashlib.sha256(text.encode()).hexdigest(), requester)

    client = ApiClient(
        auth=StaticTokens(
            [token("admin", Requester(is_admin=True)), token("tenant", Requester(is_admin=False, project_id="p"))]
        )
    )
    client.store.audit_log += chain(5)
    return client


def test_administrators_read_the_log_in_pages(api):
    admin = {"X-Auth-Token": "admin"}
    first = api("/v2/audit-log?limit=2", headers=admin)
    assert [each["seq"] for each in first.json] == [5, 4]
    assert first.json[0] == {
        "seq": 5,
        "at": "2026-11-27T12:00:05",
        "who": "alice",
        "action": "void",
        "reason": "r",
        "details": {"n": 5},
        "key_id": "k1",
        "previous": first.json[1]["hash"],
        "hash": first.json[0]["hash"],
    }
    path = first.headers["link"].split(">")[0].lstrip("<").partition("/v2")[2]
    second = api(f"/v2{path}", headers=admin)
    assert [each["seq"] for each in second.json] == [3, 2]
    assert api("/v2/audit-log?action=unvoid", headers=admin).json == []
    found = api("/v2/audit-log?who=alice&start=2026-11-27T12:00:02&end=2026-11-27T12:00:04", headers=admin)
    assert [each["seq"] for each in found.json] == [3, 2]


@pytest.mark.parametrize(
    "query", ["marker=x", "marker=-1", f"marker={'9' * 30}", "marker=", "start=noon", "limit=0", "who="]
)
def test_invalid_argument_is_400(api, query):
    assert api(f"/v2/audit-log?{query}", headers={"X-Auth-Token": "admin"}).status == 400


def test_log_is_403_for_tenants_and_401_without_a_token(api):
    assert api("/v2/audit-log", headers={"X-Auth-Token": "tenant"}).status == 403
    assert api("/v2/audit-log").status == 401


def test_openapi_describes_the_log(api):
    assert "/v2/audit-log" in api("/openapi.json").json["paths"]
