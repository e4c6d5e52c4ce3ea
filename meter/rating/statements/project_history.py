"""What projects were called and to which domain they belonged, day by day, as the store's identity names tell."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import date
from datetime import datetime
from zoneinfo import ZoneInfo

from meter.identity_names import IdentityKey
from meter.identity_names import IIdentityNames
from meter.identity_names import NamePeriod
from meter.rating.period import start_of_day

IDS_AT_ONCE = 1000
"""Projects whose names are asked for at once."""


class ProjectHistory:
    """Names and domains of projects; ``histories`` has those of each project that is known, the oldest first."""

    def __init__(self, histories: Mapping[str, Sequence[NamePeriod]], timezone: ZoneInfo) -> None:
        self._histories = histories
        self._timezone = timezone
        self._domains = {id: {each.domain for each in names} for id, names in histories.items()}

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
        """Return the domain of a project at the begin of ``day``; of one that did not exist then, that of the nearest name."""
        domains = self._domains.get(project_id)
        if not domains:
            return None
        if len(domains) == 1:
            return next(iter(domains))
        return _valid_at(self._histories[project_id], start_of_day(day, self._timezone)).domain

    def name_at(self, project_id: str, time: datetime) -> str:
        """Return what a project was called at ``time``; of one that did not exist then, the nearest name; its id if none is known."""
        history = self._histories.get(project_id)
        return _valid_at(history, time).name if history else project_id


def _valid_at(history: Sequence[NamePeriod], time: datetime) -> NamePeriod:
    """Return the last name that was valid at or before ``time``, or else the first."""
    before = [each for each in history if each.since <= time]
    return before[-1] if before else history[0]
