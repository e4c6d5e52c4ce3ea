"""The kinds of resources: their page lists them, and their meters and pollsters exist."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

from meter.completeness.lives.kinds import KINDS
from meter.completeness.lives.kinds import kind_of_meter
from meter.completeness.lives.kinds import meters_of
from meter.plugins.registry import CENTRAL
from meter.plugins.registry import COMPUTE
from meter.plugins.registry import LISTENER
from meter.plugins.registry import find

PAGE = Path(__file__).parents[3] / "docs/lives.rst"


def test_page_lists_every_kind_with_its_meters_and_pollsters() -> None:
    table = PAGE.read_text().split(".. kinds\n")[1].split("\n\n``lb_pool``")[0]
    rows = [line for line in table.splitlines() if line and not line.startswith(("=", "Kind "))]
    documented = {}
    for row in rows:
        name = row.split()[0]
        meters, pollsters, size = re.fullmatch(r"\S+ +(``.*``)  *(``[^`]*``|none)  *(\S+)", row.strip()).groups()  # type: ignore[union-attr]
        documented[name] = (set(re.findall("``(.*?)``", meters)), set(re.findall("``(.*?)``", pollsters)), size)
    assert documented == {
        kind.name: (set(kind.meters), set(kind.polled), kind.unit or ("flavor" if kind.flavor else "none"))
        for kind in KINDS.values()
    }


def test_meters_and_pollsters_of_kinds_exist() -> None:
    pollsters = [decision.plugin for decision in find([CENTRAL, COMPUTE])]
    plugins = [*pollsters, *(decision.plugin for decision in find([LISTENER]))]
    made = {meter.name for plugin in plugins for meter in plugin.meters}
    for kind in KINDS.values():
        assert all(any(fnmatchcase(meter, name) for name in made) for meter in kind.meters)
        assert set(kind.polled) <= {pollster.name for pollster in pollsters}
        for name in kind.polled:
            [polled] = [pollster.meters for pollster in pollsters if pollster.name == name]
            assert {meter.name for meter in polled} & set(kind.meters)


def test_every_meter_tells_of_one_kind() -> None:
    meters = meters_of(KINDS.values())
    assert len(meters) == len(set(meters))
    assert all(meter in kind.meters for meter in meters if (kind := kind_of_meter(meter)) is not None)
    assert kind_of_meter("cpu") is None
