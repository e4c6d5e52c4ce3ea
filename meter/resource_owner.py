"""Which samples describe a resource to an administrator: those that agents measured, else those that clients submitted.

The source of a submitted sample begins with its project: Meter's API and Ceilometer's prepend it, and a client cannot
avoid that. All other samples are *measured*: agents and listeners made them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from typing import TypeVar


class OwnedSample(Protocol):
    """The members of a sample that tell who owns its resource."""

    @property
    def project_id(self) -> str | None:
        """The project that the sample belongs to."""

    @property
    def source(self) -> str | None:
        """Where the sample was made."""


SampleT = TypeVar("SampleT", bound=OwnedSample)


def submitted_source(project_id: str | None, source: str) -> str:
    """Return the source of a sample that a client of ``project_id`` submits."""
    return f"{project_id}:{source}" if project_id else source


def is_submitted(sample: OwnedSample) -> bool:
    """Return whether a client submitted ``sample`` for a project."""
    return bool(sample.project_id) and (sample.source or "").startswith(f"{sample.project_id}:")


def describing(samples: Sequence[SampleT], first_project: str | None = None) -> list[SampleT]:
    """Return those of ``samples``, all about one resource, that describe it to an administrator.

    If all are of one project, these are all. Otherwise they are the measured ones, of whichever project: a resource can pass
    from one project to another. If none is measured, they are those of ``first_project``, which submitted the first one.
    """
    if len({sample.project_id for sample in samples}) < 2:
        return list(samples)
    measured = [sample for sample in samples if not is_submitted(sample)]
    return measured or [sample for sample in samples if sample.project_id == first_project]
