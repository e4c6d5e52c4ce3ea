"""``meter-dead-letters`` on letters that a daemon without a broker keeps on disk, while that daemon works."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.python import usage

from meter.agent.outbox import Outbox
from meter.agent.spool import Spool
from meter.bus.dead_letter_publisher import DeadLetterPublisher
from meter.bus.local import LocalBus
from meter.commands.command import CommandError
from meter.commands.command import configuration
from meter.commands.command import escape_terminal
from meter.commands.dead_letter_queues import SpooledDeadLetters
from meter.commands.dead_letters import Options
from meter.commands.dead_letters import dead_letters
from meter.commands.dead_letters import drop
from meter.commands.dead_letters import found
from meter.commands.dead_letters import list_letters
from meter.commands.dead_letters import readable
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
    """What of ``twistd meter`` has to do with dead letters: bus, outbox, and a receiver that refuses until it is fixed."""

    def __init__(self, directory: Any) -> None:
        self.clock = Clock()
        self.clock.advance(1_795_000_000)
        self.dead_path, self.outbox_path = directory / "dead-letters.spool", directory / "meter.spool"
        self.dead = self._spool(self.dead_path)
        self.bus = LocalBus(self.clock, keep_dead=lambda publication: self.dead.put([publication]))
        self.dead_letters = DeadLetterPublisher(self.bus, self.clock, of_queue=QUEUE)
        self.outbox = Outbox(
            self._spool(self.outbox_path), self.bus, self.clock, metrics=PublishingMetrics(metrics_registry("meter"))
        )
        self.fixed = False
        self.got: list[Delivery] = []
        binding = Binding("metering", "metering.#", ours=True)
        self.receiver = self.bus.subscribe(Subscription(queue=QUEUE, bindings=(binding,)), self.receive)

    def _spool(self, path: Any) -> Spool:
        return Spool(path, largest_bytes=1_000_000, longest_age_seconds=1e9, clock=self.clock, run=maybeDeferred)

    async def receive(self, delivery: Delivery) -> None:
        if self.fixed:
            self.got.append(delivery)
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

    async def refuse(self, *bodies: bytes) -> None:
        for body in bodies:
            await self.receive(Delivery(body=body, exchange="metering", routing_key="metering.cpu"))

    def box(self, largest_bytes: int = 1_000_000) -> SpooledDeadLetters:
        return SpooledDeadLetters(self.dead_path, self.outbox_path, clock=self.clock, largest_bytes=largest_bytes)


@pytest_twisted.async_yield_fixture
async def single(tmp_path):
    single = Single(tmp_path)
    single.start()
    yield single
    await single.stop()


async def ids(single, kind=None):
    box = single.box()
    await box.open()
    try:
        return [lying.letter.id async for lying in dead_letters(box, kind)]
    finally:
        await box.close()


async def with_box(single, work, **arguments):
    box = single.box(**arguments)
    waiting = await box.open()
    try:
        return await work(box, waiting)
    finally:
        await box.close()


@pytest_twisted.ensureDeferred
async def test_replayed_letters_reach_the_running_daemon_and_are_gone_from_the_disk(single, capsys):
    await single.refuse(*(str(number).encode() for number in range(25)))
    single.fixed = True

    status = await with_box(single, lambda box, _: replay(box, dead_letters(box), force=False))
    assert status == 0
    assert "25 replayed, 0 stay" in capsys.readouterr().out
    single.clock.advance(60)

    assert [int(delivery.body) for delivery in single.got] == list(range(25))
    assert single.got[0].headers["meter-replayed"] == 1
    assert await ids(single) == []
    assert (single.outbox._spool.rows, single.outbox._spool.bytes) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_letters_replayed_while_the_daemon_is_down_are_delivered_at_its_next_start(tmp_path):
    first = Single(tmp_path)
    first.start()
    await first.refuse(b"x")
    await first.stop()
    assert await with_box(first, lambda box, _: replay(box, dead_letters(box), force=False)) == 0

    second = Single(tmp_path)
    second.fixed = True
    second.start()
    second.clock.advance(1)
    assert [delivery.body for delivery in second.got] == [b"x"]
    await second.stop()


@pytest_twisted.ensureDeferred
async def test_letters_are_listed_shown_and_left_where_they_are(single, capsys):
    await single.refuse(b'{"oslo.version":"2.0","oslo.message":"{\\"a\\":\\"Zo\\u00eb\\"}"}', b"\xff\x1b[2J")
    before = await ids(single)

    await with_box(single, lambda box, waiting: list_letters(box, waiting, kind=None, limit=100, as_json=False))
    text = capsys.readouterr().out
    assert before[0][:8] in text
    assert "2026-11-18T11:06:40  invalid" in text
    assert "2 of 2 letters" in text
    await with_box(single, lambda box, waiting: list_letters(box, waiting, kind="other", limit=9, as_json=False))
    assert "0 of 2 letters" in capsys.readouterr().out
    await with_box(single, lambda box, waiting: list_letters(box, waiting, kind=None, limit=1, as_json=True))
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["id"] == before[0]

    await with_box(single, lambda box, _: show(box, "1"))
    assert '"a": "Zoë"' in capsys.readouterr().out
    await with_box(single, lambda box, _: show(box, before[1]))
    text = capsys.readouterr().out
    assert "meter-reason: broken" in text
    assert r"\xff\x1b[2J" in text
    assert await ids(single) == before


@pytest_twisted.ensureDeferred
async def test_a_masked_letter_stays_unless_it_is_forced(single, capsys):
    await single.refuse(b'{"auth_token":"hunter2"}')
    single.fixed = True

    assert await with_box(single, lambda box, _: replay(box, dead_letters(box), force=False)) == 1
    assert "secrets in its body were masked" in capsys.readouterr().err
    assert len(await ids(single)) == 1

    assert await with_box(single, lambda box, _: replay(box, dead_letters(box), force=True)) == 0
    single.clock.advance(60)
    assert [delivery.body for delivery in single.got] == [b'{"auth_token":"***"}']


@pytest_twisted.ensureDeferred
async def test_replaying_does_not_drive_samples_out_of_a_full_outbox(single):
    await single.refuse(b"x" * 100)
    with pytest.raises(Unavailable, match="outbox is full"):
        await with_box(single, lambda box, _: replay(box, dead_letters(box), force=False), largest_bytes=99)
    assert len(await ids(single)) == 1


@pytest_twisted.ensureDeferred
async def test_dropped_letters_are_gone_and_no_others(single):
    await single.refuse(b"a", b"b", b"c")
    before = await ids(single)
    assert await with_box(single, lambda box, _: drop(box, [before[1][:8], before[1]])) == 0
    assert await ids(single) == [before[0], before[2]]


@pytest.mark.parametrize(
    ("word", "complaint"), [("12", "at least 8 characters"), ("00000000", "there is no such letter")]
)
@pytest_twisted.ensureDeferred
async def test_a_letter_that_is_not_there_is_named_before_anything_is_done(single, word, complaint):
    await single.refuse(b"a")
    [good] = await ids(single)
    with pytest.raises(CommandError, match=complaint):
        await with_box(single, lambda box, _: replay(box, found(box, [good, word]), force=False))
    assert await ids(single) == [good]


@pytest_twisted.ensureDeferred
async def test_where_no_daemon_ever_put_anything_aside_there_is_nothing(tmp_path, capsys):
    clock = Clock()
    box = SpooledDeadLetters(tmp_path / "a" / "dead.spool", tmp_path / "a" / "out.spool", clock=clock, largest_bytes=1)
    assert await box.open() == 0
    await list_letters(box, 0, kind=None, limit=1, as_json=False)
    await box.close()
    assert capsys.readouterr().out == "no dead letters\n"
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "words",
    [[], ["replay"], ["replay", "--all", "01234567"], ["drop"], ["show"], ["list", "--limit", "x"], ["bury"]],
)
def test_a_command_line_that_says_too_little_is_refused(words):
    with pytest.raises(usage.UsageError):
        Options().parseOptions(words)


def test_a_file_that_names_no_bus_is_read_as_the_daemon_reads_it_that_has_run(tmp_path):
    file = tmp_path / "meter.toml"
    file.write_text(f'[meter]\nstate_dir = "{tmp_path}"\n')
    assert configuration(str(file)).bus.url.get_secret_value().startswith("amqp:")
    (tmp_path / "meter.spool").touch()
    assert configuration(str(file)).bus.url.get_secret_value() == "local:"


def test_a_file_with_a_local_bus_can_only_be_the_single_daemons(tmp_path):
    file = tmp_path / "meter.toml"
    file.write_text('[bus]\nurl = "local:"\n')
    assert configuration(str(file)).store.dsn.get_secret_value().startswith("embedded:")


def test_what_would_steer_a_terminal_is_escaped():
    assert escape_terminal("Zoë\n\x1b[2J\x9b") == "Zoë\n\\x1b[2J\\x9b"


@pytest.mark.parametrize("body", [b"", b"\xff", b"[" * 100_000, b'{"oslo.message": "no"}'])
def test_a_body_that_cannot_be_laid_out_is_shown_as_it_is(body):
    assert readable(body) == body.decode("utf-8", "backslashreplace")
