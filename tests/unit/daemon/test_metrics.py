"""What the metrics count, and that their number is bounded."""

from __future__ import annotations

import pytest
import pytest_twisted
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock

from meter.daemon.metrics import CONTENT_TYPE
from meter.daemon.metrics import BoundedLabel
from meter.daemon.metrics import CollectingMetrics
from meter.daemon.metrics import HealthMetrics
from meter.daemon.metrics import PollingMetrics
from meter.daemon.metrics import PublishingMetrics
from meter.daemon.metrics import exposition
from meter.daemon.metrics import metrics_registry
from meter.daemon.reactor_lag import ReactorLag
from meter.interfaces import Delivery
from meter.interfaces import Readiness
from meter.interfaces import Unavailable
from meter.query import Refusal
from meter.query import WriteResult


def series(registry) -> dict[str, float]:
    """Return the exposition as ``{'name{label="value"}': value}``."""
    families = text_string_to_metric_families(exposition(registry).decode())
    return {
        each.name + "".join(f"[{name}={value}]" for name, value in sorted(each.labels.items())): each.value
        for family in families
        for each in family.samples
    }


class Dependency:
    def __init__(self, name: str) -> None:
        self.name = name
        self.ready = False

    def readiness(self) -> Readiness:
        if self.ready is None:
            raise RuntimeError("cannot say")
        return Readiness(self.name, self.ready, "because")


def test_daemons_in_one_process_have_separate_metrics():
    one, other = metrics_registry("meter-api"), metrics_registry("meter-api")
    PollingMetrics(one).polled("cpu", "ok", 0.02, 3)
    PollingMetrics(other)
    assert series(one)["meter_polled_samples_total[pollster=cpu]"] == 3
    assert "meter_polled_samples_total[pollster=cpu]" not in series(other)


def test_build_info_has_daemon_and_version():
    [name] = [name for name in series(metrics_registry("meter-api")) if name.startswith("meter_build_info")]
    assert "[daemon=meter-api]" in name
    assert "[version=" in name


def test_polls_are_counted_by_pollster_and_outcome():
    registry = metrics_registry("x")
    metrics = PollingMetrics(registry)
    metrics.polled("cpu", "ok", 0.02, samples=3)
    metrics.polled("cpu", "timeout", 30.0)
    metrics.cycle_ended()
    metrics.cycles_skipped(2)
    now = series(registry)
    assert now["meter_polls_total[outcome=ok][pollster=cpu]"] == 1
    assert now["meter_polls_total[outcome=timeout][pollster=cpu]"] == 1
    assert now["meter_polled_samples_total[pollster=cpu]"] == 3
    assert now["meter_poll_seconds_bucket[le=0.05][pollster=cpu]"] == 1
    assert now["meter_poll_seconds_sum[pollster=cpu]"] == 30.02
    assert now["meter_polling_cycles_total"] == 1
    assert now["meter_polling_cycles_skipped_total"] == 2


def test_only_confirmed_samples_count_as_published():
    registry = metrics_registry("x")
    metrics = PublishingMetrics(registry)
    metrics.published("confirmed", 100)
    metrics.published("unavailable", 50)
    waiting = [1, 2, 3]
    metrics.watch_spool(lambda: len(waiting), lambda: 100 * len(waiting), lambda: 70.5)
    waiting.pop()
    metrics.dropped(4)
    now = series(registry)
    assert now["meter_published_samples_total"] == 100
    assert now["meter_publications_total[outcome=unavailable]"] == 1
    assert (now["meter_spool_messages"], now["meter_spool_bytes"], now["meter_spool_oldest_seconds"]) == (2, 200, 70.5)
    assert now["meter_spool_dropped_samples_total"] == 4


def test_collected_samples_are_counted_by_outcome():
    registry = metrics_registry("x")
    metrics = CollectingMetrics(registry)
    refused = (Refusal(0, "NUL"), Refusal(1, "another's id", "conflict"), Refusal(2, "NUL"))
    metrics.written(WriteResult(stored=5, duplicates=3, refused=refused), seconds=0.2)
    metrics.dead("bad signature")
    now = series(registry)
    outcomes = ("stored", "duplicate", "conflict", "refused")
    assert [now[f"meter_collected_samples_total[outcome={each}]"] for each in outcomes] == [5, 3, 1, 2]
    assert now["meter_dead_letters_total[reason=bad signature]"] == 1
    assert now["meter_store_write_seconds_count"] == 1
    assert now["meter_store_write_samples_sum"] == 11


@pytest_twisted.ensureDeferred
async def test_deliveries_are_counted_by_queue_redeliveries_included():
    registry = metrics_registry("x")
    metrics = CollectingMetrics(registry)
    delivery = Delivery(body=b"1", exchange="metering", routing_key="metering.cpu")
    received = []

    async def receive(delivery):
        received.append(delivery)
        if len(received) == 1:
            raise Unavailable("the store is away")

    counted = metrics.counting("meter.metering", receive)
    metrics.counting("meter.notifications", receive)
    with pytest.raises(Unavailable, match="the store is away"):
        await counted(delivery)
    await counted(delivery)
    assert received == [delivery, delivery]
    now = series(registry)
    assert now["meter_deliveries_total[queue=meter.metering]"] == 2
    assert now["meter_deliveries_total[queue=meter.notifications]"] == 0


def test_number_of_label_values_from_messages_is_bounded():
    registry = metrics_registry("x")
    metrics = CollectingMetrics(registry)
    for number in range(5000):
        metrics.notified(f"compute.{number}", "unwanted")
        metrics.dead(f"reason {number}")
    now = series(registry)
    assert len(now) < 800
    assert now["meter_notifications_total[event_type=other][outcome=unwanted]"] == 4500
    assert sum(value for name, value in now.items() if name.startswith("meter_dead_letters_total")) == 5000


def test_known_label_value_stays_known():
    names = BoundedLabel(most=1)
    assert [names.bounded(name) for name in ("a", "b", "a")] == ["a", "other", "a"]


def test_readiness_is_read_at_each_scrape():
    registry = metrics_registry("x")
    bus, store = Dependency("bus"), Dependency("store")
    HealthMetrics(registry).watch([bus, store])
    assert series(registry)["meter_dependency_ready[dependency=bus]"] == 0
    bus.ready, store.ready = True, None
    assert series(registry)["meter_dependency_ready[dependency=bus]"] == 1
    assert series(registry)["meter_dependency_ready[dependency=store]"] == 0


def test_external_counts_are_read_at_each_scrape():
    registry = metrics_registry("x")
    metrics = HealthMetrics(registry)
    hanging: list[int] = []
    metrics.count_abandoned_calls(hung=lambda: len(hanging), total=lambda: 2 + len(hanging))
    metrics.count_unpolled_changes(lambda: 4)
    hanging.append(1)
    now = series(registry)
    assert (now["meter_abandoned_threads"], now["meter_abandoned_calls_total"]) == (1, 3)
    assert now["meter_unpolled_domain_changes_total"] == 4


def test_reactor_lag_is_the_delay_of_a_call():
    clock, lags = Clock(), []
    service = ReactorLag(clock, lags.append, interval=1.0)
    service.startService()
    clock.advance(1.0)
    clock.advance(3.5)
    assert lags == [0.0, 2.5]
    service.stopService()
    assert clock.getDelayedCalls() == []


def test_metric_names_have_prefix_and_unit():
    registry = metrics_registry("x")
    for concern in (PollingMetrics, PublishingMetrics, CollectingMetrics, HealthMetrics):
        concern(registry)
    families = list(text_string_to_metric_families(exposition(registry).decode()))
    assert all(family.name.startswith("meter_") for family in families)
    assert all(family.documentation.endswith(".") for family in families)
    assert not [family.name for family in families if family.name.endswith("_created")]
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
