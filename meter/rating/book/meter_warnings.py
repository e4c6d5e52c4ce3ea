"""What is suspicious about a SKU, given the meters that this installation makes: warnings, as other hosts may have other plugins."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from fnmatch import fnmatchcase
from fractions import Fraction

from meter.rating.book.book_problem import suggestion
from meter.rating.book.price_book import Sku
from meter.rating.book.price_book import UsageKind
from meter.rating.book.units import BITS
from meter.rating.book.units import BYTES
from meter.rating.book.units import SECONDS
from meter.rating.book.units import Unit
from meter.rating.book.units import read_unit
from meter.sample import MeterDefinition
from meter.sample import SampleType

MEASURED: Mapping[UsageKind, tuple[SampleType, ...]] = {
    "integral": ("gauge",),
    "increase": ("cumulative",),
    "sum": ("delta",),
    "maximum": ("gauge",),
    "percentile95": ("cumulative", "gauge", "delta"),
}
"""The types of meters that each kind of usage measures."""

_SECONDS = {"s": Fraction(1), "ms": Fraction(1, 10**3), "us": Fraction(1, 10**6), "ns": Fraction(1, 10**9)}


def meter_warnings(sku: Sku, meters: Mapping[str, MeterDefinition]) -> Iterator[tuple[str, str]]:
    """Yield the keys of ``sku`` that are suspicious, and why; ``meters`` are those of all plugins, by name."""
    if sku.meter is None:
        return
    meter = meters.get(sku.meter)
    if meter is None:
        if not any(fnmatchcase(sku.meter, name) for name in meters if name != "*"):
            yield "meter", f"no plugin of this host makes the meter {sku.meter}{suggestion(sku.meter, list(meters))}"
        return
    if (expected := MEASURED.get(sku.usage)) is not None and meter.type not in expected:
        yield "usage", f"usage {sku.usage} measures {' or '.join(expected)} meters; {meter.name} is {meter.type}"
        return
    factor = _expected_factor(meter.unit, read_unit(sku.unit), sku.usage)
    if factor is not None and factor != sku.factor:
        yield "factor", f"{meter.name} is in {meter.unit}: to {sku.unit} the factor is {factor}, not {sku.factor}"


def _expected_factor(measured: str, unit: Unit, usage: UsageKind) -> Fraction | None:
    """Return the factor from the unit of a meter to ``unit``, ``None`` if it does not follow from them."""
    bits = {**{name: 8 * value for name, value in BYTES.items()}, **BITS}
    if measured in bits and unit.base in bits:
        factor = Fraction(bits[measured], bits[unit.base])
    elif measured in _SECONDS and unit.time in SECONDS and usage == "increase":
        return _SECONDS[measured] / SECONDS[unit.time] / unit.number
    else:
        return None
    if usage == "integral":
        factor /= SECONDS.get(unit.time or "", 1)
    if unit.per is not None:
        factor *= SECONDS.get(unit.per, 1)
    return factor / unit.number
