"""When the certificates of a daemon's own ports end."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class CertificateMetrics(Collector):
    """The end of the certificate of each port that speaks TLS; ``ends`` has functions by the name of the port, *api* or *status*."""

    def __init__(self, registry: CollectorRegistry, ends: Mapping[str, Callable[[], datetime]]) -> None:
        self._ends = ends
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Yield the metric with the present ends: the files may have been renewed."""
        family = GaugeMetricFamily(
            "meter_certificate_expiry_timestamp_seconds",
            "When the certificate ends with which a port of this daemon speaks TLS, in seconds since 1970.",
            labels=["port"],
        )
        for port, end in self._ends.items():
            family.add_metric([port], end().timestamp())
        yield family
