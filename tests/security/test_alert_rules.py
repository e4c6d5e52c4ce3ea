"""The alert rules in the documentation ask for metrics that exist."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

TOP = Path(__file__).parents[2]
OPERATING = (TOP / "docs/operating.rst").read_text()
METRICS = "\n".join(path.read_text() for path in sorted((TOP / "meter/daemon").glob("*.py")))


def rules() -> list[dict[str, str]]:
    block = re.split(r"\n(?=\S)", OPERATING.partition(".. code-block:: yaml\n\n")[2])[0]
    [group] = yaml.safe_load(re.sub(r"^    ", "", block, flags=re.MULTILINE))["groups"]
    return list(group["rules"])


def test_every_alert_asks_for_a_metric_that_exists() -> None:
    names = {name for rule in rules() for name in re.findall(r"\bmeter_\w+", rule["expr"])}
    assert len(names) >= 5
    for name in names:
        known = re.sub("_(total|bucket)$", "", name).removeprefix("meter_spool_oldest_")
        assert f'"{known}"' in METRICS or f'"oldest_{known}"' in METRICS, name


def test_forgeries_have_alerts_of_their_own() -> None:
    expressions = [rule["expr"] for rule in rules() if rule["labels"]["severity"] == "critical"]
    assert any('outcome="conflict"' in each for each in expressions)
    assert any('reason=~"unverified|conflict"' in each for each in expressions)
