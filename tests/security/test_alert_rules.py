"""The alert rules for Prometheus ask for metrics that exist, and forgeries have alerts of their own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.taps.test_metrics import documented

TOP = Path(__file__).parents[2]
METRICS = documented((TOP / "docs/operating.rst").read_text())
FILES = ("alerts.yml", "recording.yml")


def rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((TOP / "etc/prometheus" / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def missing(expressions: list[str]) -> set[str]:
    """Return the metrics in ``expressions`` that no daemon has; those of histograms have a suffix."""
    names = {name for each in expressions for name in re.findall(r"\bmeter_\w+", each)}
    return {name for name in names if name not in METRICS and re.sub("_(bucket|sum|count)$", "", name) not in METRICS}


@pytest.mark.parametrize("name", FILES)
def test_every_rule_asks_for_metrics_that_exist(name: str) -> None:
    assert len(rules(name)) > 5
    assert missing([rule["expr"] for rule in rules(name)]) == set()


def test_a_metric_that_does_not_exist_is_noticed() -> None:
    assert missing(["rate(meter_smaples_total[5m])", "meter_poll_seconds_bucket"]) == {"meter_smaples_total"}


def test_every_recorded_metric_that_an_alert_asks_for_is_recorded() -> None:
    asked = {name for rule in rules("alerts.yml") for name in re.findall(r"\bmeter:[\w:]+", rule["expr"])}
    assert asked
    assert asked <= {rule["record"] for rule in rules("recording.yml")}


def test_forgeries_have_alerts_of_their_own() -> None:
    expressions = [rule["expr"] for rule in rules("alerts.yml") if rule["labels"]["severity"] == "critical"]
    assert any('outcome="conflict"' in each for each in expressions)
    assert any('reason=~"unverified|conflict"' in each for each in expressions)
