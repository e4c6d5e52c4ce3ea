"""Nova's elements in the XML of a domain, and a check that they agree on everything that is billed."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

NAMESPACES = ("http://openstack.org/xmlns/libvirt/nova/1.1", "http://openstack.org/xmlns/libvirt/nova/1.0")
"""Newest first. A domain that was created before an upgrade of Nova may have an element of each."""

IDENTITY = (
    ("owner/project", "uuid"),
    ("owner/user", "uuid"),
    ("flavor", "name"),
)
"""Paths and attributes whose values must be the same in all of Nova's elements."""

DETAILS = ("flavor/vcpus", "flavor/memory", "flavor/disk", "flavor/ephemeral")
"""Paths whose texts must be the same in all of Nova's elements."""


class BadDomain(ValueError):
    """A domain whose XML is malformed or contradictory; the text says how."""


def nova_elements(root: Element) -> list[Element]:
    """Return Nova's elements without their namespaces, the newest namespace first."""
    found = [child for name in NAMESPACES for child in root.findall(f"metadata/{{{name}}}instance")]
    for nova in found:
        for element in nova.iter():
            element.tag = element.tag.rpartition("}")[2]
    return found


def check_agreement(found: Sequence[Element]) -> None:
    """Raise :class:`BadDomain` if the elements, or two parts of one, have different owners or flavors."""
    for path, attribute in IDENTITY:
        by_element = [_attributes(nova, path, attribute) for nova in found]
        values = set().union(*by_element)
        if len(values) > 1:
            shown = ", ".join(sorted(values))
            raise BadDomain(f"{_subject(found)}: {path} has more than one {attribute}: {shown:.200}")
        if values and not all(by_element):
            raise BadDomain(f"{_subject(found)}: {path} has a {attribute} in one of them only")
    flavors = {nova: nova.find("flavor") is not None for nova in found}
    if len(set(flavors.values())) > 1:
        raise BadDomain(f"{_subject(found)}: one of them has a flavor and another has none")
    for path in DETAILS:
        texts = {(each.text or "").strip() for nova in found for each in nova.iterfind(path)}
        if len(texts) > 1:
            raise BadDomain(f"{_subject(found)}: {path} has more than one value: {', '.join(sorted(texts)):.200}")


def _attributes(nova: Element, path: str, attribute: str) -> set[str]:
    return {value for each in nova.iterfind(path) if (value := each.get(attribute))}


def _subject(found: Sequence[Element]) -> str:
    if len(found) == 1:
        return "Nova's element in its XML contradicts itself"
    return f"{len(found)} elements of Nova in its XML contradict each other"
