"""``meter-dead-letters`` on the spool of a daemon without a broker, while that daemon runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.python import usage

from meter.agent.outbox import Outbox
from meter.agent.spool import Spool
from meter.bus.dead_letter_advice import KIND_ADVICE
from meter.bus.dead_letter_queues import SpooledDeadLetters
from meter.bus.dead_letter_replay import entries
from meter.bus.dead_letter_replay import entries_by_id
from meter.bus.dead_letter_replay import pretty_body
from meter.bus.dead_letters import DEAD_LETTER_KINDS
from meter.bus.dead_letters import DeadLetterPublisher
from meter.bus.local import LocalBus
from meter.commands.command import CommandError
from meter.commands.command import configuration
from meter.commands.command import escape_terminal
from meter.commands.dead_letters import Options
from meter.commands.dead_letters import discard
from meter.commands.dead_letters import list_dead_letters
from meter.commands.dead_letters import replay
from meter.commands.dead_letters import show
from meter.daemon.metrics import PublishingMetrics
from meter.daemon.metrics import metrics_registry
from meter.interfaces import Binding
from meter.interfaces import Delivery
from meter.interfaces import Subscription
from meter.interfaces import Unavailable

QUEUE = "meter.metering"


class Single:
    """The parts of ``twistd meter`` that deal with dead letters: bus, outbox, and a receiver that fails until ``fixed``."""

    def __init__(self, directory: Any) -> None:
        self.clock = Clock()
        self.clock.advance(1_795_000_000)
        self.dead_path, self.outbox_path = directory / "dead-letters.spool", directory / "meter.spool"
        self.dead = self._spool(self.dead_path)
        self.bus = LocalBus(self.clock, store_dead_letter=lambda publication: self.dead.put([publication]))
        self.dead_letters = DeadLetterPublisher(self.bus, self.clock, source_queue=QUEUE)
        self.outbox = Outbox(
            self._spool(self.outbox_path), self.bus, self.clock, metrics=PublishingMetrics(metrics_registry("meter"))
        )
        self.fixed = False
        self.received: list[Delivery] = []
        binding = Binding("metering", "metering.#", ours=True)
        self.receiver = self.bus.subscribe(Subscription(queue=QUEUE, bindings=(binding,)), self.receive)

    def _spool(self, path: Any) -> Spool:
        return Spool(path, max_bytes=1_000_000, max_age_seconds=1e9, clock=self.clock, run=maybeDeferred)

    async def receive(self, delivery: Delivery) -> None:
        if self.fixed:
            self.received.append(delivery)
        else:
            await self.dead_letters.dead_letter(body=delivery.body, reason="broken", origin=delivery, kind="invalid")

    def start(self) -> None:
        self.receiver.startService()
        self.outbox.startService()

    async def stop(self) -> None:
        await self.receiver.stopService()
        stopping = self.outbox.stopService()
        self.clock.advance(1)
        await stopping
        await self.dead.close()

    async def dead_letter(self, *bodies: bytes) -> None:
        for body in bodies:
            await self.receive(Delivery(body=body, exchange="metering", routing_key="metering.cpu"))

    def queue(self, max_bytes: int = 1_000_000) -> SpooledDeadLetters:
        return SpooledDeadLetters(self.dead_path, self.outbox_path, clock=self.clock, max_bytes=max_bytes)


async def record(action, details):
    """The audit log is away from these tests: tests/security/test_audit_log.py has one."""


@pytest_twisted.async_yield_fixture
async def single(tmp_path):
    single = Single(tmp_path)
    single.start()
    yield single
    await single.stop()


async def ids(single, kind=None):
    queue = single.queue()
    await queue.open()
    try:
        return [entry.dead_letter.id async for entry in entries(queue, kind)]
    finally:
        await queue.close()


async def with_queue(single, work, **arguments):
    queue = single.queue(**arguments)
    total = await queue.open()
    try:
        return await work(queue, total)
    finally:
        await queue.close()


@pytest_twisted.ensureDeferred
async def test_replayed_dead_letters_reach_the_running_daemon_and_leave_the_disk(single, capsys):
    await single.dead_letter(*(str(number).encode() for number in range(25)))
    single.fixed = True

    status = await with_queue(single, lambda queue, _: replay(queue, entries(queue), record, force=False))
    assert status == 0
    assert "25 replayed, 0 kept" in capsys.readouterr().out
    single.clock.advance(60)

    assert [int(delivery.body) for delivery in single.received] == list(range(25))
    assert single.received[0].headers["meter-replayed"] == 1
    assert await ids(single) == []
    assert (single.outbox._spool.rows, single.outbox._spool.bytes) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_dead_letters_replayed_while_the_daemon_is_down_are_delivered_at_its_next_start(tmp_path):
    first = Single(tmp_path)
    first.start()
    await first.dead_letter(b"x")
    await first.stop()
    assert await with_queue(first, lambda queue, _: replay(queue, entries(queue), record, force=False)) == 0

    second = Single(tmp_path)
    second.fixed = True
    second.start()
    second.clock.advance(1)
    assert [delivery.body for delivery in second.received] == [b"x"]
    await second.stop()


@pytest_twisted.ensureDeferred
async def test_list_and_show_leave_dead_letters_in_the_queue(single, capsys):
    await single.dead_letter(b'{"oslo.version":"2.0","oslo.message":"{\\"a\\":\\"Zo\\u00eb\\"}"}', b"\xff\x1b[2J")
    before = await ids(single)

    await with_queue(single, lambda queue, total: list_dead_letters(queue, total, kind=None, limit=100, as_json=False))
    text = capsys.readouterr().out
    assert before[0][:8] in text
    assert "2026-11-18T11:06:40  invalid" in text
    assert "2 of 2 dead letters" in text
    await with_queue(single, lambda queue, total: list_dead_letters(queue, total, kind="other", limit=9, as_json=False))
    assert "0 of 2 dead letters" in capsys.readouterr().out
    await with_queue(single, lambda queue, total: list_dead_letters(queue, total, kind=None, limit=1, as_json=True))
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["id"] == before[0]

    await with_queue(single, lambda queue, _: show(queue, "1"))
    assert '"a": "Zoë"' in capsys.readouterr().out
    await with_queue(single, lambda queue, _: show(queue, before[1]))
    text = capsys.readouterr().out
    assert "meter-reason: broken" in text
    assert r"\xff\x1b[2J" in text
    assert await ids(single) == before


@pytest_twisted.ensureDeferred
async def test_masked_dead_letter_is_replayed_only_with_force(single, capsys):
    await single.dead_letter(b'{"auth_token":"hunter2"}')
    single.fixed = True

    assert await with_queue(single, lambda queue, _: replay(queue, entries(queue), record, force=False)) == 1
    assert "secrets in its body are masked" in capsys.readouterr().err
    assert len(await ids(single)) == 1

    assert await with_queue(single, lambda queue, _: replay(queue, entries(queue), record, force=True)) == 0
    single.clock.advance(60)
    assert [delivery.body for delivery in single.received] == [b'{"auth_token":"***"}']


@pytest_twisted.ensureDeferred
async def test_replay_into_a_full_outbox_fails_and_evicts_no_sample(single):
    await single.dead_letter(b"x" * 100)
    with pytest.raises(Unavailable, match="outbox is full"):
        await with_queue(single, lambda queue, _: replay(queue, entries(queue), record, force=False), max_bytes=99)
    assert len(await ids(single)) == 1


@pytest_twisted.ensureDeferred
async def test_discard_deletes_the_given_dead_letters_only(single):
    await single.dead_letter(b"a", b"b", b"c")
    before = await ids(single)
    assert await with_queue(single, lambda queue, _: discard(queue, [before[1][:8], before[1]], record)) == 0
    assert await ids(single) == [before[0], before[2]]


@pytest.mark.parametrize(
    ("word", "complaint"), [("12", "at least the first 8 characters"), ("00000000", "no such dead letter")]
)
@pytest_twisted.ensureDeferred
async def test_unknown_id_is_reported_before_anything_is_replayed(single, word, complaint):
    await single.dead_letter(b"a")
    [good] = await ids(single)
    with pytest.raises(CommandError, match=complaint):
        await with_queue(
            single, lambda queue, _: replay(queue, entries_by_id(entries(queue), [good, word]), record, force=False)
        )
    assert await ids(single) == [good]


@pytest_twisted.ensureDeferred
async def test_queue_without_a_spool_file_is_empty_and_creates_none(tmp_path, capsys):
    clock = Clock()
    queue = SpooledDeadLetters(tmp_path / "a" / "dead.spool", tmp_path / "a" / "out.spool", clock=clock, max_bytes=1)
    assert await queue.open() == 0
    await list_dead_letters(queue, 0, kind=None, limit=1, as_json=False)
    await queue.close()
    assert capsys.readouterr().out == "no dead letters\n"
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["replay"],
        ["replay", "--all", "01234567"],
        ["discard"],
        ["show"],
        ["list", "--limit", "x"],
        ["bury"],
        ["drop", "01234567"],
    ],
)
def test_incomplete_command_line_is_a_usage_error(words):
    with pytest.raises(usage.UsageError):
        Options().parseOptions(words)


def test_configuration_without_a_bus_is_that_of_the_daemon_that_has_run(tmp_path):
    file = tmp_path / "meter.toml"
    file.write_text(f'[meter]\nstate_dir = "{tmp_path}"\n')
    assert configuration(str(file)).bus.url.get_secret_value().startswith("amqp:")
    (tmp_path / "meter.spool").touch()
    assert configuration(str(file)).bus.url.get_secret_value() == "local:"


def test_configuration_with_a_local_bus_is_that_of_the_single_daemon(tmp_path):
    file = tmp_path / "meter.toml"
    file.write_text('[bus]\nurl = "local:"\n')
    assert configuration(str(file)).store.dsn.get_secret_value().startswith("embedded:")


def test_terminal_control_characters_are_escaped():
    assert escape_terminal("Zoë\n\x1b[2J\x9b") == "Zoë\n\\x1b[2J\\x9b"


@pytest.mark.parametrize("body", [b"", b"\xff", b"[" * 100_000, b'{"oslo.message": "no"}'])
def test_body_that_is_not_json_is_shown_unchanged(body):
    assert pretty_body(body) == body.decode("utf-8", "backslashreplace")


@pytest.mark.parametrize("command", [["list"], ["replay", "--all"]])
def test_unknown_kind_is_refused_with_those_that_exist(command):
    with pytest.raises(usage.UsageError, match="there is no kind 'unverifed'; known: undecodable, invalid, unverified"):
        Options().parseOptions([*command, "--kind", "unverifed"])
    Options().parseOptions([*command, "--kind", "unverified"])


def test_documented_kinds_of_dead_letters_are_those_that_exist():
    page = (Path(__file__).parents[3] / "docs/dead-letters.rst").read_text()
    table = page.partition("Kind           Cause")[2].split("=====\n")[1]
    kinds = [line.split()[0] for line in table.splitlines() if line[:1].isalpha()]
    assert kinds == list(DEAD_LETTER_KINDS)
    assert set(kinds) == set(KIND_ADVICE)
