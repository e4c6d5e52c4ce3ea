"""A price directory that changes while a reactor uses it."""

from __future__ import annotations

from pathlib import Path

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from meter.rating.book.watched_directory import WatchedPriceDirectory

HEADER = """
[[book]]
name = "euro"
currency = "EUR"
timezone = "Europe/Paris"
issuer = "x"
[[sku]]
id = "vm"
usage = "exists"
resource_kind = "instance"
unit = "Hours"
by = ["flavor"]
"""


def text(prices: int) -> str:
    tables = [f'[[price]]\nsku = "vm"\nmatch = {{flavor = "f{number}"}}\nprice = "1"\n' for number in range(prices)]
    return HEADER + "".join(tables)


@pytest_twisted.ensureDeferred
async def test_large_directory_is_read_beside_the_reactor_and_again_when_it_changed(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text(2000))
    watched = WatchedPriceDirectory(tmp_path, reactor)  # type: ignore[arg-type]
    turns: list[None] = []
    counting = LoopingCall(turns.append, None)
    ended = counting.start(0.001)
    reading = Deferred.fromCoroutine(watched.current())
    before = len(turns)
    directory = await reading
    counting.stop()
    await ended
    assert len(directory.books["euro"].prices) == 2000
    assert len(turns) - before > 10  # it takes a second; one that holds the reactor leaves one turn at most
    file.write_text(text(3))
    watched._checked_at = None  # the time of the next look has come
    assert len((await watched.current()).books["euro"].prices) == 3
