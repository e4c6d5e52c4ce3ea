"""Imports page by page: the samples of a page are sent, then its rejected records are written down, then the mark after it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from math import isfinite
from typing import Any
from typing import TextIO

from twisted.internet.interfaces import IReactorTime

from meter.commands.importing.import_destination import ImportDestination
from meter.commands.importing.import_rules import ImportRules
from meter.commands.importing.import_rules import UnacceptableSample
from meter.commands.importing.import_source import ImportSource
from meter.commands.importing.import_source import NotImported
from meter.commands.importing.import_source import SourcePage
from meter.commands.importing.import_source import SourceSample
from meter.commands.importing.import_state import ImportState
from meter.commands.importing.import_state import ImportTotals
from meter.daemon.services import sleep
from meter.interfaces import Unavailable
from meter.outgoing import OutgoingMessage
from meter.outgoing import Signer
from meter.sample import Sample
from meter.sample import utc_text

MAX_REASONS = 20
"""Reasons that a report names, the most frequent first; identifiers in them differ."""


@dataclass(slots=True)
class ImportedMeter:
    """The samples of one meter that were imported, with the times of the first and the last one."""

    samples: int = 0
    first: datetime | None = None
    last: datetime | None = None

    def add(self, sample: Sample) -> None:
        """Count ``sample``."""
        at = sample.timestamp
        self.samples += 1
        self.first = at if self.first is None else min(self.first, at)
        self.last = at if self.last is None else max(self.last, at)


@dataclass(slots=True)
class ImportCounts:
    """What an import did, or would do: by name, type and unit of a meter, and the records not imported by meter and reason."""

    meters: dict[tuple[str, str, str], ImportedMeter] = field(default_factory=dict)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    first_records: dict[tuple[str, str], str] = field(default_factory=dict)
    """The first record that was not imported for a reason."""
    without_partition: int = 0

    def reject(self, record: NotImported) -> None:
        """Count a record that was not imported."""
        key = (record.meter, record.reason)
        self.reasons[key] += 1
        self.first_records.setdefault(key, record.record)

    @property
    def samples(self) -> int:
        """The number of samples."""
        return sum(each.samples for each in self.meters.values())

    @property
    def not_imported(self) -> int:
        """The number of records that were not imported."""
        return self.reasons.total()

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON."""
        return {
            "samples": self.samples,
            "not_imported": self.not_imported,
            "meters": [
                {
                    "meter": name,
                    "type": kind,
                    "unit": unit,
                    "samples": count.samples,
                    "first": utc_text(count.first) if count.first else None,
                    "last": utc_text(count.last) if count.last else None,
                }
                for (name, kind, unit), count in sorted(self.meters.items())
            ],
            "reasons": [
                {
                    "meter": meter,
                    "reason": reason,
                    "records": records,
                    "first_record": self.first_records[meter, reason],
                }
                for (meter, reason), records in self.reasons.most_common(MAX_REASONS)
            ],
            "more_reasons": max(0, len(self.reasons) - MAX_REASONS),
            "without_partition": self.without_partition,
        }


class Importer:
    """Imports from ``source`` what ``rules`` accept.

    ``destination`` takes the samples, ``state`` the marks, and ``rejected`` a line of JSON for each record that is not imported; with
    ``None`` for all of these it only counts. At most ``rate`` samples are sent in a second, if it is not 0. ``new_signer`` makes the signer
    of a page. ``advance`` is called with the progress of each page.
    """

    def __init__(
        self,
        source: ImportSource,
        rules: ImportRules,
        clock: IReactorTime,
        new_signer: Callable[[], Signer],
        *,
        destination: ImportDestination | None = None,
        state: ImportState | None = None,
        rejected: TextIO | None = None,
        rate: float = 0.0,
        advance: Callable[[int], object] = lambda done: None,
    ) -> None:
        self._source = source
        self._rules = rules
        self._clock = clock
        self._new_signer = new_signer
        self._destination = destination
        self._state = state
        self._rejected = rejected
        self._rate = rate
        self._advance = advance
        self._stopped = False
        self._before = None if state is None else state.totals
        self.counts = ImportCounts()

    def stop(self) -> None:
        """Let :meth:`run` raise :class:`~meter.interfaces.Unavailable` after the page that it is at."""
        self._stopped = True

    async def run(self, mark: Any) -> None:
        """Import what follows ``mark``; raises what the source and the destination raise."""
        async for page in self._source.pages(mark):
            began = self._clock.seconds()
            await self._import(page)
            self._advance(page.done)
            if self._stopped:
                raise Unavailable("the import was stopped")
            sending = self._rate and self._destination is not None
            due = began + len(page.samples) / self._rate if sending else began
            await sleep(self._clock, max(0.0, due - self._clock.seconds()))
        if self._state is not None:
            self._state.write(self._state.mark, self._totals(), finished=True)

    def _totals(self) -> ImportTotals | None:
        """Return what this run and those before have imported; ``None`` if nobody knows the latter."""
        if self._before is None:
            return None
        meters: Counter[str] = Counter()
        for (name, _, _), count in self.counts.meters.items():
            meters[name] += count.samples
        return self._before.plus(meters, self.counts.not_imported)

    async def _import(self, page: SourcePage) -> None:
        signer = self._new_signer()
        accepted: dict[str, SourceSample] = {}
        messages: list[OutgoingMessage] = []
        not_imported = list(page.not_imported)
        for each in page.samples:
            try:
                message = self._rules.message(each.sample, signer)
            except UnacceptableSample as error:
                not_imported.append(_not_imported(each, str(error)))
                continue
            message_id = message.fields["message_id"]
            if message_id in accepted:
                # Ceilometer's collector stored a message again that was delivered again. The store finds out whether it is the same.
                not_imported += await self._send(messages, accepted)
                messages, accepted = [], {}
            accepted[message_id] = each
            messages.append(message)
        not_imported += await self._send(messages, accepted)
        self._write_rejected(not_imported)
        if self._state is not None and page.mark is not None:
            self._state.write(page.mark, self._totals())

    async def _send(self, messages: Sequence[OutgoingMessage], accepted: dict[str, SourceSample]) -> list[NotImported]:
        """Send ``messages`` and count them; return those that were refused."""
        refused = await self._destination.send(messages) if self._destination and messages else {}
        for message_id, each in accepted.items():
            if message_id not in refused:
                sample = each.sample
                key = (sample.name, sample.type, sample.unit)
                self.counts.meters.setdefault(key, ImportedMeter()).add(sample)
                self.counts.without_partition += not self._rules.has_partition(sample)
        return [_not_imported(accepted[message_id], reason) for message_id, reason in refused.items()]

    def _write_rejected(self, records: Sequence[NotImported]) -> None:
        for each in records:
            self.counts.reject(each)
        if self._rejected is not None and records:
            for each in records:
                line = {"record": each.record, "meter": each.meter, "reason": each.reason, **each.details}
                written = {name: value if _is_json(value) else str(value) for name, value in line.items()}
                self._rejected.write(json.dumps(written, default=str) + "\n")
            self._rejected.flush()


def _is_json(value: Any) -> bool:
    return not isinstance(value, float) or isfinite(value)


def _not_imported(each: SourceSample, reason: str) -> NotImported:
    sample = each.sample
    details = {
        "volume": sample.volume,
        "timestamp": utc_text(sample.timestamp),
        "message_id": sample.message_id,
        "resource_id": sample.resource_id,
        "project_id": sample.project_id,
    }
    return NotImported(each.record, sample.name, reason, details)
