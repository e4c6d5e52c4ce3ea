"""The series of the wanted metrics in a response, in Prometheus' text format or in OpenMetrics.

The parser is that of prometheus_client. Only the lines of metrics that are wanted are parsed, some at a time, because an exporter can
have a hundred thousand others.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from collections.abc import Iterator
from datetime import UTC
from datetime import datetime
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.interfaces import IReactorTime

from meter.daemon.services import sleep
from meter.declarative.exposition.definition import CUMULATIVE_SUFFIXES
from meter.http import BadResponse
from meter.http import HttpResponse
from meter.sample import SampleType

ACCEPT = "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.8, */*;q=0.1"
OPENMETRICS = "application/openmetrics-text"

LINES_AT_ONCE = 200
"""Lines that are parsed before the reactor runs again: some milliseconds."""

MAX_LINES = 100_000
"""Lines of wanted metrics in a response."""

PROCESS_START = "process_start_time_seconds"
CREATED = "_created"

KINDS: dict[str, SampleType] = {
    "counter": "cumulative",
    "histogram": "cumulative",
    "summary": "cumulative",
    "gauge": "gauge",
    "stateset": "gauge",
    "info": "gauge",
    "gaugehistogram": "gauge",
}
"""Kinds of metrics, as an exposition declares them, and the type of their samples."""


Labels = frozenset[tuple[str, str]]


class ExposedSeries(NamedTuple):
    """The value of a series, and its time if the exporter states one."""

    labels: dict[str, str]
    value: float
    timestamp: datetime | None


class Exposition:
    """The wanted metrics of a response: ``series`` and the declared ``kinds`` by name of the metric.

    ``created`` has the times at which series were created, by name and labels, and ``process_start`` that of the exporter, as text.
    """

    def __init__(self) -> None:
        self.series: dict[str, list[ExposedSeries]] = {}
        self.kinds: dict[str, str] = {}
        self.created: dict[tuple[str, Labels], str] = {}
        self.process_start = ""

    def created_at(self, metric: str, labels: dict[str, str]) -> str:
        """Return when a series was created, as text, since when it counts; ``""`` if the exporter does not say so."""
        for name in (f"{_family(metric)}{CREATED}", f"{metric}{CREATED}"):
            if created := self.created.get((name, _key(labels))):
                return created
        return ""

    def add(self, name: str, series: ExposedSeries) -> None:
        """Add a series of the metric ``name``."""
        if name == PROCESS_START:
            self.process_start = self.process_start or repr(series.value)
        if name.endswith(CREATED):
            self.created[name, _key(series.labels)] = repr(series.value)
        self.series.setdefault(name, []).append(series)

    def type_of(self, metric: str) -> SampleType | None:
        """Return the type that the exposition declares for ``metric``, ``None`` if it declares none."""
        kind = self.kinds.get(metric) or self.kinds.get(_family(metric))
        if kind == "summary" and metric in self.kinds:  # its quantiles, which have no suffix
            return "gauge"
        return KINDS.get(kind or "")


async def read_exposition(response: HttpResponse, metrics: Collection[str], clock: IReactorTime) -> Exposition:
    """Return the series of ``metrics`` in ``response``; raise :class:`BadResponse` if it is no exposition."""
    is_openmetrics = (response.header("content-type") or "").startswith(OPENMETRICS)
    if is_openmetrics and not response.body.rstrip().endswith(b"# EOF"):
        raise BadResponse(f"{response.request}: the exposition is cut off: its last line is not # EOF")
    found = Exposition()
    lines: list[str] = []
    for number, line in enumerate(_wanted_lines(response, metrics), 1):
        if number > MAX_LINES:
            raise BadResponse(f"{response.request}: there are more than {MAX_LINES} series of the metrics")
        lines.append(line)
        if len(lines) == LINES_AT_ONCE:
            _parse(response, lines, is_openmetrics, found)
            lines = []
            await sleep(clock, 0)
    _parse(response, lines, is_openmetrics, found)
    return found


def _wanted_lines(response: HttpResponse, metrics: Collection[str]) -> Iterator[str]:
    """Yield the lines with series of ``metrics``, and with their kinds."""
    names = {PROCESS_START, *metrics}
    families = {*names, *(_family(name) for name in names)}
    names |= {f"{name}{CREATED}" for name in families}
    series, kinds = ("|".join(re.escape(name) for name in sorted(each)) for each in (names, families))
    wanted = re.compile(rf"^(?:(?:{series})[{{ \t]|#[ \t]+TYPE[ \t]+(?:{kinds})[ \t])[^\n]*", re.MULTILINE)
    try:
        text = response.body.decode()
    except UnicodeDecodeError as error:
        raise BadResponse(f"{response.request}: the exposition is not UTF-8: {error}") from None
    if text and not text.lstrip().startswith("#") and not re.match(r"\s*[a-zA-Z_:][a-zA-Z0-9_:]*[{ \t]", text):
        raise BadResponse(f"{response.request}: this is no exposition of metrics: {text[:80]!r}")
    for match in wanted.finditer(text):
        yield match[0].rstrip("\r")


def _parse(response: HttpResponse, lines: list[str], is_openmetrics: bool, found: Exposition) -> None:
    kept = []
    for line in lines:
        if line.startswith("#"):
            _, _, name, kind = (*line.split(), "")[:4]
            found.kinds[name] = kind
        else:
            kept.append(_without_exemplar(line) if is_openmetrics else line)
    try:
        for family in text_string_to_metric_families("\n".join([*kept, ""])):
            for each in family.samples:
                at = None if each.timestamp is None else float(each.timestamp) * (1000 if is_openmetrics else 1)
                time = None if at is None else datetime.fromtimestamp(at, UTC)
                found.add(each.name, ExposedSeries(dict(each.labels), float(each.value), time))
    except (ValueError, OverflowError, OSError, LookupError) as error:
        raise BadResponse(f"{response.request}: a line of the exposition cannot be read: {error}") from None


def _family(metric: str) -> str:
    """Return the name of the family of ``metric``, under which an exposition declares its kind."""
    for suffix in CUMULATIVE_SUFFIXES:
        if metric.endswith(suffix) and metric != suffix:
            return metric.removesuffix(suffix)
    return metric


def _key(labels: dict[str, str]) -> Labels:
    return frozenset(labels.items())


_EXEMPLAR = re.compile(r"""((?:[^"#]|"(?:[^"\\]|\\.)*")*)""")


def _without_exemplar(line: str) -> str:
    """Return ``line`` up to its exemplar, which OpenMetrics writes after a ``#``."""
    match = _EXEMPLAR.match(line)
    return match[0].rstrip() if match else line
