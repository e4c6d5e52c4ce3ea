"""The definition of exposition pollsters: which URLs they request, and which metrics become which meters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import field_validator
from pydantic import model_validator

from meter.declarative.request_fields import RequestFields
from meter.sample import MeterDefinition
from meter.sample import SampleType

LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
METRIC = r"^[a-zA-Z_:][a-zA-Z0-9_:]*$"
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")

CUMULATIVE_SUFFIXES = ("_total", "_count", "_sum", "_bucket")
"""By Prometheus' convention the names of counters, and of the parts of histograms and summaries, end so."""

INSTANCE = "instance"
"""The label that has host and port of the URL, as in Prometheus, unless the exporter sets one of this name."""


class MissingLabel(LookupError):
    """A series lacks a label, or has an empty one, that must have a value; the text names the label."""


class LabelText:
    """A text made of the labels of a series: the value of one label, or a text with names of labels in braces."""

    def __init__(self, text: str) -> None:
        if "{" in text or "}" in text:
            names = PLACEHOLDER.findall(text)
            if "{" in PLACEHOLDER.sub("", text) or "}" in PLACEHOLDER.sub("", text):
                raise ValueError(f"{text!r} has a brace without the other one")
        else:
            names = [text]
        for name in names:
            if not LABEL.fullmatch(name):
                raise ValueError(
                    f"{name!r} is not the name of a label; write a label, or a text such as '{{node}}/{{gpu}}'"
                )
        self._text = text
        self._only = text if "{" not in text else ""

    def of(self, labels: Mapping[str, str]) -> str:
        """Return the text for ``labels``; raise :class:`MissingLabel`."""
        if self._only:
            return _label(labels, self._only)
        return PLACEHOLDER.sub(lambda match: _label(labels, match[1]), self._text)


def _label(labels: Mapping[str, str], name: str) -> str:
    value = labels.get(name, "")
    if not value:
        raise MissingLabel(f"it has no label {name}")
    return value


class MetricDefinition(BaseModel):
    """A metric of the exposition, and the meter that its series become. ``docs/exposition-pollsters.rst`` has every field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str = Field(pattern=METRIC)
    meter: str = Field(pattern=r"^\S{1,255}$")
    unit: str = Field(min_length=1, max_length=255)
    type: SampleType | None = None
    where: dict[str, str | list[str]] = {}
    resource: str
    project: str = ""
    user: str = ""
    metadata: dict[str, str] = {}
    factor: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    sum: bool = False
    reset_with_exporter: bool = False

    @field_validator("metadata", mode="before")
    @classmethod
    def _from_list(cls, given: Any) -> Any:
        """A list of labels is shorthand for {label: label}."""
        return {str(name): name for name in given} if isinstance(given, list) else given

    @field_validator("resource", "project", "user")
    @classmethod
    def _validate_text(cls, text: str) -> str:
        if text:
            LabelText(text)
        return text

    @field_validator("resource")
    @classmethod
    def _validate_resource(cls, text: str) -> str:
        if not text:
            raise ValueError(f"should be a label, for example {INSTANCE}, the host and port of the URL")
        return text

    @model_validator(mode="after")
    def _validate(self) -> MetricDefinition:
        for name in (*self.where, *self.metadata.values()):
            if not LABEL.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a label")
        if self.type == "delta":
            raise ValueError("type should be gauge or cumulative: an exposition has no deltas")
        return self

    @property
    def sample_type(self) -> SampleType:
        """The type of the samples; without ``type``, by the end of the metric's name."""
        return self.type or ("cumulative" if self.metric.endswith(CUMULATIVE_SUFFIXES) else "gauge")

    @property
    def definition(self) -> MeterDefinition:
        """The meter."""
        return MeterDefinition(self.meter, self.sample_type, self.unit)

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Return whether the labels of a series have the values in ``where``; ``""`` is a label that is not there."""
        return all(
            labels.get(name, "") in ([wanted] if isinstance(wanted, str) else wanted)
            for name, wanted in self.where.items()
        )


class ExpositionDefinition(RequestFields):
    """Which URLs are requested, and what becomes of their metrics. ``docs/exposition-pollsters.rst`` has every field."""

    name: str = Field(pattern=r"^\S{1,100}$")
    urls: list[str] = Field(min_length=1)
    use_timestamps: bool = True
    meters: list[MetricDefinition] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _from_one_url(cls, given: Any) -> Any:
        """``url`` is shorthand for ``urls`` with one element."""
        if isinstance(given, Mapping) and "url" in given:
            if "urls" in given:
                raise ValueError("needs either url or urls, not both")
            return {**{name: value for name, value in given.items() if name != "url"}, "urls": [given["url"]]}
        return given

    @field_validator("urls")
    @classmethod
    def _validate_urls(cls, urls: list[str]) -> list[str]:
        for number, url in enumerate(urls, 1):  # shown by their number: a URL may have a password
            if not re.match(r"https?://[^/\s]", url):
                raise ValueError(f"should be http:// or https:// URLs, which number {number} is not")
            try:
                urlsplit(url)
            except ValueError:
                raise ValueError(f"number {number} is no valid URL") from None
        if len(set(urls)) < len(urls):
            raise ValueError("has a URL twice")
        return urls

    @model_validator(mode="after")
    def _validate_meters(self) -> ExpositionDefinition:
        found: dict[str, MeterDefinition] = {}
        for each in self.meters:
            other = found.setdefault(each.meter, each.definition)
            if other != each.definition:
                raise ValueError(
                    f"the meter {each.meter} is {other.type} in {other.unit} and {each.sample_type} in {each.unit}"
                )
        return self
