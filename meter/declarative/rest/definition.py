"""One description of a REST pollster, in our own words or in Ceilometer's."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Set
from pathlib import Path
from typing import Any
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import SecretStr
from pydantic import field_validator
from pydantic import model_validator

from meter.declarative.rest.enrichment import Enrichment
from meter.declarative.rest.expressions import Expression
from meter.declarative.rest.expressions import expression
from meter.declarative.rest.responses import Response
from meter.sample import MeterDefinition
from meter.sample import SampleType

REPLACED = re.compile(r"\{([^{}]+)\}$")
"""What of a meter's name is found in the answer: it stands at its end."""


FIRST = "*"
"""For ``entries``: the first value in the answer, whatever its name."""


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
    joined: bool = False
    responses: list[Response] = Field(default=["json"], min_length=1)
    entries: str = ""
    each: str = ""
    volume: str
    words: dict[str, float | int] = {}
    otherwise: float | int | None = None
    skip: list[Any] = []
    resource: str = "id"
    project: str = "project_id"
    user: str = "user_id"
    metadata: dict[str, str] = {}
    more: list[Enrichment] = []
    more_unless: list[dict[str, Any]] = []
    next: str = ""
    method: Literal["GET"] = "GET"

    @field_validator("metadata", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        """A list of places is metadata that is called as its places are."""
        return dict(zip(given, given, strict=True)) if isinstance(given, list) else given

    @field_validator("volume", "resource", "project", "user", "entries", "each", "next")
    @classmethod
    def _written_well(cls, text: str) -> str:
        if text:
            expression(text)
        return text

    @model_validator(mode="after")
    def _one_address(self) -> RestDefinition:
        if bool(self.url) == bool(self.service):
            raise ValueError("should have either url or service")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError("url should be an http:// or https:// URL")
        for text in self.metadata.values():
            expression(text)
        found = self.named_by
        if "{" in REPLACED.sub("", self.meter) or (found and not self.each):
            raise ValueError("meter may end in one {place} of what each leads to")
        if found:
            expression(found)
        return self

    @property
    def named_by(self) -> str:
        """The place in an element of ``each`` whose text ends the meter's name, ``""`` for a meter with a name of its own."""
        match = REPLACED.search(self.meter)
        return match[1] if match else ""

    @property
    def definition(self) -> MeterDefinition:
        """The meter, or what all meters that it makes are called."""
        return MeterDefinition(REPLACED.sub("*", self.meter), self.type, self.unit)

    def called(self, end: str) -> str:
        """Return the meter's name where the text that ends it is ``end``."""
        return REPLACED.sub(lambda _: end, self.meter)

    @property
    def pollster_name(self) -> str:
        """The name by which the pollster is switched off, and its budget found."""
        return self.name or self.meter

    def place(self, field: str) -> Expression | None:
        """Return the expression of ``field``, ``None`` where it is empty."""
        text = getattr(self, field)
        return expression(text) if text else None

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
        "extra_metadata_fields",
        "extra_metadata_fields_cache_seconds",
        "extra_metadata_fields_skip",
    ]
)
"""What is translated below, or says nothing here."""

FOREIGN = frozenset(
    ["module", "authentication_object", "authentication_parameters", "barbican_secret_id", "host_command"]
)
"""What would run a stranger's code as ours."""

_ELEMENTS = re.compile(r"\[([^\]]+)\]\.(.+)", re.DOTALL)


def from_ceilometer(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of a dynamic pollster file in our words; ``ValueError`` for what it asks that we do not do."""
    _known(entry, set(CEILOMETER) | ELSEWHERE)
    ours: dict[str, Any] = {"entries": FIRST}
    ours |= {CEILOMETER[key]: value for key, value in entry.items() if key in CEILOMETER}
    if match := _ELEMENTS.fullmatch(str(entry.get("value_attribute", ""))):
        ours |= {"each": match[1], "volume": match[2]}
    path = str(entry.get("url_path", ""))
    if path.startswith(("http://", "https://")):
        ours["url"] = path
    else:
        ours |= {"service": entry.get("endpoint_type", ""), "path": path, "joined": True}
    if "value_mapping" in entry:
        ours["otherwise"] = entry.get("default_value", -1)
    if "response_handlers" in entry:
        ours["responses"] = entry["response_handlers"]
    ours["metadata"] = dict(_metadata(entry))
    ours["headers"] = _headers(entry.get("headers") or [])
    ours["more"] = [_more(each, entry) for each in _listed(entry.get("extra_metadata_fields"))]
    ours["more_unless"] = [each for each in _listed(entry.get("extra_metadata_fields_skip")) if each]
    return ours


def _more(extra: Any, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return one of ``extra_metadata_fields`` in our words."""
    if not isinstance(extra, Mapping):
        raise ValueError(f"extra_metadata_fields: should be mappings, not {extra!r:.80}")
    cached = "extra_metadata_fields_cache_seconds"
    known = {"name", "endpoint_type", "url_path", "value", "metadata_fields", "metadata_mapping", "headers", cached}
    _known(extra, known | {"preserve_mapped_metadata"}, "extra_metadata_fields: ")
    return {
        "name": extra.get("name", ""),
        "service": extra.get("endpoint_type", entry.get("endpoint_type", "")),
        "path": extra.get("url_path", ""),
        "value": extra.get("value", entry.get("value_attribute", "")),
        "metadata": dict(_metadata(extra)),
        "headers": _headers(extra.get("headers") or []),
        "keep_seconds": extra.get(cached, entry.get(cached, 3600)),
    }


def _known(entry: Mapping[str, Any], known: Set[str], where: str = "") -> None:
    unknown = sorted(set(entry) - known)
    foreign = [name for name in unknown if name in FOREIGN]
    if foreign:
        raise ValueError(f"{where}{', '.join(foreign)}: not done by Meter, which runs no code that a file names")
    if unknown:
        raise ValueError(f"{where}{', '.join(unknown)}: not done by Meter")


def _listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [] if given is None else [given]


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
