"""Strategies: books with every kind of price, and usage in whole units."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from hypothesis import strategies as st

from meter.rating.book.price_book import Per
from meter.rating.book.price_book import Price
from meter.rating.book.price_book import PriceScope
from meter.rating.usage.usage_atom import UsageAtom
from tests.price_books import november
from tests.price_books import price
from tests.price_books import tiers
from tests.price_books import used
from tests.price_books import valid

FLAVORS = ("small", "big")
PROJECTS = ("shop", "web")
RESOURCES = ("r1", "r2", "r3")

amounts = st.integers(0, 2000).map(lambda thousandths: str(Decimal(thousandths).scaleb(-3)))


@st.composite
def prices(draw: st.DrawFn, pers: Sequence[Per] = ("account", "project", "resource")) -> list[Price]:
    """Prices of one SKU: for everybody with a change on the 15th, perhaps for one flavor, perhaps for one project."""

    def one(id: str, **fields: object) -> Price:
        mode = draw(st.sampled_from(["unit", "graduated", "volume", "package"]))
        edges = sorted(draw(st.sets(st.integers(1, 12), max_size=2)))
        edges = edges if mode in ("graduated", "volume") else []
        return price(
            id,
            mode=mode,
            tiers=tiers(*((str(edge), draw(amounts)) for edge in edges), (None, draw(amounts))),
            package_size=Decimal(draw(st.integers(1, 5))) if mode == "package" else None,
            free=Decimal(draw(st.integers(0, 4))),
            per=draw(st.sampled_from(pers)),
            **fields,
        )

    found = [one("old", validity=valid(until=november(15))), one("new", validity=valid(since=november(15)))]
    if draw(st.booleans()):
        found.append(one("flavor", match={"flavor": "small"}, validity=valid(since=november(draw(st.integers(1, 20))))))
    if draw(st.booleans()):
        found.append(
            one("own", scope=PriceScope(project="web"), validity=valid(until=november(draw(st.integers(5, 30)))))
        )
    return found


@st.composite
def usage(draw: st.DrawFn) -> list[UsageAtom]:
    """Usage of a few resources, at most one quantity for each resource, day and flavor; in the order of days."""
    keys = st.tuples(
        st.integers(1, 30), st.sampled_from(PROJECTS), st.sampled_from(RESOURCES), st.sampled_from(FLAVORS)
    )
    drawn = draw(st.dictionaries(keys, st.integers(1, 7), max_size=14))
    return [
        used(day, units, project, resource, flavor=flavor)
        for (day, project, resource, flavor), units in sorted(drawn.items())
    ]


def split(atom: UsageAtom, parts: Sequence[int]) -> list[UsageAtom]:
    """The usage of ``atom`` by several resources, in proportion to ``parts``."""
    quantity = atom.quantity / sum(parts)
    return [
        used(
            atom.day,
            (quantity * part).quantize(Decimal("1e-9")),
            atom.project_id,
            f"{atom.resource_id}.{number}",
            **atom.values,
        )
        for number, part in enumerate(parts)
    ]
