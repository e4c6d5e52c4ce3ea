"""Cuts a list of names into identity reports of limited size."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from collections.abc import Iterator
from itertools import groupby

from meter.identity_report import NAMES_PER_REPORT
from meter.identity_report import IdentityKind
from meter.identity_report import IdentityName
from meter.identity_report import IdentityReport


def reports_of(
    origin: str, kind: IdentityKind, at: str, names: Iterable[IdentityName], *, complete: bool
) -> Iterator[IdentityReport]:
    """Yield reports with ``names``, all of ``kind``, as they were ``at`` a time.

    ``complete``: there are no other identities of the kind. Each report then covers the ids after the last one of the report
    before it, until its own last one; together they cover all ids. Without any name there is one report that covers all.
    """
    parts: list[list[IdentityName]] = [[]]
    for _, same_id in groupby(sorted(names, key=lambda each: (each.id, each.since)), key=lambda each: each.id):
        several = list(same_id)
        if parts[-1] and len(parts[-1]) + len(several) > NAMES_PER_REPORT:
            parts.append([])
        parts[-1] += several
    if not complete and not parts[0]:
        return
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        yield IdentityReport(
            origin=origin,
            message_id=str(uuid.uuid4()),
            at=at,
            names=tuple(part),
            complete=(kind,) if complete else (),
            after=parts[number - 1][-1].id if complete and number else "",
            until=part[-1].id if complete and not is_last else None,
        )
