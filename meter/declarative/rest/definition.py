"""The definition of a REST pollster, with Meter's field names or with those of Ceilometer's dynamic pollsters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Set
from typing import Any
from typing import Literal

from pydantic import Field
from pydantic import field_validator
from pydantic import model_validator

from meter.declarative.request_fields import RequestFields
from meter.declarative.rest.enrichment import Enrichment
from meter.declarative.rest.expressions import Expression
from meter.declarative.rest.expressions import expression
from meter.declarative.rest.responses import ResponseFormat
from meter.sample import VALID_VOLUMES
from meter.sample import MeterDefinition
from meter.sample import SampleType
from meter.sample import volume_is_valid

PLACEHOLDER = re.compile(r"\{([^{}]+)\}$")
"""The end of a meter's name that is replaced by the text at this path in an item."""


FIRST_VALUE = "*"
"""In ``entries``: the first value in the response, whatever its key."""


class RestDefinition(RequestFields):
    """Which requests are sent and how responses become samples. ``docs/rest-pollsters.rst`` describes every field."""

    meter: str = Field(pattern=r"^\S{1,255}$")
    type: SampleType
    unit: str = Field(min_length=1, max_length=255)
    name: str = ""
    url: str = ""
    service: str = ""
    path: str = ""
    urljoin: bool = False
    responses: list[ResponseFormat] = Field(default=["json"], min_length=1)
    entries: str = ""
    items: str = ""
    volume: str
    value_mapping: dict[str, float | int] = Field(default_factory=dict)
    default_value: float | int | None = None
    skip_values: list[Any] = Field(default_factory=list)
    resource: str = "id"
    project: str = "project_id"
    user: str = "user_id"
    metadata: dict[str, str] = Field(default_factory=dict)
    extra_metadata: list[Enrichment] = Field(default_factory=list)
    extra_metadata_skip: list[dict[str, Any]] = Field(default_factory=list)
    next: str = ""
    method: Literal["GET"] = "GET"

    @field_validator("metadata", mode="before")
    @classmethod
    def _from_list(cls, given: Any) -> Any:
        """A list of paths is shorthand for {path: path}."""
        return dict(zip(given, given, strict=True)) if isinstance(given, list) else given

    @field_validator("volume", "resource", "project", "user", "entries", "items", "next")
    @classmethod
    def _validate_expression(cls, text: str) -> str:
        if text:
            expression(text)
        return text

    @model_validator(mode="after")
    def _validate(self) -> RestDefinition:
        if bool(self.url) == bool(self.service):
            raise ValueError("needs either url or service, not both")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError("url should be an http:// or https:// URL")
        for text in self.metadata.values():
            expression(text)
        for value in (*self.value_mapping.values(), self.default_value or 0):
            if not volume_is_valid(value):
                raise ValueError(
                    f"value_mapping and default_value: a volume must be {VALID_VOLUMES}, not {value!r:.40}"
                )
        if "{" in PLACEHOLDER.sub("", self.meter) or (self.suffix_path and not self.items):
            raise ValueError("the name of meter may end in one {path} into the entries of items")
        if self.suffix_path:
            expression(self.suffix_path)
        return self

    @property
    def suffix_path(self) -> str:
        """The path in an item to the end of the meter's name, ``""`` if the name is fixed."""
        match = PLACEHOLDER.search(self.meter)
        return match[1] if match else ""

    @property
    def definition(self) -> MeterDefinition:
        """The meter; a name that ends in ``*`` stands for all meters with that prefix."""
        return MeterDefinition(PLACEHOLDER.sub("*", self.meter), self.type, self.unit)

    def meter_name(self, suffix: str) -> str:
        """Return the meter's name with ``suffix`` for its placeholder."""
        return PLACEHOLDER.sub(lambda _: suffix, self.meter)

    @property
    def pollster_name(self) -> str:
        """The name of the pollster: in ``[plugins] disable``, ``[polling] intervals``, ``[openstack.by_service]``."""
        return self.name or self.meter

    def parsed(self, field: str) -> Expression | None:
        """Return the expression in ``field``, ``None`` if it is empty."""
        text = getattr(self, field)
        return expression(text) if text else None


RENAMED: Mapping[str, str] = {
    "name": "meter",
    "sample_type": "type",
    "unit": "unit",
    "value_attribute": "volume",
    "value_mapping": "value_mapping",
    "skip_sample_values": "skip_values",
    "response_entries_key": "entries",
    "next_sample_url_attribute": "next",
    "user_id_attribute": "user",
    "project_id_attribute": "project",
    "resource_id_attribute": "resource",
}
"""Ceilometer's field names, and Meter's."""

TRANSLATED = frozenset(
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
"""Other fields of Ceilometer's: translated by :func:`from_ceilometer`, or without effect in Meter."""

UNSAFE = frozenset(
    ["module", "authentication_object", "authentication_parameters", "barbican_secret_id", "host_command"]
)
"""Fields that would make the agent run programs or import modules that the file names."""

_ITEMS = re.compile(r"\[([^\]]+)\]\.(.+)", re.DOTALL)


def from_ceilometer(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of a dynamic pollster file with Meter's field names; ``ValueError`` for unsupported fields."""
    _check_supported(entry, set(RENAMED) | TRANSLATED)
    fields: dict[str, Any] = {"entries": FIRST_VALUE}
    fields |= {RENAMED[key]: value for key, value in entry.items() if key in RENAMED}
    if match := _ITEMS.fullmatch(str(entry.get("value_attribute", ""))):
        fields |= {"items": match[1], "volume": match[2]}
    path = str(entry.get("url_path", ""))
    if path.startswith(("http://", "https://")):
        fields["url"] = path
    else:
        fields |= {"service": entry.get("endpoint_type", ""), "path": path, "urljoin": True}
    if "value_mapping" in entry:
        fields["default_value"] = entry.get("default_value", -1)
    if "response_handlers" in entry:
        fields["responses"] = entry["response_handlers"]
    fields["metadata"] = dict(_metadata(entry))
    fields["headers"] = _headers(entry.get("headers") or [])
    fields["extra_metadata"] = [_extra_metadata(each, entry) for each in _as_list(entry.get("extra_metadata_fields"))]
    fields["extra_metadata_skip"] = [each for each in _as_list(entry.get("extra_metadata_fields_skip")) if each]
    return fields


def _extra_metadata(extra: Any, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return one of ``extra_metadata_fields`` with Meter's field names."""
    if not isinstance(extra, Mapping):
        raise ValueError(f"extra_metadata_fields: should be mappings, not {extra!r:.80}")
    cached = "extra_metadata_fields_cache_seconds"
    known = {"name", "endpoint_type", "url_path", "value", "metadata_fields", "metadata_mapping", "headers", cached}
    _check_supported(extra, known | {"preserve_mapped_metadata"}, "extra_metadata_fields: ")
    return {
        "name": extra.get("name", ""),
        "service": extra.get("endpoint_type", entry.get("endpoint_type", "")),
        "path": extra.get("url_path", ""),
        "value": extra.get("value", entry.get("value_attribute", "")),
        "metadata": dict(_metadata(extra)),
        "headers": _headers(extra.get("headers") or []),
        "cache_seconds": extra.get(cached, entry.get(cached, 3600)),
    }


def _check_supported(entry: Mapping[str, Any], supported: Set[str], where: str = "") -> None:
    unsupported = sorted(set(entry) - supported)
    unsafe = [name for name in unsupported if name in UNSAFE]
    if unsafe:
        raise ValueError(f"{where}{', '.join(unsafe)}: not supported; Meter runs no code that a definition names")
    if unsupported:
        raise ValueError(f"{where}{', '.join(unsupported)}: not supported")


def _as_list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [] if given is None else [given]


def _metadata(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    renamed = entry.get("metadata_mapping") or {}
    for path in entry.get("metadata_fields") or []:
        yield renamed.get(path, path), path
        if path in renamed and entry.get("preserve_mapped_metadata", True):
            yield path, path


def _headers(given: Any) -> dict[str, str]:
    """Return Ceilometer's headers, a mapping or a list of mappings, as one mapping."""
    headers: dict[str, str] = {}
    for each in given if isinstance(given, list) else [given]:
        headers |= {str(name): str(value) for name, value in dict(each).items()}
    return headers
