"""One description of a REST pollster, in our own words or in Ceilometer's."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import SecretStr
from pydantic import field_validator
from pydantic import model_validator

from meter.rest.expressions import BadExpression
from meter.rest.expressions import Expression
from meter.rest.expressions import expression
from meter.sample import MeterDefinition
from meter.sample import SampleType


class RestDefinition(BaseModel):
    """What is asked, and how an answer becomes samples. ``docs/rest-pollsters.rst`` describes every field."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, hide_input_in_errors=True)

    meter: str = Field(pattern=r"^\S{1,255}$")
    type: SampleType
    unit: str = Field(min_length=1, max_length=255)
    name: str = ""
    url: str = ""
    service: str = ""
    path: str = ""
    headers: dict[str, str] = {}
    username: str = ""
    password: SecretStr = SecretStr("")
    password_file: str = ""
    token_file: str = ""
    entries: str = ""
    volume: str
    words: dict[str, float | int] = {}
    otherwise: float | int | None = None
    skip: list[Any] = []
    resource: str = "id"
    project: str = "project_id"
    user: str = "user_id"
    metadata: dict[str, str] = {}
    next: str = ""
    method: Literal["GET"] = "GET"

    @field_validator("metadata", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        """A list of places is metadata that is called as its places are."""
        return dict(zip(given, given, strict=True)) if isinstance(given, list) else given

    @field_validator("volume", "resource", "project", "user", "entries", "next")
    @classmethod
    def _written_well(cls, text: str) -> str:
        if text:
            _expression(text)
        return text

    @model_validator(mode="after")
    def _one_address(self) -> RestDefinition:
        if bool(self.url) == bool(self.service):
            raise ValueError("should have either url or service")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError("url should be an http:// or https:// URL")
        for text in self.metadata.values():
            _expression(text)
        return self

    @property
    def definition(self) -> MeterDefinition:
        """The meter."""
        return MeterDefinition(self.meter, self.type, self.unit)

    @property
    def pollster_name(self) -> str:
        """The name by which the pollster is switched off, and its budget found."""
        return self.name or self.meter

    def place(self, field: str) -> Expression | None:
        """Return the expression of ``field``, ``None`` where it is empty."""
        text = getattr(self, field)
        return _expression(text) if text else None

    def all_headers(self) -> dict[str, str]:
        """Return the headers with what proves who we are; secrets are read from their files each time."""
        headers = dict(self.headers)
        if self.username:
            secret = _content(self.password_file) if self.password_file else self.password.get_secret_value()
            pair = base64.b64encode(f"{self.username}:{secret}".encode()).decode("ascii")
            headers["Authorization"] = f"Basic {pair}"
        elif self.token_file:
            headers["Authorization"] = f"Bearer {_content(self.token_file)}"
        return headers


def _content(path: str) -> str:
    return Path(path).read_text(encoding="utf-8").strip()


def _expression(text: str) -> Expression:
    try:
        return expression(text)
    except BadExpression as error:
        raise ValueError(str(error)) from None


CEILOMETER: Mapping[str, str] = {
    "name": "meter",
    "sample_type": "type",
    "unit": "unit",
    "value_attribute": "volume",
    "value_mapping": "words",
    "skip_sample_values": "skip",
    "response_entries_key": "entries",
    "next_sample_url_attribute": "next",
    "user_id_attribute": "user",
    "project_id_attribute": "project",
    "resource_id_attribute": "resource",
}
"""Ceilometer's words and ours."""

ELSEWHERE = frozenset(
    [
        "endpoint_type",
        "url_path",
        "metadata_fields",
        "metadata_mapping",
        "preserve_mapped_metadata",
        "default_value",
        "headers",
        "timeout",
        "namespaces",
        "response_handlers",
    ]
)
"""What is translated below, or says nothing here."""


def from_ceilometer(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of a dynamic pollster file in our words; ``ValueError`` for what it asks that we do not do."""
    unknown = sorted(set(entry) - set(CEILOMETER) - ELSEWHERE)
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not done by Meter")
    if entry.get("response_handlers", ["json"]) != ["json"]:
        raise ValueError("response_handlers: only json is read")
    ours: dict[str, Any] = {CEILOMETER[key]: value for key, value in entry.items() if key in CEILOMETER}
    if "{" in str(entry.get("name")) or str(entry.get("value_attribute", "")).startswith("["):
        raise ValueError("several metrics from one entry are not done by Meter: write a definition for each")
    path = str(entry.get("url_path", ""))
    if path.startswith(("http://", "https://")):
        ours["url"] = path
    else:
        ours |= {"service": entry.get("endpoint_type", ""), "path": path.lstrip("/")}
    if "value_mapping" in entry:
        ours["otherwise"] = entry.get("default_value", -1)
    ours["metadata"] = dict(_metadata(entry))
    ours["headers"] = _headers(entry.get("headers") or [])
    return ours


def _metadata(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    renamed = entry.get("metadata_mapping") or {}
    for place in entry.get("metadata_fields") or []:
        yield renamed.get(place, place), place
        if place in renamed and entry.get("preserve_mapped_metadata", True):
            yield place, place


def _headers(given: Any) -> dict[str, str]:
    """Ceilometer takes a list of mappings."""
    headers: dict[str, str] = {}
    for each in given if isinstance(given, list) else [given]:
        headers |= {str(name): str(value) for name, value in dict(each).items()}
    return headers
