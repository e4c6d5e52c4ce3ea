"""``meter-verify``: results for rows, reports, and options."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from msgspec import structs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python import usage

from meter.ceilometer_signature import signature
from meter.commands.row_verifier import BATCH_WRITING_SECONDS
from meter.commands.row_verifier import FIRST_PAUSE_SECONDS
from meter.commands.row_verifier import RowVerifier
from meter.commands.verify import Options
from meter.commands.verify import report
from meter.message import read
from meter.sample_identity import week_of
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.signing_keys import keyring
from meter.store import BatchRows
from meter.store import LostWeek
from meter.store import StoredRow
from meter.store.write.record import record_of
from meter.stored_batch import StoredBatch
from meter.stored_batch import UnstoredEntry
from meter.stored_batch import checks_of
from tests.signed import received_together
from tests.store_messages import KEYS
from tests.store_messages import SECRET
from tests.store_messages import UNSIGNED
from tests.store_messages import message
from tests.store_messages import sample

IDS = tuple(f"00000000-0000-4000-8000-00000000000{n}" for n in range(3))
SENT = received_together([sample("cpu", 5 + n, at=n, message_id=id) for n, id in enumerate(IDS)], KEYS)


def row_of(sent, batch_id=1):
    return StoredRow(
        message_id=sent.message_id,
        timestamp=sent.timestamp,
        meter=sent.name,
        resource_id=sent.resource_id,
        key_id=sent.key_id,
        scheme=sent.scheme,
        batch_id=batch_id if sent.entry else 0,
        batch_position=sent.entry.position if sent.entry else 0,
        fields=sent.fields,
        damage=None,
        record=record_of(sent),
    )


ROWS = [row_of(sent) for sent in SENT]
ROW = ROWS[0]
FOREIGN_FIELDS = {**SENT[0].fields, "resource_metadata": {}}
FOREIGN = row_of(read(FOREIGN_FIELDS | {"message_signature": signature(FOREIGN_FIELDS, SECRET)}, KEYS))
BATCH = SENT[0].entry.batch


class Rows:
    """The rows of a store with one signed batch, whose id is 1."""

    def __init__(self, rows=ROWS, unstored=(), cutoffs=None, lost=(), **batch):
        self.lost = lost
        self.rows, self.unstored, self.changes, self.cutoffs = list(rows), list(unstored), batch, cutoffs or {}
        self.reads = []

    async def batches(self, ids):
        self.reads.append(sorted(ids))
        if 1 not in ids or self.changes.get("missing"):
            return {}
        rows = [row for row in self.rows if row.batch_id == 1]
        batch = {
            "id": BATCH.id,
            "key_id": BATCH.key_id,
            "first": BATCH.first,
            "last": BATCH.last,
            "mac": BATCH.mac,
            "checks": checks_of(BATCH.digests),
            "messages": [(row.batch_position, row.fields) for row in rows],
            "unstored": self.unstored,
            **self.changes,
        }
        return {1: BatchRows(StoredBatch(**batch), rows)}

    async def retention_cutoffs(self):
        return self.cutoffs

    async def lost_weeks(self, start, end):
        return [LostWeek(week, "cold", 7, week, 3) for week in self.lost]


class ImpatientClock(Clock):
    """A clock on which every delay ends at once."""

    def callLater(self, delay, function, *arguments, **more):  # Twisted's name
        self.waited = delay
        function(*arguments, **more)


def findings(rows=None, store=None, keys=UNSIGNED, accept_unsigned=True):
    """Return the verdicts on ``rows``, by default all of ``store``."""
    store = store or Rows()
    verifier = RowVerifier(store, keys, ImpatientClock(), accept_unsigned=accept_unsigned)
    found = []
    Deferred.fromCoroutine(verifier.verdicts(store.rows if rows is None else rows)).addCallback(found.extend)
    return found


def verdict_on(row, store=None, **more):
    """Return the verdict on ``row``, which replaces the first row of the store; those on missing messages come before."""
    store = store or Rows([row, *ROWS[1:]] if row.batch_id else [row])
    return findings([row], store, **more)[-1][1]


def altered(row=ROW, **fields):
    return replace(row, fields={**row.fields, **fields})


def test_message_of_a_batch_in_a_lost_week_is_not_missing():
    week = week_of(SENT[0].timestamp)
    for lost, states in (
        ([week], ["verified"] * 2),
        ([week - timedelta(weeks=1)], ["missing", "verified", "verified"]),
    ):
        assert [each.state for _, each in findings(store=Rows(ROWS[1:], lost=lost))] == states


def test_unchanged_rows_are_verified_with_the_batch_that_is_read_once():
    store = Rows()
    found = findings(store=store)
    assert [(each.state, each.key_id, each.scheme) for _, each in found] == [("verified", "key-1", "meter")] * 3
    assert store.reads == [[1]]


def test_row_with_ceilometers_signature_alone_is_verified_as_such():
    found = verdict_on(FOREIGN)
    assert (found.state, found.key_id, found.scheme) == ("verified", "key-1", "ceilometer")
    assert verdict_on(altered(FOREIGN, counter_volume=6)).state == "failed"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (altered(counter_volume=6), "the row was altered or added"),
        (altered(counter_volume=5.0), "the row was altered or added"),
        (altered(timestamp="never"), "timestamp must be a time"),
        (altered(note=""), "the row was altered or added"),
        (replace(ROW, fields=None, damage="no message can be restored"), "no message can be restored"),
        (replace(ROW, damage="the metadata that queries read differ"), "the metadata that queries read"),
        (replace(ROW, record=structs.replace(ROW.record, volume=6.0)), "differs from the column volume"),
        (replace(ROW, timestamp=datetime(2026, 1, 1, tzinfo=UTC)), "its timestamp is outside the times of its batch"),
        (replace(ROW, key_id="other"), "its row names other"),
        (replace(ROW, batch_position=7), "the batch was signed with 3 messages, and this is number 7"),
        (replace(ROW, batch_id=9), "the record of its signed batch is missing"),
        (replace(ROW, batch_id=0, key_id="key-1"), "the signature that key key-1 verified on arrival is missing"),
        (altered(FOREIGN, counter_volume=6), "the signature does not match"),
        (altered(FOREIGN, message_signature=""), "verified on arrival is missing"),
    ],
)
def test_changed_row_fails_with_a_reason(row, reason):
    found = verdict_on(row)
    assert found.state == "failed"
    assert reason in found.reason


def test_swapped_rows_both_fail():
    swapped = [
        replace(ROWS[0], batch_position=1),
        replace(ROWS[1], batch_position=0),
        ROWS[2],
    ]
    assert [each.state for _, each in findings(store=Rows(swapped))] == ["failed", "failed", "verified"]


def test_added_row_fails_and_the_others_do_not():
    added = altered(replace(ROW, message_id="another"), message_id="another")
    found = findings(store=Rows([*ROWS, added]))
    assert [(row.message_id, each.state) for row, each in found if each.state != "verified"] == [("another", "failed")]


def test_removed_row_is_reported_as_missing_after_several_looks():
    store = Rows(ROWS[:2])
    [missing, *others] = findings(store=store)
    assert missing[1].state == "missing"
    assert missing[1].reason == f"message 2 of the batch {BATCH.id}, of which this is a row, is gone"
    assert [each.state for _, each in others] == ["verified", "verified"]
    assert store.reads == [[1]] * 4


def test_row_that_is_written_while_the_batch_is_read_is_not_missing():
    store = Rows(ROWS[:2])
    read = store.batches

    async def written_later(ids):
        if len(store.reads) == 2:
            store.rows = list(ROWS)
        return await read(ids)

    store.batches = written_later
    assert [each.state for _, each in findings(store=store)] == ["verified", "verified"]
    assert store.reads == [[1]] * 3


def test_once_something_is_missing_for_good_others_are_waited_for_shortly():
    store, clock = Rows(ROWS[:2]), ImpatientClock()
    verifier = RowVerifier(store, UNSIGNED, clock, accept_unsigned=True)
    Deferred.fromCoroutine(verifier.verdicts(store.rows))
    assert clock.waited == BATCH_WRITING_SECONDS
    verifier._known.clear()
    store.reads.clear()

    Deferred.fromCoroutine(verifier.verdicts(store.rows))

    assert clock.waited == FIRST_PAUSE_SECONDS
    assert store.reads == [[1]] * 2


def test_message_that_retention_may_have_deleted_is_not_missing():
    for meter in ("", "cpu"):
        cutoff = SENT[0].timestamp + timedelta(seconds=1)
        assert [each.state for _, each in findings(store=Rows(ROWS[1:], cutoffs={meter: cutoff}))] == ["verified"] * 2
    [first, *_] = findings(store=Rows(ROWS[1:], cutoffs={"memory": cutoff, "": SENT[0].timestamp}))
    assert first[1].state == "missing"


def unstored(**changes):
    """Return the collector's statement that the last message is a duplicate, with ``changes``."""
    entry = SENT[2].entry
    stated = UnstoredEntry(entry.position, entry.digest, "duplicate", entry.unstored_mac("duplicate"))
    return stated._replace(**changes)


def test_entry_that_the_collector_states_to_be_unstored_is_not_missing():
    store = Rows(ROWS[:2], unstored=[unstored()])
    assert [each.state for _, each in findings(store=store)] == ["verified", "verified"]


@pytest.mark.parametrize("change", [{"reason": "refused"}, {"mac": bytes(32)}, {"digest": bytes(32)}, {"position": 1}])
def test_forged_statement_that_an_entry_is_unstored_is_reported(change):
    found = findings(store=Rows(ROWS[:2], unstored=[unstored(**change)]))
    assert ("failed", True) in [(each.state, "is not the collector's" in (each.reason or "")) for _, each in found]


@pytest.mark.parametrize(
    "change", [{"mac": bytes(32)}, {"first": "2026-11-18T11:59:59"}, {"last": "2026-11-18T12:00:03"}]
)
def test_altered_record_of_a_batch_fails_all_its_rows(change):
    found = findings(store=Rows(**change))
    assert [each.state for _, each in found] == ["failed"] * 3
    assert all("the record of the batch was altered" in each.reason for _, each in found)


@pytest.mark.parametrize("change", [{"id": "00000000-0000-4000-8000-000000000000"}, {"checks": bytes(12)}])
def test_altered_id_or_checks_of_a_batch_fail_all_its_rows(change):
    assert [each.state for _, each in findings(store=Rows(**change))] == ["failed"] * 3


def test_batch_of_an_unknown_key_fails_its_rows():
    found = findings(keys=Keyring([SigningKey("other", b"other")], accept_unsigned=True))
    assert {(each.state, each.reason) for _, each in found} == {
        ("failed", "its batch is signed with the key key-1, which [signing] does not have")
    }


def test_batch_of_a_key_that_may_not_sign_the_meter_fails_its_rows():
    limited = Keyring([SigningKey("key-1", SECRET, meters=("disk.*",))], accept_unsigned=True)
    assert {(each.state, each.reason) for _, each in findings(keys=limited)} == {
        ("failed", "key key-1, which signed the batch, may not sign samples of the meter cpu")
    }


def test_unsigned_row_is_reported_only_if_unsigned_samples_are_not_accepted():
    fields = {name: value for name, value in SENT[0].fields.items() if name != "message_signature"}
    unsigned = row_of(read(fields, UNSIGNED))
    assert (verdict_on(unsigned).state, verdict_on(unsigned).reason) == ("unsigned", None)
    assert "does not accept" in verdict_on(unsigned, accept_unsigned=False).reason


def test_sample_that_the_upgrade_of_the_schema_voided_is_verified_although_its_volume_is_out_of_bounds():
    fields = {**FOREIGN_FIELDS, "counter_volume": 1e31}
    fields["message_signature"] = signature(fields, SECRET)
    record = structs.replace(FOREIGN.record, volume=1e31, signature=fields["message_signature"])
    voided = replace(FOREIGN, fields=fields, record=record, audit_seq=0)
    assert verdict_on(voided).state == "voided"
    assert "does not match" in verdict_on(altered(voided, counter_volume=1e32)).reason
    assert "volume" in verdict_on(replace(voided, record=structs.replace(record, volume=1e32))).reason
    assert "in the bounds" in verdict_on(replace(FOREIGN, audit_seq=0)).reason
    assert verdict_on(replace(voided, audit_seq=5)).state == "failed"


def test_metadata_in_another_notation_are_equal():
    sent = message("cpu", 5, metadata={"a": 1e22})
    row = replace(FOREIGN, message_id=sent.message_id, fields=sent.fields, batch_id=0)
    row = replace(row, record=structs.replace(record_of(sent), metadata='{"a": 1e+22}'))
    assert row.difference(sent) is None
    assert "metadata" in replace(row, record=structs.replace(row.record, metadata='{"a": 1e23}')).difference(sent)


async def verdicts(verifier, *pages):
    for each in pages:
        yield await verifier.verdicts(each)


@pytest_twisted.ensureDeferred
async def test_failed_rows_are_reported_and_all_rows_counted(capsys):
    bad = replace(altered(FOREIGN, counter_volume=6), resource_id="a\nb\x1b[2J")
    verifier = RowVerifier(Rows(), UNSIGNED, ImpatientClock(), accept_unsigned=False)
    tally = await report(verdicts(verifier, ROWS[:2], [bad, FOREIGN], ROWS[2:]), [], as_json=False)
    assert (tally.states, tally.reported) == (
        {"verified": 4, "unsigned": 0, "voided": 0, "failed": 1, "missing": 0},
        1,
    )
    assert (tally.keys, tally.schemes, verifier.batches) == ({"key-1": 4}, {"meter": 3, "ceilometer": 1}, 1)
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"FAILED    {IDS[0]}  cpu  a b\\x1b[2J  2026-11-18T12:00:00  the signature")

    other = RowVerifier(Rows(), keyring(["other"]), ImpatientClock(), accept_unsigned=False)
    await report(verdicts(other, [bad]), [], as_json=True)
    assert json.loads(capsys.readouterr().out)["state"] == "failed"


@pytest.mark.parametrize("words", [["--from", "yesterday"], ["--to", "2026-13-01"], ["--limit", "5"], ["extra"]])
def test_invalid_command_line_is_refused(words):
    with pytest.raises(usage.UsageError):
        Options().parseOptions(words)


def test_times_without_an_offset_are_utc():
    options = Options()
    options.parseOptions(["--from", "2026-11-22", "--to", "2026-11-22T12:00:00+02:00"])
    assert options["from"] == datetime(2026, 11, 22, tzinfo=UTC)
    assert options["to"] == datetime(2026, 11, 22, 10, tzinfo=UTC)
