"""What Nova wrote into the XML of a domain, and whether all of it says the same of what is billed."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

NAMESPACES = ("http://openstack.org/xmlns/libvirt/nova/1.1", "http://openstack.org/xmlns/libvirt/nova/1.0")
"""Newest first. A domain that a newer Nova took over may have an element of each."""

IDENTITY = (
    ("owner/project", "uuid"),
    ("owner/user", "uuid"),
    ("flavor", "name"),
)
"""Paths at which all elements of Nova must agree."""

DETAILS = ("flavor/vcpus", "flavor/memory", "flavor/disk", "flavor/ephemeral")
"""Elements whose texts must be the same in all elements of Nova."""


class BadDomain(ValueError):
    """A domain whose XML cannot be used; the text says why."""


def nova_elements(root: Element) -> list[Element]:
    """Return what Nova wrote, without its namespaces, newest namespace first."""
    found = [child for name in NAMESPACES for child in root.findall(f"metadata/{{{name}}}instance")]
    for nova in found:
        for element in nova.iter():
            element.tag = element.tag.rpartition("}")[2]
    return found


def check_agreement(found: Sequence[Element]) -> None:
    """Raise :class:`BadDomain` where the elements, or two parts of one, name different owners or flavors."""
    for path, attribute in IDENTITY:
        by_element = [_attributes(nova, path, attribute) for nova in found]
        values = set().union(*by_element)
        if len(values) > 1:
            shown = ", ".join(sorted(values))
            raise BadDomain(f"{_beginning(found)}: {path} has more than one {attribute}: {shown:.200}")
        if values and not all(by_element):
            raise BadDomain(f"{_beginning(found)}: {path} has a {attribute} in one of them only")
    flavors = {nova: nova.find("flavor") is not None for nova in found}
    if len(set(flavors.values())) > 1:
        raise BadDomain(f"{_beginning(found)}: one of them has a flavor and another has none")
    for path in DETAILS:
        texts = {(each.text or "").strip() for nova in found for each in nova.iterfind(path)}
        if len(texts) > 1:
            raise BadDomain(f"{_beginning(found)}: {path} is there more than once: {', '.join(sorted(texts)):.200}")


def _attributes(nova: Element, path: str, attribute: str) -> set[str]:
    return {value for each in nova.iterfind(path) if (value := each.get(attribute))}


def _beginning(found: Sequence[Element]) -> str:
    if len(found) == 1:
        return "its element of Nova cannot be believed"
    return f"its XML has {len(found)} elements of Nova, of which none can be believed"
