"""Aodh: how often each alarm has been evaluated, by the state that was found."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import replace

from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import IPluginContext
from meter.openstack import Listing
from meter.openstack import Page
from meter.pollsters.openstack.pollster import ListingPollster
from meter.pollsters.openstack.pollster import SkippedItems
from meter.pollsters.openstack.pollster import enabled_with
from meter.pollsters.openstack.table import BadItem
from meter.pollsters.openstack.table import Item
from meter.pollsters.openstack.table import Measure
from meter.pollsters.openstack.table import MeteredListing
from meter.pollsters.openstack.table import amount
from meter.pollsters.openstack.table import gauge
from meter.pollsters.openstack.table import same_names
from meter.sample import Sample

FORBIDDEN = 403
NOT_ENABLED = "Aodh needs enable_evaluation_results_metrics = true, and the user the role admin"

EVALUATION_RESULTS = MeteredListing(
    name="alarm.evaluation_result",
    listing=Listing(
        service="alarm",
        version="v2",
        path="metrics",
        key="evaluation_results",
        query={"all_projects": "true"},
        accepts_limit=False,
    ),
    measures=(Measure(gauge("alarm.evaluation_result", "evaluation_result_count"), amount("count")),),
    resource=("resource_id",),
    metadata=same_names("alarm_id", "alarm_state"),
)


class EvaluationResultsPollster(ListingPollster):
    """Meters the evaluations of each alarm by state: three resources of each alarm, as one gauge has one value at a time."""

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return whether the catalogue has Aodh, and Aodh its metrics."""
        return await enabled_with(context, "alarm", self.metered.listing, {FORBIDDEN: NOT_ENABLED})

    def _of_page(self, page: Page, skipped: SkippedItems) -> Iterable[Sample]:
        return super()._of_page(replace(page, items=list(_by_state(page.items, skipped))), skipped)


def _by_state(items: Iterable[Item], skipped: SkippedItems) -> Iterator[Item]:
    for item in items:
        alarm, counts = item.get("alarm_id"), item.get("state_counters")
        if not isinstance(alarm, str) or not alarm:
            skipped.add("?", BadItem("no-id", "it has no alarm_id"))
        elif not isinstance(counts, Mapping):
            skipped.add(alarm, BadItem("no-volume", "state_counters is missing"))
        else:
            for state, count in counts.items():
                yield {
                    "resource_id": f"{alarm}/{state.replace(' ', '_')}",
                    "alarm_id": alarm,
                    "alarm_state": state,
                    "project_id": item.get("project_id"),
                    "count": count,
                }
