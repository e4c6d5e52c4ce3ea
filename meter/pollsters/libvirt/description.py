"""What the XML of a domain says: owner, flavor, image, interfaces. Read once, as long as the XML stays the same."""

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
from meter.pollsters.libvirt.nova_metadata import BadDomain
from meter.pollsters.libvirt.nova_metadata import check_agreement
from meter.pollsters.libvirt.nova_metadata import nova_elements
from meter.pollsters.libvirt.owners import LONGEST_ID
from meter.pollsters.libvirt.owners import Owner
from meter.pollsters.libvirt.owners import owner_of
from meter.settings import OwnerSection

LARGEST_XML_CHARACTERS = 1_000_000
"""A Nova guest with thirty disks has some 40 000."""
DEEPEST_XML = 64

FOREIGN = ("vhostuser", "hostdev", "vdpa", "user")
"""Types of interfaces whose counters outlive the domain."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface: what libvirt's statistics do not tell of it."""

    mac: str | None
    filter: str | None
    parameters: Mapping[str, str]
    made_for_it: bool = True
    """Whether its device on the host is made when it is plugged in, and counts from zero."""


@dataclass(frozen=True, slots=True)
class Description:
    """A domain as its XML describes it. ``metadata`` has all of it that does not change while it runs.

    ``by_nova`` says whether Nova described it; where not, its sizes are libvirt's. ``interfaces`` are by the name of
    the host's device. ``disks`` has the images of each disk, the one that it was plugged in with last, by the name of its
    device: libvirt gives each image a number of its own, and does not change it while the disk is there.
    """

    project_id: str | None
    user_id: str | None
    by_nova: bool
    flavor: str | None
    metadata: Mapping[str, Any]
    interfaces: Mapping[str, Interface] = field(default_factory=dict)
    disks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Local:
    """What descriptions need to know of this host: its name, and whose the domains are that Nova does not know."""

    host: str
    default: Owner = (None, None)
    rules: Sequence[OwnerSection] = ()


def describe(domain: Domain, local: Local) -> Description:
    """Read the XML of ``domain``; raise :class:`BadDomain`.

    Nova writes the owner into it. The metadata of domains that Nova does not know has the same keys, with ``None`` for
    what only Nova could tell.
    """
    root = parse(domain.xml)
    found = nova_elements(root)
    nova = found[0] if found else None
    if nova is None:
        project_id, user_id = owner_of(domain.name, root, local.rules, local.default)
    else:
        check_agreement(found)
        project_id = _get(nova, "owner/project", "uuid") or local.default[0]
        user_id = _get(nova, "owner/user", "uuid") or local.default[1]
    if any(each is not None and len(each) > LONGEST_ID for each in (project_id, user_id)):
        raise BadDomain(f"the id of its owner has more than {LONGEST_ID} characters")
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
            # As Nova tells tenants which of their servers share a host, without telling which host.
            "host": hashlib.sha224(f"{project_id or ''}{local.host}".encode()).hexdigest(),
            "instance_host": local.host,
            **_image(nova),
            "architecture": _get(root, "os/type", "arch"),
            "os_type": _text(root, "os/type"),
            **_nova_sizes(nova),
        },
        interfaces=_interfaces(root),
        disks=_disks(root),
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


def _text(parent: Element | None, path: str) -> str | None:
    text = parent.findtext(path) if parent is not None else None
    return text.strip() or None if text else None


def _get(parent: Element | None, path: str, attribute: str) -> str | None:
    element = parent.find(path) if parent is not None else None
    return element.get(attribute) or None if element is not None else None


def _whole(parent: Element, path: str) -> int | None:
    text = _text(parent, path) or ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None


# --- parts of it ---------------------------------------------------------------------------------------------------


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


def _nova_sizes(nova: Element | None) -> dict[str, Any]:
    """Name the sizes as Nova's notifications do: ``disk_gb`` is the root disk and the ephemeral one together."""
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
                made_for_it=element.get("type") not in FOREIGN and _get(element, "target", "managed") != "no",
            )
    return found


def _disks(root: Element) -> dict[str, str]:
    """Return the number of the last image of each disk: those before it come and go with snapshots."""
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
    """What Ceilometer calls the parameters of an interface: its filter's, its port's id, its bridge."""
    found = {one.get("name", "").lower(): one.get("value", "") for one in interface.findall("filterref/parameter")}
    for key, path, attribute in (
        ("interfaceid", "virtualport/parameters", "interfaceid"),
        ("bridge", "source", "bridge"),
    ):
        value = _get(interface, path, attribute)
        if value is not None:
            found[key] = value
    return found
