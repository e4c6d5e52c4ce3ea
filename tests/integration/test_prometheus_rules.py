"""promtool accepts the rules and the configuration for Prometheus, and each alert fires when it should and only then."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers.prometheus import run_promtool

RULES = Path(__file__).parents[2] / "etc/prometheus"
ALERTS: Mapping[str, Any] = {
    rule["alert"]: rule
    for group in yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}

COLLECTOR = {"job": "meter", "instance": "collector:8779"}


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    pairs = ",".join(f'{key}="{value}"' for key, value in {**COLLECTOR, **labels}.items())
    return {"series": f"{name}{{{pairs}}}", "values": values}


def lag(timers: str) -> list[dict[str, str]]:
    """Return 600 timers an hour that were in time, of ``timers`` in all."""
    return [
        series("meter_reactor_lag_seconds_bucket", "0+10x180", le="0.1"),
        series("meter_reactor_lag_seconds_bucket", timers, le="0.5"),
        series("meter_reactor_lag_seconds_bucket", timers, le="+Inf"),
    ]


@dataclass(frozen=True)
class Case:
    """An alert, series with a value per minute at which it fires after ``minutes``, and the labels it then has."""

    alert: str
    series: list[dict[str, str]]
    minutes: int = 20
    labels: Mapping[str, str] = field(default_factory=lambda: COLLECTOR)


CASES = [
    Case(
        "MeterSampleConflict",
        [series("meter_collected_samples_total", "0x15 1x10", outcome="conflict")],
        labels={**COLLECTOR, "outcome": "conflict"},
    ),
    Case(
        "MeterUnverifiedSamples",
        [series("meter_dead_letters_total", "0x15 1x10", reason="unverified")],
        labels={**COLLECTOR, "reason": "unverified"},
    ),
    Case("MeterSamplesLost", [series("meter_spool_dropped_samples_total", "0x15 250x10")]),
    Case(
        "MeterDeadLetters",
        [series("meter_dead_letters_total", "0x15 1x10", reason="malformed")],
        labels={"instance": "collector:8779", "reason": "malformed"},
    ),
    Case(
        "MeterDeadLettersFull",
        [series("meter_dependency_ready", "0x30", dependency="dead letters")],
        labels={**COLLECTOR, "dependency": "dead letters"},
    ),
    Case(
        "MeterNothingStored",
        [
            series("meter_published_samples_total", "0+60x120", instance="compute:8779"),
            series("meter_collected_samples_total", "0x120", outcome="stored"),
        ],
        60,
        {},
    ),
    Case("MeterDaemonDown", [series("up", "1x5 0x30")]),
    Case(
        "MeterPollsFail",
        [
            series("meter_polls_total", "0+3x120", pollster="cpu", outcome="timeout"),
            series("meter_polls_total", "0+1x120", pollster="cpu", outcome="ok"),
        ],
        60,
        {"instance": "collector:8779", "pollster": "cpu"},
    ),
    Case("MeterCyclesSkipped", [series("meter_polling_cycles_skipped_total", "0+1x120")], 60),
    Case("MeterSpoolGrows", [series("meter_spool_oldest_seconds", "0+60x120")], 60),
    Case("MeterHangingDomains", [series("meter_hanging_domains", "1x60")], 30),
    Case("MeterThreadsAbandoned", [series("meter_abandoned_threads", "1x60")], 30),
    Case(
        "MeterCircuitOpen",
        [series("meter_request_circuit_open", "1x60", service="compute")],
        30,
        {**COLLECTOR, "service": "compute"},
    ),
    Case(
        "MeterDependencyMissing",
        [series("meter_dependency_ready", "0x30", dependency="store")],
        labels={**COLLECTOR, "dependency": "store"},
    ),
    Case(
        "MeterReloadFailed",
        [series("meter_configuration_reloads_total", "0x15 1x10", result="invalid")],
        labels={**COLLECTOR, "result": "invalid"},
    ),
    Case("MeterSettingsWait", [series("meter_configuration_settings_waiting", "2x1600")], 1500),
    Case(
        "MeterCertificateEnds",
        [series("meter_certificate_expiry_timestamp_seconds", "1200000x180", port="api")],
        150,
        {**COLLECTOR, "port": "api"},
    ),
    Case("MeterReactorHeld", lag("0+20x180"), 60, {"instance": "collector:8779"}),
    Case(
        "MeterStoreSlow",
        [
            series("meter_store_write_seconds_bucket", "0x180", le="5.0"),
            series("meter_store_write_seconds_bucket", "0+1x180", le="10.0"),
            series("meter_store_write_seconds_bucket", "0+1x180", le="+Inf"),
        ],
        60,
        {"instance": "collector:8779"},
    ),
    Case("MeterStopTimeouts", [series("meter_service_stop_timeouts_total", "0x15 1x10")]),
    Case(
        "MeterRatingFails",
        [series("meter_rating_step_failures_total", "0+1x120", step="usage")],
        60,
        {**COLLECTOR, "step": "usage"},
    ),
    Case("MeterAccountsNotClosed", [series("meter_rating_closable_accounts", "2x1600")], 1560, {}),
    Case("MeterBudgetsLate", [series("meter_budgets_evaluated_timestamp_seconds", "0x120")], 100, {}),
    Case("MeterWebhooksFailed", [series("meter_webhooks_failed", "1x30", target="crm")], labels={"target": "crm"}),
]

HEALTHY = [
    series("meter_configuration_reloads_total", "0x800 1x799", result="ok"),
    series("meter_configuration_reloads_total", "2x1600", result="invalid"),
    series("meter_configuration_settings_waiting", "3x1000 0x599"),
    series("meter_certificate_expiry_timestamp_seconds", "1400000x1600", port="api"),
    series("up", "1x1600"),
    series("meter_collected_samples_total", "0+60x1600", outcome="stored"),
    series("meter_collected_samples_total", "0x1600", outcome="conflict"),
    series("meter_published_samples_total", "0+60x1600", instance="compute:8779"),
    series("meter_dead_letters_total", "3x1600", reason="malformed"),
    series("meter_spool_dropped_samples_total", "7x1600"),
    series("meter_dependency_ready", "1x1600", dependency="store"),
    series("meter_dependency_ready", "1x1600", dependency="dead letters"),
    series("meter_polls_total", "0+9x1600", pollster="cpu", outcome="ok"),
    series("meter_polls_total", "0+1x1600", pollster="cpu", outcome="timeout"),
    series("meter_polling_cycles_skipped_total", "0x800 1x799"),
    series("meter_spool_oldest_seconds", "30x1600"),
    series("meter_hanging_domains", "0x1600"),
    series("meter_abandoned_threads", "0x1600"),
    series("meter_request_circuit_open", "0x1600", service="compute"),
    *lag("0+10x180"),
    series("meter_store_write_seconds_bucket", "0+1x1600", le="0.1"),
    series("meter_store_write_seconds_bucket", "0+1x1600", le="+Inf"),
    series("meter_service_stop_timeouts_total", "0x1600"),
    series("meter_rating_step_failures_total", "5x1600", step="usage"),
    series("meter_rating_closable_accounts", "2x1000 0x599"),
    series("meter_budgets_evaluated_timestamp_seconds", "0+60x1600"),
    series("meter_webhooks_failed", "0x1600", target="crm"),
]
"""Everything works: what happened before the start, or for a moment, is no alert."""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RULES, tmp_path / "prometheus"))


def test_promtool_accepts_the_configuration_and_the_rules(rules: Path) -> None:
    (rules / "meter-token").write_text("token")
    config = (rules / "prometheus.yml").read_text()
    (rules / "prometheus.yml").write_text(config.replace("/etc/prometheus/meter-token", "meter-token"))
    found = run_promtool("check", "config", "prometheus.yml", cwd=rules)
    assert "prometheus.yml is valid prometheus config file" in found
    assert f"{len(ALERTS)} rules found" in found


def test_every_alert_has_a_case() -> None:
    assert {case.alert for case in CASES} == set(ALERTS)


def test_each_alert_fires_in_its_case_and_none_while_everything_works(rules: Path) -> None:
    tests = [
        {
            "interval": "1m",
            "input_series": case.series,
            "alert_rule_test": [
                {
                    "alertname": case.alert,
                    "eval_time": f"{case.minutes}m",
                    "exp_alerts": [
                        {
                            "exp_labels": {**case.labels, **ALERTS[case.alert]["labels"]},
                            "exp_annotations": ALERTS[case.alert]["annotations"],
                        }
                    ],
                }
            ],
        }
        for case in CASES
    ]
    quiet = {
        "interval": "1m",
        "input_series": HEALTHY,
        "alert_rule_test": [
            {"alertname": name, "eval_time": f"{minutes}m", "exp_alerts": []}
            for name in ALERTS
            for minutes in (90, 1500)
        ],
    }
    document = {"rule_files": ["recording.yml", "alerts.yml"], "evaluation_interval": "1m", "tests": [*tests, quiet]}
    (rules / "tests.yml").write_text(yaml.safe_dump(document))
    assert "SUCCESS" in run_promtool("test", "rules", "tests.yml", cwd=rules)
