"""What projects were called, and to which domain they belonged, as the store's identity names tell."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import date
from datetime import datetime
from zoneinfo import ZoneInfo

from meter.completeness.identities.identity_history import period_at
from meter.identity_names import IdentityKey
from meter.identity_names import IIdentityNames
from meter.identity_names import NamePeriod
from meter.rating.project_domains import ProjectDomains

IDS_AT_ONCE = 1000
"""Projects whose names are asked for at once."""


class ProjectHistory:
    """Names and domains of projects; ``histories`` has those of each project that is known, the oldest first."""

    def __init__(self, histories: Mapping[str, Sequence[NamePeriod]], timezone: ZoneInfo) -> None:
        self._histories = histories
        self._domains = ProjectDomains(histories, timezone)

    @classmethod
    async def read(cls, names: IIdentityNames, project_ids: Iterable[str], timezone: ZoneInfo) -> ProjectHistory:
        """Return the history of these projects."""
        ids = sorted({id for id in project_ids if id})
        found: dict[str, Sequence[NamePeriod]] = {}
        for start in range(0, len(ids), IDS_AT_ONCE):
            keys = [IdentityKey("project", id) for id in ids[start : start + IDS_AT_ONCE]]
            for key, history in (await names.histories(keys)).items():
                if history:
                    found[key.id] = history
        return cls(found, timezone)

    def domain_of(self, project_id: str, day: date) -> str | None:
        """Return the domain of a project on ``day``; ``None`` if nothing is known of it."""
        return self._domains(project_id, day)

    def name_at(self, project_id: str, time: datetime) -> str:
        """Return what a project was called at ``time``, or else its last name before or its first after; its id if none is known."""
        period = period_at(self._histories.get(project_id, ()), time)
        return project_id if period is None else period.name
