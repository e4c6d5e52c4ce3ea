"""The handler of ``/v2/prices``: the prices that the requester may see."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from datetime import date
from typing import Any
from typing import TypeVar

import msgspec

from meter.api.errors import HttpError
from meter.api.errors import invalid_input
from meter.api.rendering import prices as rendering
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.responses import JsonResponse
from meter.identity_names import IdentityKey
from meter.query import SampleFilter
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.visible_prices import DomainIn
from meter.rating.book.visible_prices import VisibleBook
from meter.rating.book.visible_prices import visible_books
from meter.rating.project_domains import ProjectDomains

DAY = Parameter(
    "day",
    "string",
    "Only what is valid on this day of the book's time zone, such as 2026-11-01. Default: today and later.",
    narrows=True,
)

NOT_CONFIGURED = "Rating is not configured: this server has no price directory."

T = TypeVar("T")


async def prices(context: RequestContext) -> JsonResponse:
    """Handle ``/v2/prices``."""
    return JsonResponse(await price_lists(context, day_argument(context)))


async def price_lists(context: RequestContext, day: date | None) -> list[rendering.PriceList]:
    """Return what the requester may see of each book: what is valid on ``day``, or today and later."""
    if context.prices is None:
        raise HttpError(404, NOT_CONFIGURED)
    directory = await context.prices.current()
    return [await _list(context, each, day) for each in await books_of(context, directory)]


async def books_of(context: RequestContext, directory: PriceDirectory) -> Sequence[VisibleBook]:
    """Return the books that the requester may see."""
    project = None if context.requester.is_admin else context.requester.project_id
    domain_in = await _domains(context, project)
    await context.store.check_authorization()
    return [*visible_books(directory, project, domain_in, context.utc_now)]


def day_argument(context: RequestContext) -> date | None:
    """Return the argument ``day``; :class:`ApiError` 400 if it is none, or what a query without a project is answered with."""
    context.store.check(SampleFilter())
    text = context.arguments["day"]
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as fault:
        raise invalid_input("day", text, "use a day such as 2026-11-01.") from fault


async def _domains(context: RequestContext, project: str | None) -> DomainIn:
    """Return to which domain the requester's own project belongs; nothing else is asked for."""
    key = IdentityKey("project", project or "")
    names = {} if project is None else await context.store.name_histories([key])
    return lambda day, timezone: ProjectDomains({key.id: names.get(key, ())}, timezone)(key.id, day)


async def _list(context: RequestContext, visible: VisibleBook, day: date | None) -> rendering.PriceList:
    book = visible.book

    async def visible_ones(things: Iterable[T]) -> AsyncIterator[T]:
        for each in things:
            if context.slices.over:
                await context.slices.pause()
            if _counts(each, visible, day) and (not hasattr(each, "scope") or visible.sees(each.scope)):
                yield each

    async def shown(things: Iterable[T], render: Callable[[T], Any]) -> list[Any]:
        return [_encoded(render(each)) async for each in visible_ones(things)]

    of_skus: dict[str, list[Any]] = defaultdict(list)
    async for price in visible_ones(book.prices):
        of_skus[price.sku].append(_encoded(rendering.price(price)))
    return rendering.PriceList(
        book=book.name,
        currency=book.currency,
        timezone=book.timezone.key,
        issuer=book.issuer,
        region=book.region,
        skus=[rendering.sku(each, of_skus[each.id]) for each in book.skus.values()],
        fixed_charges=await shown(book.fixed_charges, rendering.charge),
        discounts=await shown(book.discounts, rendering.discount),
        minimums=await shown(book.minimums, rendering.minimum),
        credits=await shown(book.credits, rendering.credit),
        taxes=await shown(book.taxes, rendering.tax),
    )


def _encoded(record: Any) -> msgspec.Raw:
    """Return a record as JSON: a price at a time, as the whole list may have thousands."""
    return msgspec.Raw(msgspec.json.encode(record))


def _counts(thing: Any, visible: VisibleBook, day: date | None) -> bool:
    if day is not None:
        return bool(thing.validity.covers(day))
    return thing.validity.until is None or thing.validity.until > visible.day
