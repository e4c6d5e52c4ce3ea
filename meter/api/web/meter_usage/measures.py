"""What is shown of a meter, by its type: counters as increase or rate, gauges as average and so on, deltas as sum."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from dataclasses import dataclass

from meter.query import Aggregate
from meter.query import AggregateFunction
from meter.sample import SampleType

COUNT = Aggregate("count")


@dataclass(frozen=True, slots=True)
class UsageMeasure:
    """One aggregate of a meter's samples. ``additive``: the values of groups add up to the value of all together."""

    function: AggregateFunction
    label: str
    additive: bool
    unit_form: str = "{}"

    @property
    def aggregate(self) -> Aggregate:
        """The aggregate to ask for."""
        return Aggregate(self.function)

    def unit_of(self, unit: str) -> str:
        """Return the unit of the values, for samples in ``unit``."""
        if not unit:
            return {"rate": "1/s", "integral": "h", "count": "samples"}.get(self.function, "")
        return self.unit_form.format(unit)


MEASURES: Mapping[str, UsageMeasure] = {
    each.function: each
    for each in (
        UsageMeasure("increase", "Increase", True),
        UsageMeasure("rate", "Increase per second", True, "{}/s"),
        UsageMeasure("avg", "Average", False),
        UsageMeasure("max", "Maximum", False),
        UsageMeasure("min", "Minimum", False),
        UsageMeasure("integral", "Integral over hours", True, "{}\u00b7h"),
        UsageMeasure("sum", "Sum", True),
        UsageMeasure("count", "Number of samples", True, "samples"),
    )
}
"""All measures, by their names in URLs, which are those of the API's aggregates."""

MEASURES_OF_TYPE: Mapping[SampleType, tuple[str, ...]] = {
    "cumulative": ("increase", "rate", "count"),
    "gauge": ("avg", "max", "min", "integral", "count"),
    "delta": ("sum", "max", "count"),
}
"""The measures of a meter by its type, the usual one first."""


def measures_of(types: Collection[SampleType]) -> tuple[UsageMeasure, ...]:
    """Return the measures of a meter with samples of ``types``: those that all of its types have, else those of any meter."""
    first, *others = types
    common = [name for name in MEASURES_OF_TYPE[first] if all(name in MEASURES_OF_TYPE[each] for each in others)]
    names = common if common != ["count"] else ["avg", "max", "min", "count"]
    return tuple(MEASURES[name] for name in names)
