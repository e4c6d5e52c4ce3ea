"""The minimum of a SKU: what a project uses of a resource on the first day is at least so much."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from itertools import groupby

from meter.rating.exact import EXACT
from meter.rating.usage.usage_atom import UsageAtom


class MinimumOfResources:
    """Adds what is missing to the first atom of a resource's first day; :meth:`applied` is called for one day after the other."""

    def __init__(self, minimum: Decimal | None) -> None:
        self._minimum = minimum
        self._began: set[tuple[str, str]] = set()

    def applied(self, atoms: Iterable[UsageAtom]) -> Iterator[UsageAtom]:
        """Yield the ``atoms`` of a day, which are in the order of project, resource and values."""
        if self._minimum is None:
            yield from atoms
            return
        for key, group in groupby(atoms, lambda atom: (atom.project_id, atom.resource_id)):
            of_resource = list(group)
            if key not in self._began and any(each.quantity > 0 for each in of_resource):
                self._began.add(key)
                used = Decimal(0)
                for each in of_resource:
                    used = EXACT.add(used, each.quantity)
                if used < self._minimum:
                    first = of_resource[0]
                    more = EXACT.subtract(self._minimum, used)
                    of_resource[0] = replace(first, quantity=EXACT.add(first.quantity, more))
            yield from of_resource
