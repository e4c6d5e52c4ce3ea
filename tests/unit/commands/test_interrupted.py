"""Ctrl-C ends a command with a status of its own: a verification that was interrupted has not verified."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

COMMAND = """
import sys
from twisted.internet.defer import Deferred
from meter.commands.command import CommandOptions, run
from meter.commands.database import connected
from meter.daemon.services import sleep
from meter.interfaces import Unavailable

class Waiting:
    async def open(self): self.answer = Deferred()
    async def interrupt(self): self.close()
    def close(self): self.answer.called or self.answer.errback(Unavailable("closed"))

async def work(reactor, options):
    async with connected(reactor, Waiting, 0.0) as opened:
        await sleep(reactor, 0)  # the reactor has its handlers of signals then
        print("started", flush=True)
        try:
            await ({waited})
        finally:
            print("ended", flush=True)
    return 0

import meter.commands.command
meter.commands.command.MAX_INTERRUPT_SECONDS = 0.1
run(CommandOptions(), [], work)
"""


@pytest.mark.parametrize(("waited", "ended"), [("opened.answer", "ended\n"), ("Deferred()", "")])
def test_interrupted_command_closes_what_it_has_open_and_has_not_succeeded(waited, ended):
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(waited=waited)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, ended)
    assert errors == "interrupted\n"
