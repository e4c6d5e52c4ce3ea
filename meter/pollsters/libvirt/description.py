"""The description of a domain in its XML: owner, flavor, image, interfaces. It is parsed again only when it changes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from xml.etree.ElementTree import Element
from xml.etree.ElementTree import ParseError
from xml.etree.ElementTree import TreeBuilder
from xml.etree.ElementTree import XMLParser

from meter.interfaces import Domain
from meter.pollsters.libvirt.host_devices import HostDevice
from meter.pollsters.libvirt.host_devices import host_devices
from meter.pollsters.libvirt.nova_metadata import BadDomain
from meter.pollsters.libvirt.nova_metadata import check_agreement
from meter.pollsters.libvirt.nova_metadata import nova_elements
from meter.pollsters.libvirt.owners import MAX_ID_CHARACTERS
from meter.pollsters.libvirt.owners import Owner
from meter.pollsters.libvirt.owners import owner_of
from meter.settings import OwnerSection

MAX_XML_CHARACTERS = 1_000_000
"""Larger XML is rejected; that of a Nova guest with thirty disks has about 40 000."""
MAX_XML_DEPTH = 64

PERSISTENT_INTERFACE_TYPES = ("vhostuser", "hostdev", "vdpa", "user")
"""Types of interfaces whose counters outlive the domain."""


@dataclass(frozen=True, slots=True)
class Interface:
    """The part of a network interface that libvirt's statistics lack."""

    mac: str | None
    filter: str | None
    parameters: Mapping[str, str]
    counts_from_zero: bool = True
    """Whether its device on the host is created when it is plugged in, so that its counters start from 0."""


@dataclass(frozen=True, slots=True)
class Description:
    """A domain as its XML describes it. ``metadata`` has everything that does not change while it runs.

    ``by_nova``: Nova created the domain; otherwise its sizes come from libvirt's statistics. ``interfaces`` are by the
    name of the host's device. ``disks`` has the number of each disk's base image by the name of its device: libvirt gives
    each image a number that stays the same while the disk is plugged in. ``host_devices`` are devices of the host that it has.
    """

    project_id: str | None
    user_id: str | None
    by_nova: bool
    flavor: str | None
    metadata: Mapping[str, Any]
    interfaces: Mapping[str, Interface] = field(default_factory=dict)
    disks: Mapping[str, str] = field(default_factory=dict)
    host_devices: tuple[HostDevice, ...] = ()


@dataclass(frozen=True, slots=True)
class HostSettings:
    """The settings of this host that descriptions use: its name, and the owners of domains not created by Nova."""

    host: str
    default: Owner = (None, None)
    rules: Sequence[OwnerSection] = ()


def describe(domain: Domain, settings: HostSettings) -> Description:
    """Parse the XML of ``domain``; raise :class:`BadDomain`.

    Nova writes the owner into it. The metadata of domains not created by Nova has the same keys, with ``None`` for
    values that only Nova provides.
    """
    root = parse(domain.xml)
    found = nova_elements(root)
    nova = found[0] if found else None
    if nova is None:
        project_id, user_id = owner_of(domain.name, root, settings.rules, settings.default)
    else:
        check_agreement(found)
        project_id = _get(nova, "owner/project", "uuid") or settings.default[0]
        user_id = _get(nova, "owner/user", "uuid") or settings.default[1]
    if any(each is not None and len(each) > MAX_ID_CHARACTERS for each in (project_id, user_id)):
        raise BadDomain(f"the id of its owner has more than {MAX_ID_CHARACTERS} characters")
    flavor = _get(nova, "flavor", "name")
    return Description(
        project_id=project_id,
        user_id=user_id,
        by_nova=nova is not None,
        flavor=flavor,
        metadata={
            "display_name": _text(nova, "name") or _text(root, "title") or domain.name,
            "name": domain.name,
            "instance_id": domain.uuid,
            "instance_type": flavor,
            # Nova's hostId: it shows tenants which of their servers share a host, without the host's name.
            "host": hashlib.sha224(f"{project_id or ''}{settings.host}".encode()).hexdigest(),
            "instance_host": settings.host,
            **_image(nova),
            "architecture": _get(root, "os/type", "arch"),
            "os_type": _text(root, "os/type"),
            **_nova_sizes(nova),
        },
        interfaces=_interfaces(root),
        disks=_disks(root),
        host_devices=host_devices(root),
    )


# --- the XML -------------------------------------------------------------------------------------------------------


class _Builder(TreeBuilder):
    """Rejects document types, and with them all entities, and deep nesting.

    XML by libvirt has neither. (defusedxml does the same, but had its last release in 2021.)
    """

    _depth = 0

    def doctype(self, *_: object) -> None:
        raise BadDomain("its XML declares a document type")

    def start(self, tag: str, attributes: dict[str, str], /) -> Element:
        self._depth += 1
        if self._depth > MAX_XML_DEPTH:
            raise BadDomain(f"its XML is nested more than {MAX_XML_DEPTH} levels deep")
        return super().start(tag, attributes)

    def end(self, tag: str, /) -> Element:
        self._depth -= 1
        return super().end(tag)


def parse(xml: str) -> Element:
    """Return the root element of a domain's XML; raise :class:`BadDomain`."""
    if len(xml) > MAX_XML_CHARACTERS:
        raise BadDomain(f"its XML has {len(xml)} characters, more than {MAX_XML_CHARACTERS}")
    parser = XMLParser(target=_Builder())
    try:
        parser.feed(xml)
        root: Element = parser.close()
    except (ParseError, UnicodeError) as error:
        raise BadDomain(f"its XML cannot be parsed: {error}") from error
    return root


def _text(parent: Element | None, path: str) -> str | None:
    text = parent.findtext(path) if parent is not None else None
    return text.strip() or None if text else None


def _get(parent: Element | None, path: str, attribute: str) -> str | None:
    element = parent.find(path) if parent is not None else None
    return element.get(attribute) or None if element is not None else None


def _whole(parent: Element, path: str) -> int | None:
    text = _text(parent, path) or ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None


# --- parts of a description ----------------------------------------------------------------------------------------


def _image(nova: Element | None) -> dict[str, Any]:
    image_id = _get(nova, "image", "uuid") or _get(nova, "root[@type='image']", "uuid")
    described: dict[str, Any] = {
        "image": {"id": image_id} if image_id else None,
        "image_ref": image_id,
        "image_ref_url": None,
    }
    image = nova.find("image") if nova is not None else None
    if image is not None:
        properties = {
            "base_image_ref": image_id,
            "container_format": _text(image, "containerFormat"),
            "disk_format": _text(image, "diskFormat"),
            "min_disk": _text(image, "minDisk"),
            "min_ram": _text(image, "minRam"),
        }
        described["image_meta"] = {
            **{each.get("name", ""): each.text or "" for each in image.findall("properties/property")},
            **{key: value for key, value in properties.items() if value is not None},
        }
    return described


def _nova_sizes(nova: Element | None) -> dict[str, Any]:
    """Return the sizes, named as in Nova's notifications: ``disk_gb`` is root disk plus ephemeral disk."""
    flavor = nova.find("flavor") if nova is not None else None
    if flavor is None:
        return dict.fromkeys(("flavor", "vcpus", "memory_mb", "disk_gb", "ephemeral_gb", "root_gb"))
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
    return {
        "flavor": described,
        "vcpus": described["vcpus"],
        "memory_mb": described["ram"],
        "disk_gb": None if root_gb is None else root_gb + (ephemeral_gb or 0),
        "ephemeral_gb": ephemeral_gb,
        "root_gb": root_gb,
    }


def _interfaces(root: Element) -> dict[str, Interface]:
    found = {}
    for element in root.findall("devices/interface"):
        device = _get(element, "target", "dev")
        if device is not None:
            found[device] = Interface(
                mac=_get(element, "mac", "address"),
                filter=_get(element, "filterref", "filter"),
                parameters=_parameters(element),
                counts_from_zero=element.get("type") not in PERSISTENT_INTERFACE_TYPES
                and _get(element, "target", "managed") != "no",
            )
    return found


def _disks(root: Element) -> dict[str, str]:
    """Return the number of the base image of each disk; images above it come and go with snapshots."""
    found = {}
    for element in root.findall("devices/disk"):
        device, number = _get(element, "target", "dev"), _get(element, "source", "index")
        image = element.find("backingStore")
        while image is not None:
            number = image.get("index") or number
            image = image.find("backingStore")
        if device is not None and number is not None:
            found[device] = number
    return found


def _parameters(interface: Element) -> dict[str, str]:
    """Return what Ceilometer calls the parameters of an interface: those of its filter, its port's id, its bridge."""
    found = {one.get("name", "").lower(): one.get("value", "") for one in interface.findall("filterref/parameter")}
    for key, path, attribute in (
        ("interfaceid", "virtualport/parameters", "interfaceid"),
        ("bridge", "source", "bridge"),
    ):
        value = _get(interface, path, attribute)
        if value is not None:
            found[key] = value
    return found
