"""Checks samples before they are sent: a collector would refuse those that are invalid or older than the retention."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta
from fnmatch import fnmatchcase

from meter.ceilometer_signature import METADATA_FIELD
from meter.ceilometer_signature import BadSignature
from meter.message import BadMessage
from meter.message import parse
from meter.outgoing import OutgoingMessage
from meter.outgoing import Signer
from meter.sample import Sample
from meter.settings import Config
from meter.store.maintenance.partitions import MAX_AGE
from meter.store.write.record import Unstorable
from meter.store.write.record import record_of


class UnacceptableSample(Exception):
    """A sample that would become a dead letter; the text says why."""


class ImportRules:
    """The rules of the configured store at the time ``now_seconds``, since 1970."""

    def __init__(self, config: Config, now_seconds: float) -> None:
        self._store = config.store
        self._now = datetime.fromtimestamp(now_seconds, UTC)
        self._unpartitioned_before = self._now - MAX_AGE

    def message(self, sample: Sample, signer: Signer) -> OutgoingMessage:
        """Return ``sample`` as a signed message; raises :class:`UnacceptableSample`."""
        days = self._retention_days(sample.name)
        if days and sample.timestamp < self._now - timedelta(days=days):
            raise UnacceptableSample(f"it is older than the retention of {days:g} days ([store] retention_days)")
        try:
            message = signer.message(sample)
            # As a collector reads it.
            record_of(parse({**message.fields, METADATA_FIELD: sample.resource_metadata}))
        except (BadSignature, BadMessage, Unstorable) as error:
            raise UnacceptableSample(str(error)) from error
        return message

    def has_partition(self, sample: Sample) -> bool:
        """Return whether the store keeps ``sample`` in a partition of its week; without one it is never packed or archived."""
        return sample.timestamp >= self._unpartitioned_before

    def _retention_days(self, meter: str) -> float:
        """Return for how many days samples of ``meter`` are retained, 0 if for ever."""
        for pattern, days in self._store.retention_days_by_meter.items():
            if fnmatchcase(meter, pattern):
                return min(filter(None, (days, self._store.retention_days)), default=0.0)
        return self._store.retention_days
