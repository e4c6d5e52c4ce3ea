"""Whose a domain is and what is said about it: the owner and the metadata of its samples, read from its XML."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element
from xml.etree.ElementTree import ParseError
from xml.etree.ElementTree import TreeBuilder
from xml.etree.ElementTree import XMLParser

from meter.interfaces import Domain
from meter.pollsters.libvirt.table import BadStat
from meter.pollsters.libvirt.table import number

NOVA_NAMESPACES = ("http://openstack.org/xmlns/libvirt/nova/1.1", "http://openstack.org/xmlns/libvirt/nova/1.0")
LARGEST_XML_CHARACTERS = 1_000_000
"""A Nova guest with thirty disks has some 40 000."""
DEEPEST_XML = 64
SHUT_OFF = 5

# By libvirt's virDomainState, in its order: Nova's words for the status and for the power state of a server.
STATES = (
    ("building", "pending"),
    ("active", "running"),
    ("active", "running"),
    ("paused", "paused"),
    ("stopped", "shutdown"),
    ("stopped", "shutdown"),
    ("error", "crashed"),
    ("suspended", "suspended"),
)
UNKNOWN_STATE = ("unknown", "unknown")


class BadDomain(ValueError):
    """A domain whose XML cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A domain as it is metered: ``metadata`` is shared by all samples of a cycle, ``stats`` are libvirt's."""

    uuid: str
    project_id: str | None
    user_id: str | None
    shut_off: bool
    metadata: Mapping[str, Any]
    stats: Mapping[str, int | float | str | bool]


def guest_of(
    domain: Domain, *, host: str, default_project_id: str | None = None, default_user_id: str | None = None
) -> Guest:
    """Read ``domain``, which runs on ``host``; raise :class:`BadDomain`.

    Nova writes the owner into the XML. The defaults are for domains that Nova does not know; their metadata has the
    same keys, with ``None`` for what only Nova could tell.
    """
    root = parse(domain.xml)
    nova = _nova_element(root)
    project_id = _get(nova, "owner/project", "uuid") or default_project_id
    state = domain.stats.get("state.state")
    return Guest(
        uuid=domain.uuid,
        project_id=project_id,
        user_id=_get(nova, "owner/user", "uuid") or default_user_id,
        shut_off=state == SHUT_OFF,
        metadata={
            "display_name": _text(nova, "name") or _text(root, "title") or domain.name,
            "name": domain.name,
            "instance_id": domain.uuid,
            "instance_type": _get(nova, "flavor", "name"),
            # As Nova tells tenants which of their servers share a host, without telling which host.
            "host": hashlib.sha224(f"{project_id or ''}{host}".encode()).hexdigest(),
            "instance_host": host,
            **_state(state),
            **_image(nova),
            "architecture": _get(root, "os/type", "arch"),
            "os_type": _text(root, "os/type"),
            **(_plain_sizes(domain) if nova is None else _nova_sizes(nova)),
        },
        stats=domain.stats,
    )


# --- the XML -------------------------------------------------------------------------------------------------------


class _Builder(TreeBuilder):
    """Refuses document types, and with them all entities, and what is nested too deeply.

    Nothing that libvirt writes has either. (defusedxml does the same, but had its last release in 2021.)
    """

    _depth = 0

    def doctype(self, *_: object) -> None:
        raise BadDomain("its XML declares a document type")

    def start(self, tag: str, attributes: dict[str, str], /) -> Element:
        self._depth += 1
        if self._depth > DEEPEST_XML:
            raise BadDomain(f"its XML is nested more than {DEEPEST_XML} deep")
        return super().start(tag, attributes)

    def end(self, tag: str, /) -> Element:
        self._depth -= 1
        return super().end(tag)


def parse(xml: str) -> Element:
    """Return the root element of a domain's XML; raise :class:`BadDomain`."""
    if len(xml) > LARGEST_XML_CHARACTERS:
        raise BadDomain(f"its XML has {len(xml)} characters, more than {LARGEST_XML_CHARACTERS}")
    parser = XMLParser(target=_Builder())
    try:
        parser.feed(xml)
        root: Element = parser.close()
    except (ParseError, UnicodeError) as error:
        raise BadDomain(f"its XML cannot be parsed: {error}") from error
    return root


def _nova_element(root: Element) -> Element | None:
    """Return what Nova wrote, without its namespace, or ``None``."""
    found = [child for name in NOVA_NAMESPACES for child in root.findall(f"metadata/{{{name}}}instance")]
    if len(found) > 1:
        raise BadDomain(f"its XML has {len(found)} elements of Nova, of which none can be believed")
    for nova in found:
        for element in nova.iter():
            element.tag = element.tag.rpartition("}")[2]
        return nova
    return None


def _text(parent: Element | None, path: str) -> str | None:
    text = parent.findtext(path) if parent is not None else None
    return text.strip() or None if text else None


def _get(parent: Element | None, path: str, attribute: str) -> str | None:
    element = parent.find(path) if parent is not None else None
    return element.get(attribute) or None if element is not None else None


def _whole(parent: Element, path: str) -> int | None:
    text = _text(parent, path) or ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None


# --- parts of the metadata -----------------------------------------------------------------------------------------


def _state(state: object) -> dict[str, str]:
    known = isinstance(state, int) and 0 <= state < len(STATES)
    status, power_state = STATES[state] if known else UNKNOWN_STATE  # type: ignore[call-overload]
    return {"status": status, "state": power_state, "task_state": ""}


def _image(nova: Element | None) -> dict[str, Any]:
    image_id = _get(nova, "image", "uuid") or _get(nova, "root[@type='image']", "uuid")
    described: dict[str, Any] = {
        "image": {"id": image_id} if image_id else None,
        "image_ref": image_id,
        "image_ref_url": None,
    }
    image = nova.find("image") if nova is not None else None
    if image is not None:
        told = {
            "base_image_ref": image_id,
            "container_format": _text(image, "containerFormat"),
            "disk_format": _text(image, "diskFormat"),
            "min_disk": _text(image, "minDisk"),
            "min_ram": _text(image, "minRam"),
        }
        properties = {one.get("name", ""): one.text or "" for one in image.findall("properties/property")}
        described["image_meta"] = {**properties, **{key: value for key, value in told.items() if value is not None}}
    return described


def _nova_sizes(nova: Element) -> dict[str, Any]:
    flavor = nova.find("flavor")
    if flavor is None:
        return _sizes(None, vcpus=None, memory_mb=None)
    root_gb, ephemeral_gb = _whole(flavor, "disk"), _whole(flavor, "ephemeral")
    described: dict[str, Any] = {
        "id": flavor.get("id"),
        "name": flavor.get("name"),
        "vcpus": _whole(flavor, "vcpus"),
        "ram": _whole(flavor, "memory"),
        "disk": root_gb,
        "ephemeral": ephemeral_gb,
        "swap": _whole(flavor, "swap"),
    }
    specs = flavor.find("extraSpecs")
    if specs is not None:
        described["extra_specs"] = {one.get("name", ""): one.text or "" for one in specs}
    return _sizes(
        described,
        vcpus=described["vcpus"],
        memory_mb=described["ram"],
        root_gb=root_gb,
        ephemeral_gb=ephemeral_gb,
    )


def _plain_sizes(domain: Domain) -> dict[str, Any]:
    memory_kib = _known(domain, "balloon.maximum")
    return _sizes(
        None,
        vcpus=_known(domain, "vcpu.current"),
        memory_mb=None if memory_kib is None else memory_kib // 1024,
    )


def _known(domain: Domain, name: str) -> int | None:
    try:
        return number(domain.stats, name)
    except BadStat:
        return None


def _sizes(
    flavor: Mapping[str, Any] | None,
    *,
    vcpus: int | None,
    memory_mb: int | None,
    root_gb: int | None = None,
    ephemeral_gb: int | None = None,
) -> dict[str, Any]:
    """Name the sizes as Nova's notifications do: ``disk_gb`` is the root disk and the ephemeral one together."""
    return {
        "flavor": flavor,
        "vcpus": vcpus,
        "memory_mb": memory_mb,
        "disk_gb": None if root_gb is None else root_gb + (ephemeral_gb or 0),
        "ephemeral_gb": ephemeral_gb,
        "root_gb": root_gb,
    }
