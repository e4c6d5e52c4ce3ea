"""Samples that come too late to be stored: what is beside them in time has been deleted, or is lost."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime

from meter.store.write.record import Record

BEGINNING = datetime.min.replace(tzinfo=UTC)


class NotAccepted(Exception):
    """Some records cannot be stored any more; ``reasons`` has a text for each of their positions."""

    def __init__(self, reasons: Mapping[int, str]) -> None:
        super().__init__(f"{len(reasons)} samples are not accepted")
        self.reasons = reasons


def refuse_too_old(records: Sequence[Record], retention_cutoffs: Mapping[str, datetime]) -> None:
    """Raise if a record is older than the retention of its meter: samples next to it in time have been deleted."""
    of_all = retention_cutoffs.get("", BEGINNING)
    reasons = {}
    for position, record in enumerate(records):
        cutoff = max(of_all, retention_cutoffs.get(record.series.name, BEGINNING))
        if record.timestamp < cutoff:
            reasons[position] = f"it is older than the retention: samples before {cutoff.isoformat()} have been deleted"
    if reasons:
        raise NotAccepted(reasons)
