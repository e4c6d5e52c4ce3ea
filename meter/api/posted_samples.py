"""What clients may submit: which meters, about which resources, of which times, and with which volumes."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from fnmatch import fnmatchcase
from glob import escape

from meter.api.auth.requester import Requester
from meter.api.auth.visibility import VisibleStore
from meter.api.errors import HttpError
from meter.api.errors import invalid_input
from meter.daemon.shared_slices import OwnedSlices
from meter.sample import Sample
from meter.sample import utc_text

DAY_SECONDS = 86_400.0
CHECKED_AT_ONCE = 50
"""Samples that are checked without a pause for other work."""

PROJECT = "{project_id}"
"""Stands in a pattern for the project of the client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostedSampleRules:
    """The rules for submitted samples.

    Tenants, clients without admin access, may submit meters that match one of the shell patterns ``tenant_meters``, in
    which ``{project_id}`` stands for their project, unless the meter is one of ``declared``, the meters of all plugins,
    or others have samples of it; and about resources of which no other project has samples. Their volumes are not
    negative, unless the meter matches one of ``signed_meters``.

    Timestamps are at most ``max_age_seconds`` before the present, ``max_admin_age_seconds`` for administrators, and at most
    ``max_ahead_seconds`` after it.
    """

    tenant_meters: Sequence[str] = ("custom.*",)
    signed_meters: Sequence[str] = ()
    declared: Collection[str] = ()
    max_age_seconds: float = 7 * DAY_SECONDS
    max_admin_age_seconds: float = 400 * DAY_SECONDS
    max_ahead_seconds: float = 300.0

    async def check(
        self, samples: Sequence[Sample], requester: Requester, now: float, store: VisibleStore, slices: OwnedSlices
    ) -> None:
        """Raise :class:`ApiError` 400 if one of ``samples`` breaks a rule for ``requester``; they are checked in ``slices``."""
        tenant = not requester.is_admin
        project_id = requester.project_id or ""
        if tenant and not project_id:
            raise HttpError(403, "RBAC Authorization Failed: the token is not scoped to a project.")
        age = self.max_age_seconds if tenant else self.max_admin_age_seconds
        at = datetime.fromtimestamp(now, UTC)
        first, last = at - timedelta(seconds=age), at + timedelta(seconds=self.max_ahead_seconds)
        meters: set[str] = set()
        resources: set[str] = set()
        async for batch in slices.batches(samples, CHECKED_AT_ONCE):
            for sample in batch:
                if not first <= sample.timestamp <= last:
                    allowed = f"it must be from {utc_text(first)} to {utc_text(last)}."
                    raise invalid_input("timestamp", utc_text(sample.timestamp), allowed)
                if tenant and sample.name not in meters:
                    self._check_meter(sample.name, project_id)
                    meters.add(sample.name)
                if tenant and sample.volume < 0 and not _matches(sample.name, self.signed_meters):
                    raise invalid_input("counter_volume", sample.volume, "it must not be negative.")
                resources.add(sample.resource_id)
        if not tenant:
            return
        taken_meters, taken_resources = await store.names_of_others(meters, resources)
        if taken_meters:
            raise invalid_input(
                "counter_name", min(taken_meters)[:80], "it is not a meter that only your project submits."
            )
        if taken_resources:
            raise invalid_input("resource_id", min(taken_resources)[:80], "it is not a resource of your project.")

    def _check_meter(self, meter: str, project_id: str) -> None:
        allowed = [pattern.replace(PROJECT, escape(project_id)) for pattern in self.tenant_meters]
        if not _matches(meter, allowed):
            raise invalid_input(
                "counter_name",
                meter[:80],
                f"your project may submit these meters: {', '.join(allowed) or 'none'}.",
            )
        if _matches(meter, _patterns(self.declared)):
            raise invalid_input("counter_name", meter[:80], "it is a meter of Meter's own agents.")


def _patterns(declared: Collection[str]) -> Iterator[str]:
    """Yield shell patterns of ``declared`` meters, whose names may end in ``*``. A plugin that names none may make any."""
    for name in declared:
        if name != "*":
            yield escape(name[:-1]) + "*" if name.endswith("*") else escape(name)


def _matches(name: str, patterns: Sequence[str] | Iterator[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
