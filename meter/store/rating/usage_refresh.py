"""UsageRefresh: computes the usage of a period's days and keeps it, page by page, in transactions that are short."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import AsyncIterator
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from collections.abc import Set
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta
from functools import partial
from typing import Any

from twisted.internet.interfaces import IReactorTime

from meter.completeness.lives.kinds import meters_of
from meter.completeness.lives.observation import LifeSegment
from meter.completeness.lives.resource_lives import ResourceLife
from meter.completeness.lives.resource_lives import lives
from meter.daemon.shared_slices import SharedSlices
from meter.interfaces import RequestError
from meter.query import In
from meter.query import SampleFilter
from meter.rating.book.price_book import PriceBook
from meter.rating.period import BillingPeriod
from meter.rating.usage.existence import existence
from meter.rating.usage.existence import existence_spans
from meter.rating.usage.measured_skus import MeasuredDay
from meter.rating.usage.measured_skus import MeasuredSku
from meter.rating.usage.measured_skus import is_measured_whole
from meter.rating.usage.measured_skus import life_kinds
from meter.rating.usage.measured_skus import measured_days
from meter.rating.usage.measured_skus import measured_skus
from meter.rating.usage.measured_skus import whole_period
from meter.rating.usage.sku_definition import values_text
from meter.store.postgres.pool import Pool
from meter.store.query.as_of import wait_for_writers_before
from meter.store.rating.usage_changes import KeptDay
from meter.store.rating.usage_changes import changed_hours
from meter.store.rating.usage_changes import kept_days
from meter.store.rating.usage_changes import late_samples_since
from meter.store.rating.usage_changes import meters_of_sku
from meter.store.rating.usage_lives import RatedLives
from meter.store.rating.usage_rows import HAS_ATOMS
from meter.store.rating.usage_rows import KNOWN_SKUS
from meter.store.rating.usage_rows import LAST_RESOURCE
from meter.store.rating.usage_rows import NEXT_RESOURCES
from meter.store.rating.usage_rows import RESOURCES_WITH_SAMPLES
from meter.store.rating.usage_rows import DayMark
from meter.store.rating.usage_rows import GivenAtom
from meter.store.rating.usage_rows import ResourceRange
from meter.store.rating.usage_rows import SampledTime
from meter.store.rating.usage_rows import keep_given
from meter.store.rating.usage_rows import keep_lives
from meter.store.rating.usage_rows import keep_measured
from meter.store.rating.usage_rows import mark_computed
from meter.store.rating.usage_rows import sku_ids
from meter.store.rating.usage_sql import measuring
from meter.store.rating.usage_told import told_resources

PAGE_RESOURCES = 500
"""Resources whose usage is computed with one statement."""

SAMPLED_RESOURCES = 5_000
"""Resources of which one statement finds out when they have samples."""

ATTEMPTS = 3
"""How often lives are read again because late samples arrived meanwhile."""

LOOK_BACK = timedelta(days=45)

OVER_FOR = timedelta(days=1)
LIVES_AGAIN_SECONDS = 6 * 3600.0
"""Of a period that has been over for a day and whose samples have not changed, lives are read again after so long: a resource that
is found late may have existed then."""

DAYS_WORTH_LOOKING = 3
"""For more days of a SKU than these it is looked up first when each of its resources has samples, and pages without are not computed."""

STEPPED = frozenset(("integral", "increase", "percentile95"))
"""Kinds of usage that depend on samples before a day, too."""

COMPUTED_UNTIL = "SELECT FROM usage_day WHERE (sku_id, day) = (%s, %s) AND finish >= %s"

EXPIRED = "SELECT max(before) FROM retention_cutoff WHERE meter IN ('', %s)"

EXPIRED_LIVES = "SELECT max(before) FROM retention_cutoff WHERE meter = '' OR meter = ANY(%s)"


@dataclass(slots=True)
class RefreshPlan:
    """What a refresh computes: by SKU, the days that changed. ``days`` are all that began."""

    as_of: datetime
    skus: Mapping[int, MeasuredSku]
    days: Sequence[MeasuredDay]
    whole: MeasuredDay
    changed: dict[int, list[MeasuredDay]] = field(default_factory=dict)
    kept: Mapping[tuple[int, date], KeptDay] = field(default_factory=dict)

    def days_of(self, sku: MeasuredSku) -> Sequence[MeasuredDay]:
        """Return the days of ``sku``."""
        return [self.whole] if is_measured_whole(sku.sku) else self.days


class UsageRefresh:
    """Refreshes over ``pool``. Whoever calls it makes sure that nobody else refreshes the same."""

    def __init__(self, pool: Pool, clock: IReactorTime, slices: SharedSlices) -> None:
        self._pool = pool
        self._clock = clock
        self._slices = slices.of(self)
        self._lives = RatedLives(pool, slices, final_rollups=True)
        self._lives_read: dict[tuple[str, str, frozenset[int]], float] = {}

    async def run(self, book: PriceBook, period: BillingPeriod, now: datetime) -> int:
        """Compute the days of ``period`` that changed; return how many."""
        plan = await self.plan(book, period, now)
        if not plan.days:
            return 0
        changed: set[date] = {day.day for days in plan.changed.values() for day in days}
        key = book.timezone.key, period.name, frozenset(plan.skus)
        unchanged = now > period.end + OVER_FOR and not any(
            plan.skus[id].sku.usage in ("exists", "integral") for id in plan.changed
        )
        if not unchanged or self._clock.seconds() >= self._lives_read.get(key, float("-inf")) + LIVES_AGAIN_SECONDS:
            for _ in range(ATTEMPTS):
                changed |= await self._keep_existence(plan, now)
                if not await late_samples_since(self._pool, plan.as_of):
                    break
                plan = await self.plan(book, period, now)
            self._lives_read[key] = self._clock.seconds()
        # Lives that changed have marked days of gauges.
        plan.kept = await kept_days(self._pool, plan.skus, period.first, period.until)
        failed: set[tuple[int, date]] = set()
        error: RequestError | None = None
        for id, measured in plan.skus.items():
            if measured.sku.usage != "exists":
                days = self._to_measure(plan, id, measured)
                sampled = await self._sampled(measured, days) if len(days) > DAYS_WORTH_LOOKING else None
                for day in days:
                    changed.add(day.day)
                    try:
                        await self._measure(id, measured, day, plan.as_of, sampled)
                    except RequestError as expired:
                        failed.add((id, day.day))
                        error = error or expired
        await self._mark(plan, failed)
        if error is not None:
            raise error
        return len(changed)

    async def changed_days(self, book: PriceBook, period: BillingPeriod, now: datetime) -> Sequence[date]:
        """Return the days that :meth:`run` would compute; changes of lives alone are not seen before they are computed."""
        plan = await self.plan(book, period, now, adding=False)
        return sorted({day.day for days in plan.changed.values() for day in days})

    async def plan(self, book: PriceBook, period: BillingPeriod, now: datetime, *, adding: bool = True) -> RefreshPlan:
        """Return what there is to compute, once everything that was recorded until now is committed.

        Without ``adding`` nothing is written, and SKUs that were never measured have no id of their own.
        """
        now = now.astimezone(UTC)
        [[as_of]] = await self._pool.rows("SELECT clock_timestamp()")
        await wait_for_writers_before(self._pool, self._clock, as_of)
        all_skus = {each.fingerprint: each for each in measured_skus(book)}
        ids = {bytes(found): id for found, id in await self._pool.rows(KNOWN_SKUS, [list(all_skus)])}
        if missing := [each for each in all_skus.values() if each.fingerprint not in ids]:
            if adding:
                ids |= await self._pool.run(sku_ids, {each.fingerprint: each.definition for each in missing})
            else:
                ids |= {each.fingerprint: -number for number, each in enumerate(missing, 1)}
        plan = RefreshPlan(
            as_of=as_of,
            skus={ids[found]: each for found, each in all_skus.items()},
            days=measured_days(period, now),
            whole=whole_period(period, now),
        )
        if plan.days:
            plan.kept = await kept_days(self._pool, plan.skus, period.first, period.until)
            await self._find_changes(plan)
        return plan

    async def _find_changes(self, plan: RefreshPlan) -> None:
        """Find the days that are new, that go on, or whose samples changed."""
        known = [each.as_of for each in plan.kept.values() if each.as_of is not None]
        life_meters = meters_of(life_kinds([each.sku for each in plan.skus.values()]))
        meters = {name for each in plan.skus.values() for name in meters_of_sku(each.sku, life_meters)}
        found = None
        if known:
            found = await changed_hours(self._pool, meters, min(known), plan.as_of, plan.whole.start, plan.whole.finish)
        for id, measured in plan.skus.items():
            told = set(meters_of_sku(measured.sku, life_meters))
            changed = []
            for day in plan.days_of(measured):
                kept = plan.kept.get((id, day.day))
                if (
                    kept is None
                    or kept.as_of is None
                    or kept.finish != day.finish
                    or found is None
                    or any(
                        each.meter in told and each.first < day.finish and each.last + timedelta(hours=1) > day.start
                        for each in found
                    )
                ):
                    changed.append(day)
            if changed:
                plan.changed[id] = changed

    def _to_measure(self, plan: RefreshPlan, id: int, measured: MeasuredSku) -> list[MeasuredDay]:
        planned = plan.changed.get(id, [])
        marked = [
            day
            for day in plan.days_of(measured)
            if (kept := plan.kept.get((id, day.day))) is not None and kept.as_of is None and day not in planned
        ]
        return [*planned, *marked]

    async def _sampled(self, measured: MeasuredSku, days: Sequence[MeasuredDay]) -> list[SampledTime]:
        """Return when each resource has samples from which the usage of ``days`` is computed, by the ids of the resources.

        They include what was recorded later than the usage is computed as of, and all that was until then.
        """
        since, finish = min(day.start for day in days), max(day.finish for day in days)
        parameters = {
            "meter": measured.sku.meter,
            "since": since - LOOK_BACK if measured.sku.usage == "integral" else since,
            "finish": finish,
            "rows": SAMPLED_RESOURCES,
        }
        found: list[SampledTime] = []
        while True:
            after = found[-1].resource_id if found else 0
            rows = await self._pool.rows(RESOURCES_WITH_SAMPLES, {**parameters, "after": after})
            found += [SampledTime(*row) for row in rows]
            if len(rows) < SAMPLED_RESOURCES:
                break
        if measured.sku.usage == "integral" and measured.sku.meter is not None:
            by_id = {each.resource_id: each for each in found}
            for told in await told_resources(self._pool, measured.sku.meter, since, finish):
                by_id[told.resource_id] = told.joined(by_id.get(told.resource_id))
            found = [by_id[id] for id in sorted(by_id)]
        return found

    async def _measure(
        self,
        id: int,
        measured: MeasuredSku,
        day: MeasuredDay,
        as_of: datetime,
        sampled: Sequence[SampledTime] | None,
    ) -> None:
        """Compute a SKU and day from samples, unless these have begun to expire; ``sampled``: of these resources alone."""
        meter = measured.sku.meter
        assert meter is not None
        [[before]] = await self._pool.rows(EXPIRED, [meter])
        if before is not None and before > day.start:
            known = await self._pool.rows(COMPUTED_UNTIL, [id, day.day, day.finish])
            if known:
                return  # what was computed in time stays
            raise RequestError(
                f"the samples of {meter} of {day.day} have expired, and the usage of the SKU {measured.sku.id} from that day on"
                " was not computed before: retain samples for longer than a period and its days of grace"
            )
        parts, parameters = measuring(measured.sku)
        parameters |= {"sku": id, "day": day.day, "days": [day.day], "start": day.start, "finish": day.finish}
        parameters["as_of"] = as_of
        gauge = measured.sku.usage == "integral"
        near = measured.sku.usage in STEPPED and before is not None and before > day.start - LOOK_BACK
        parameters |= {"expired": before if near or gauge else None, "told": not near, "gauge": gauge, "cutoff": before}
        parameters["goes_on"] = gauge and not await self._pool.rows(COMPUTED_UNTIL, [id, day.day, day.finish])
        if sampled is None:
            told = await told_resources(self._pool, meter, day.start, day.finish) if gauge else []
            others = [each.resource_id for each in told]
            async for within, _ in self.pages([meter], since=day.start - LOOK_BACK, others=others):
                await self._pool.run(keep_measured, parts, {**parameters, **within._asdict()})
            return
        since = day.start - LOOK_BACK if gauge else day.start
        ids = [each.resource_id for each in sampled if each.has_between(since, day.finish)]
        if not ids and not await self._pool.rows(HAS_ATOMS, [id, day.day]):
            return
        for within, page in pages_of(ids):
            await self._pool.run(keep_measured, parts, {**parameters, **within._asdict(), "resources": page})

    async def pages(
        self,
        meters: Sequence[str],
        since: datetime | None = None,
        projects: Collection[str] | None = None,
        others: Sequence[int] = (),
    ) -> AsyncIterator[tuple[ResourceRange, Sequence[tuple[int, str]]]]:
        """Yield the resources with samples of ``meters`` in pages, by id: the range of ids, and ids and names.

        ``projects``: only those of which one of these has samples of any meter. ``others`` are sorted ids of resources that belong to them, too.
        """
        after = 0
        of = None if projects is None else list(projects)
        while after < LAST_RESOURCE:
            parameters: dict[str, Any] = {
                "meters": list(meters),
                "after": after,
                "rows": PAGE_RESOURCES,
                "projects": of,
            }
            first = bisect_right(others, after)
            parameters["others"] = list(others[first : first + PAGE_RESOURCES])
            page = await self._pool.rows(NEXT_RESOURCES, {**parameters, "since": since or "-infinity"})
            through = page[-1][0] if len(page) == PAGE_RESOURCES else LAST_RESOURCE
            yield ResourceRange(after, through), [(id, name) for id, name in page]
            after = through

    async def page_lives(
        self, names: Sequence[str], skus: Sequence[MeasuredSku], now: datetime, as_of: datetime, reader: RatedLives
    ) -> list[ResourceLife]:
        """Return the lives of the resources ``names``, as they were told until ``as_of``."""
        if not names:
            return []
        selected = SampleFilter(expression=In("resource_id", tuple(names)), as_of=as_of)
        kinds = life_kinds([each.sku for each in skus])
        return [each async for each in lives(reader, selected, None, now, kinds=kinds, slices=self._slices)]

    async def _keep_existence(self, plan: RefreshPlan, now: datetime) -> set[date]:
        """Compute lives, and all days of SKUs that are measured by them; return the days that changed."""
        skus = list(plan.skus.values())
        kinds = life_kinds([each.sku for each in skus])
        existing = [(id, each) for id, each in plan.skus.items() if each.sku.usage == "exists"]
        changed: set[date] = set()
        if not kinds:
            return changed
        gauges = any(each.sku.usage == "integral" for each in skus)
        days_of = await self._days_to_keep(plan, [id for id, _ in existing], meters_of(kinds))
        async for within, resources in self.pages(meters_of(kinds)):
            ids = {name: id for id, name in resources}
            found = await self.page_lives(list(ids), skus, now, plan.as_of, self._lives)
            for id, measured in existing:
                of_kind = [each for each in found if each.kind == measured.sku.resource_kind]
                if days_of[id]:
                    atoms = await self._existing_atoms(measured, of_kind, days_of[id], ids)
                    days = [day.day for day in days_of[id]]
                    changed |= set(await self._pool.run(keep_given, id, days, within, atoms))
            if gauges:
                segments: defaultdict[int, list[LifeSegment]] = defaultdict(list)
                for each in found:
                    segments[ids[each.resource_id]] += each.segments
                spans = [(id, span) for id, several in segments.items() for span in existence_spans(several)]
                await self._pool.run(keep_lives, list(ids.values()), spans)
        return changed

    async def _days_to_keep(
        self, plan: RefreshPlan, ids: Sequence[int], meters: Sequence[str]
    ) -> Mapping[int, Sequence[MeasuredDay]]:
        """Return the days of each SKU that are computed from lives: all, or once samples of the period have expired, those that are not known.

        A life that began before what has not expired would seem to begin later.
        """
        [[before]] = await self._pool.rows(EXPIRED_LIVES, [list(meters)])
        if before is None or before <= plan.whole.start:
            return dict.fromkeys(ids, plan.days)
        return {
            id: [
                day for day in plan.days if (kept := plan.kept.get((id, day.day))) is None or kept.finish != day.finish
            ]
            for id in ids
        }

    async def _existing_atoms(
        self,
        measured: MeasuredSku,
        found: Sequence[ResourceLife],
        days: Sequence[MeasuredDay],
        ids: Mapping[str, int],
    ) -> list[GivenAtom]:
        atoms: list[GivenAtom] = []
        for each in found:
            began = min(segment.began for segment in each.segments)
            ended = max(segment.ended or days[-1].finish for segment in each.segments)
            for day in days:
                if began < day.finish and ended > day.start:
                    for (project, values), used in existence(
                        measured.sku, each.segments, day.start, day.finish
                    ).items():
                        document = values_text(dict(values))
                        atoms.append(GivenAtom(day.day, ids[each.resource_id], project, document, *used))
            if self._slices.over:
                await self._slices.pause()
        return atoms

    async def _mark(self, plan: RefreshPlan, failed: Set[tuple[int, date]]) -> None:
        marks = [
            DayMark(id, day.day, day.start, day.finish)
            for id, measured in plan.skus.items()
            for day in plan.days_of(measured)
            if (id, day.day) not in failed
        ]
        await self._pool.run(partial(mark_computed, as_of=plan.as_of, marks=marks))


def pages_of(ids: Sequence[int]) -> Iterator[tuple[ResourceRange, Sequence[int]]]:
    """Yield ``ids``, which are sorted, in pages, and ranges that together have all resources: the last one reaches to the end."""
    after = 0
    for begin in range(0, max(1, len(ids)), PAGE_RESOURCES):
        page = ids[begin : begin + PAGE_RESOURCES]
        through = page[-1] if begin + PAGE_RESOURCES < len(ids) else LAST_RESOURCE
        yield ResourceRange(after, through), page
        after = through
