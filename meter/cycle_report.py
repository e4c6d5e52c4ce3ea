"""Cycle reports: what an agent polled in one cycle, and what it did not measure.

Every polling cycle of every agent ends with one, written to the spool after the samples of the cycle. *Boot* is one process of
the agent, from its start to its end; *sequence* counts its reports from 1 without a gap. When the spool must drop something it drops samples and
keeps reports: a gap in (agent, boot, sequence) is a report that was lost on the way, and nothing else is.

A *series group* is what a pollster measures of several resources alike: one project, some meters, some resources. A sample of each
of these meters was made of each of these resources. The report of a pollster has all groups (``whole``) at the start of the agent
and every hour, and otherwise those that were added and removed since the pollster's report before: a resource of which other
meters are measured than before is removed with all that it had, and added with all that it has. What could not be measured although
it may still exist (a pollster that failed, a domain that hangs) is not removed, but named in ``outcome`` or ``skipped``.

Times are texts like ``2026-11-22T17:00:59.5``, in UTC.
"""

from __future__ import annotations

from typing import Any
from typing import Literal

import msgspec

from meter.message import BadMessage

PollOutcome = Literal["ok", "unavailable", "timeout", "error", "not stored"]
"""*not stored*: samples were made, and the spool did not take some of them."""

MAX_ERROR = 500
"""Maximum length of an error in a report, in characters; the agent cuts longer ones."""

DOMAIN_HUNG = "domain hung"
"""The reason of a :class:`SkipReport` for a domain whose QEMU process did not respond to libvirt."""

DOMAIN_UNREADABLE = "domain unreadable"
"""The reason of a :class:`SkipReport` for a domain that libvirt listed, and whose reading failed with an error."""

REPORTS_LOST = "cycle reports were lost"
"""How the reason of a :class:`DroppedSamples` begins that is about reports."""

WHOLE_SECONDS = 3600.0
"""How often the report of a pollster has all its series groups."""


class SeriesGroup(msgspec.Struct, frozen=True, omit_defaults=True):
    """Resources of one project of which the same meters are measured. Both lists are sorted and without repetition.

    ``reason`` says of a removed group why it ended, if the pollster knows it: ``gone``, ``migrated``.
    """

    meters: tuple[str, ...]
    resources: tuple[str, ...]
    project: str | None = None
    reason: str = ""


class SkipReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """Samples that a pollster did not make: how many, if it is known, why, and of which resources, if it is known."""

    reason: str
    samples: int = 0
    resources: tuple[str, ...] = ()


class SucceededListing(msgspec.Struct, frozen=True):
    """What another agent listed with a pollster before it lost the leadership: its name, and the due time of its last poll."""

    agent: str
    due: str


class PollReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """One poll of one pollster. ``samples`` are those on disk. ``asked`` is false if an earlier poll was still running.

    A poll with so many series that they need several reports is *continued* in those that follow, which have the same due time:
    they add and remove series and name what was skipped, and are no other poll. None of them is ``whole``: of a list of all
    series each part has all those of the resources from ``listed_from`` on, and before ``listed_before`` unless that is empty.

    The first list of all series of a new leader ``succeeds`` that of the leader before, whose series end with it.
    """

    pollster: str
    interval_seconds: float
    outcome: PollOutcome
    samples: int
    seconds: float
    error: str = ""
    asked: bool = True
    whole: bool = False
    series: tuple[SeriesGroup, ...] = ()
    """All series groups if ``whole``, else those that were added since the pollster's report before."""
    removed: tuple[SeriesGroup, ...] = ()
    skipped: tuple[SkipReport, ...] = ()
    continued: bool = False
    listed_from: str | None = None
    listed_before: str = ""
    succeeds: SucceededListing | None = None

    @property
    def completes(self) -> bool:
        """Whether ``series`` is a list of all series, or the last part of one."""
        return self.whole or (self.listed_from is not None and not self.listed_before)


class OffSchedulePoll(msgspec.Struct, frozen=True, omit_defaults=True):
    """Samples that a pollster made beside those of a cycle: after an event of libvirt, or the first value of a counter's run."""

    pollster: str
    at: str
    series: tuple[SeriesGroup, ...]


class DroppedSamples(msgspec.Struct, frozen=True):
    """Samples that the spool dropped, or that could not be published; the times are the first and last when they were spooled."""

    samples: int
    first: str
    last: str
    reason: str


class SkippedCycles(msgspec.Struct, frozen=True):
    """Cycles that were not run because one took longer than its interval: the due times of the first and the last."""

    interval_seconds: float
    cycles: int
    first: str
    last: str


class InactivePollster(msgspec.Struct, frozen=True):
    """An installed pollster that is not active: ``disabled`` by a setting, or it does not apply here; ``reason`` says which."""

    pollster: str
    disabled: bool
    reason: str
    meters: tuple[str, ...]


class ConfirmedReport(msgspec.Struct, frozen=True):
    """The last report of an earlier boot that the bus had confirmed, as far as the agent knows."""

    boot: str
    sequence: int


class CycleReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """The report of one polling cycle. ``agent`` is ``daemon@host``; ``boot`` a UUID; ``due`` the time of the cycle.

    ``inactive`` and ``confirmed`` are in the first report of a boot; ``inactive`` also in each ``whole`` one. The last
    report of a boot that is stopped in an orderly way has no polls, and ``stopping``. A leader election may let another
    agent poll: its ``standby`` agents report no polls.
    """

    agent: str
    daemon: str
    host: str
    boot: str
    sequence: int
    due: str
    polls: tuple[PollReport, ...] = ()
    off_schedule: tuple[OffSchedulePoll, ...] = ()
    dropped: tuple[DroppedSamples, ...] = ()
    skipped_cycles: tuple[SkippedCycles, ...] = ()
    inactive: tuple[InactivePollster, ...] = ()
    confirmed: ConfirmedReport | None = None
    stopping: bool = False
    standby: bool = False


def cycle_report(content: Any) -> CycleReport:
    """Return the cycle report that is the content of a verified report; raises :class:`~meter.message.BadMessage`."""
    try:
        return msgspec.convert(content, CycleReport)
    except msgspec.ValidationError as error:
        raise BadMessage(f"not a cycle report: {error}") from error
