"""The domain to which a project belonged on a day, by the names that the store has."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from datetime import date
from zoneinfo import ZoneInfo

from meter.completeness.identities.identity_history import period_at
from meter.identity_names import NamePeriod
from meter.rating.period import start_of_day


class ProjectDomains:
    """Domains of projects by day, in ``timezone``; ``histories`` has the names of each project, oldest first.

    A project has on a day the domain that it had at the day's beginning, or if it did not exist then, the one of its first name after.
    """

    def __init__(self, histories: Mapping[str, Sequence[NamePeriod]], timezone: ZoneInfo) -> None:
        self._histories = histories
        self._timezone = timezone

    def __call__(self, project_id: str, day: date) -> str | None:
        """Return the id of the project's domain on ``day``; ``None`` if nothing is known of it."""
        names = self._histories.get(project_id, ())
        if len({name.domain for name in names}) == 1:
            return names[0].domain
        found = period_at(names, start_of_day(day, self._timezone))
        return None if found is None else found.domain
