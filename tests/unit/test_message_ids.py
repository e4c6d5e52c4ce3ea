"""Message ids: unique by construction, and of a form that compresses from poll to poll."""

import os
import time
import uuid
from itertools import pairwise

import pytest

from meter import message_ids
from meter.message_ids import MAX_EARLY_MILLISECONDS
from meter.message_ids import PollIds
from meter.message_ids import new_message_id

NOON = 1_795_262_400_000


class Now:
    """A clock in milliseconds."""

    def __init__(self):
        self.now = NOON

    def __call__(self):
        return self.now


@pytest.fixture
def now():
    return Now()


def poll(ids, samples):
    ids.begin()
    return [ids.next() for _ in range(samples)]


def milliseconds(id_):
    return uuid.UUID(id_).int >> 80


def constant(id_):
    """The last ten bytes, which a series has in every poll."""
    return uuid.UUID(id_).bytes[6:]


def in_child(work):
    """Return what ``work`` returns, a text, in a process that was forked."""
    child, parent = os.pipe()
    if (process := os.fork()) == 0:
        os.write(parent, work().encode())
        os._exit(0)
    os.waitpid(process, 0)
    os.close(parent)
    with os.fdopen(child) as stream:
        return stream.read()


def test_ids_of_single_samples_tell_when_they_were_made_and_are_unique_across_processes():
    began = time.time_ns() // 1_000_000
    ids = [new_message_id() for _ in range(1000)]
    ended = time.time_ns() // 1_000_000
    ids += [in_child(new_message_id), new_message_id()]

    assert len(set(ids)) == 1002
    for each in map(uuid.UUID, ids[:1000]):
        assert (each.version, each.variant) == (7, uuid.RFC_4122)
        assert began <= each.int >> 80 <= ended
    assert [each[:13] for each in ids] == sorted(each[:13] for each in ids)


def test_ids_of_a_poll_are_canonical_uuids_of_one_time(now):
    ids = poll(PollIds(now), 5000)

    assert len(set(ids)) == 5000
    assert len({milliseconds(each) for each in ids}) == 1
    for each in ids:
        parsed = uuid.UUID(each)
        assert (str(parsed), parsed.version, parsed.variant) == (each, 7, uuid.RFC_4122)


def test_a_series_has_the_same_last_ten_bytes_in_every_poll(now):
    ids = PollIds(now)
    first = poll(ids, 300)
    now.now += 300_000
    second = poll(ids, 301)

    assert list(map(constant, second[:300])) == list(map(constant, first))
    assert milliseconds(second[0]) > milliseconds(first[0])
    assert not set(first) & set(second)


def test_times_of_polls_grow_and_are_less_than_the_limit_before_the_poll(now):
    ids, times, polled = PollIds(now), [], []
    for pause in [1, 2, 3, 10, 1000, 300_000] * 20:
        now.now += pause
        times.append(milliseconds(poll(ids, 1)[0]))
        polled.append(now.now)

    assert all(one < other for one, other in pairwise(times))
    assert all(0 <= at - time < MAX_EARLY_MILLISECONDS for at, time in zip(polled, times, strict=True))


def test_the_time_of_a_poll_cannot_be_told_from_its_interval(now):
    ids = PollIds(now)
    early = set()
    for _ in range(100):
        now.now += 300_000
        early.add((now.now - milliseconds(poll(ids, 1)[0])) >> 8)

    assert len(early) > 50  # of 256


def test_numbers_of_samples_do_not_tell_their_order_and_differ_from_pollster_to_pollster(now):
    one, other = ([uuid.UUID(each).int % 2**24 for each in poll(PollIds(now), 100)] for _ in range(2))

    assert not set(range(1000)) >= set(one)
    assert one != sorted(one)
    steps = {(after - before) % 2**24 for before, after in pairwise(one)}
    assert len(steps) > 50
    assert one != other


def test_all_numbers_of_a_poll_differ():
    """Those of the first 131 072 samples."""
    ids = PollIds(lambda: NOON)
    ids.begin()
    seen = {ids.next()[-6:] for _ in range(2**17)}

    assert len(seen) == 2**17


def test_a_poll_of_too_many_samples_goes_on_with_another_time(now, monkeypatch):
    monkeypatch.setattr(message_ids, "MAX_ORDINALS", 3)
    ids = PollIds(now)
    now.now += 300_000
    found = poll(ids, 7)

    assert len(set(found)) == 7
    assert len({each[:23] for each in found}) == 3


@pytest.mark.parametrize("step", [0, -1, -3_600_000])
def test_bits_are_drawn_again_when_the_clock_has_not_gone_on(now, step):
    ids = PollIds(now, lambda count: os.urandom(count) if count != 4 else b"\xff" * 4)
    before = poll(ids, 3)
    now.now = milliseconds(before[0]) + step
    after = poll(ids, 3)

    assert not set(map(constant, before)) & set(map(constant, after))
    assert milliseconds(after[0]) <= now.now


def test_bits_are_drawn_again_after_a_fork(now):
    ids = PollIds(now)
    poll(ids, 1)
    now.now += 300_000
    forked = in_child(lambda: poll(ids, 1)[0])

    assert constant(forked) != constant(poll(ids, 1)[0])


def test_two_processes_and_two_pollsters_have_no_bits_in_common(now):
    assert constant(poll(PollIds(now), 1)[0])[:7] != constant(poll(PollIds(now), 1)[0])[:7]


def test_next_begins_a_poll_if_none_has_begun(now):
    assert uuid.UUID(PollIds(now).next()).version == 7
