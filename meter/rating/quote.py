"""Prices a wish: what resources would cost in a month, by the rules by which statements are made."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

from meter.completeness.lives.observation import LifeSegment
from meter.rating.book.book_problem import suggestion
from meter.rating.book.price_book import Account
from meter.rating.book.price_book import Membership
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_book import Sku
from meter.rating.exact import quantity
from meter.rating.money.rated import Rated
from meter.rating.money.rating import in_order
from meter.rating.money.rating import rate
from meter.rating.period import BillingPeriod
from meter.rating.usage.existence import existence
from meter.rating.usage.existence import rounded_up
from meter.rating.usage.measured_skus import MeasuredDay
from meter.rating.usage.measured_skus import measured_days
from meter.rating.usage.minimum import MinimumOfResources
from meter.rating.usage.usage_atom import UsageAtom

MAX_COUNT = 1000
"""Maximum number of resources of a wish: each is counted on its own."""

ANYBODY = " anybody "
"""The project of a quote that names none. No price can be for it: ids in price books have no blanks at their ends."""

DEFAULT_STATE = "active"
"""The state of resources whose state no wish and no SKU says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """``count`` resources with ``values`` that use ``sku`` for ``hours`` from the begin of the month on (``None``: all of it).

    ``size`` is that of a resource, or the value of the gauge that is integrated. ``quantity`` is what each resource uses, in the
    unit of the SKU, of usage that has no duration.
    """

    sku: str
    values: Mapping[str, str] = field(default_factory=dict)
    count: int = 1
    hours: Decimal | None = None
    size: Decimal | None = None
    quantity: Decimal | None = None


def quote(
    book: PriceBook,
    wishes: Sequence[Wish],
    period: BillingPeriod,
    *,
    project: str = ANYBODY,
    account: Account | None = None,
    domain: str | None = None,
) -> Rated:
    """Return what ``wishes`` cost in ``period``: lines of usage, discounts and taxes; no fixed charges, minimums and credits.

    Without ``project``, ``account`` and ``domain`` the prices are those for everybody.

    :raises ValueError: a wish does not fit its SKU; the text says how.
    """
    payer = replace(
        account or Account(id=project, name="", book=book.name),
        projects=(Membership(id=project),),
        domains=(),
        implied=False,  # the directory below names it
    )
    priced = replace(book, fixed_charges=(), minimums=(), credits=())
    directory = PriceDirectory(books={book.name: priced}, accounts={payer.id: payer})
    atoms = [
        atom
        for number, wish in enumerate(wishes, 1)
        for atom in _atoms(_sku_of(book, wish), wish, period, project, f"wish {number}")
    ]
    return rate(directory, priced, payer, period, in_order(atoms), domain_of=lambda _project, _day: domain)


def _sku_of(book: PriceBook, wish: Wish) -> Sku:
    sku = book.skus.get(wish.sku)
    if sku is None:
        raise ValueError(f"the book {book.name} has no SKU {wish.sku!r}{suggestion(wish.sku, list(book.skus))}")
    if not 1 <= wish.count <= MAX_COUNT:
        raise ValueError(f"{sku.id}: count must be a whole number from 1 to {MAX_COUNT}")
    for name in wish.values:
        if name not in sku.by:
            raise ValueError(f"{sku.id}: prices do not depend on {name!r}{suggestion(name, sku.by)}")
    needs_size = sku.times_size or sku.usage == "integral"
    if sku.usage in ("exists", "integral"):
        if wish.quantity is not None:
            raise ValueError(f"{sku.id}: usage {sku.usage} is a duration: give hours instead of quantity")
        if needs_size and wish.size is None:
            raise ValueError(f"{sku.id}: size is missing")
        if not needs_size and wish.size is not None and "size" not in sku.by:
            raise ValueError(f"{sku.id}: neither the quantity nor a price depends on the size")
    else:
        if wish.quantity is None:
            raise ValueError(f"{sku.id}: quantity is missing, in {sku.unit}")
        if wish.hours is not None or wish.size is not None:
            raise ValueError(f"{sku.id}: usage {sku.usage} has no duration: give quantity instead of hours and size")
    return sku


def _atoms(sku: Sku, wish: Wish, period: BillingPeriod, project: str, name: str) -> Iterator[UsageAtom]:
    for number in range(wish.count):
        minimum = MinimumOfResources(sku.minimum)
        for atom in _of_resource(sku, wish, period):
            yield from minimum.applied([replace(atom, project_id=project, resource_id=f"{name}.{number:03}")])


def _of_resource(sku: Sku, wish: Wish, period: BillingPeriod) -> Iterator[UsageAtom]:
    """Yield what one resource uses on each day."""
    empty = UsageAtom(
        sku=sku.id,
        project_id="",
        resource_id="",
        day=period.first,
        values={name: wish.values.get(name, "") for name in sku.by},
        quantity=Decimal(0),
    )
    if wish.quantity is not None:
        # On the first day, whose price is that of a quantity of the period, too.
        yield replace(empty, quantity=rounded_up(quantity(Fraction(wish.quantity)), sku.round_up_to))
        return
    length = Fraction(period.seconds) if wish.hours is None else Fraction(wish.hours) * 3600
    if not 0 < length <= period.seconds:
        raise ValueError(
            f"{sku.id}: hours must be above 0 and at most {period.seconds // 3600}, those of {period.name}"
        )
    end = period.start + timedelta(microseconds=int(length * 1_000_000))
    for day in measured_days(period, end):
        if sku.usage == "exists":
            yield from _existing(sku, wish, day, empty, period)
        else:
            seconds = Fraction((day.finish - day.start) // timedelta(microseconds=1), 1_000_000)
            used = quantity(Fraction(wish.size or 0) * seconds * sku.factor)
            yield replace(empty, day=day.day, quantity=rounded_up(used, sku.round_up_to))


def _existing(sku: Sku, wish: Wish, day: MeasuredDay, empty: UsageAtom, period: BillingPeriod) -> Iterator[UsageAtom]:
    segment = LifeSegment(
        state=wish.values.get("state") or (sku.states[0] if sku.states else DEFAULT_STATE),
        flavor=wish.values.get("flavor"),
        size=None if wish.size is None else float(wish.size),
        project_id="",
        user_id=None,
        name=None,
        began=period.start,
        began_told_by="event",
        began_within=0,
        ended=day.finish,
        ended_told_by="event",
        ended_within=0,
    )
    for (_, values), (used, _) in existence(sku, [segment], day.start, day.finish).items():
        yield replace(empty, day=day.day, values=dict(values), quantity=used)
