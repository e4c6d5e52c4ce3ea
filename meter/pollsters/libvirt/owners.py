"""Whose a domain is that Nova does not know, by the rules of ``[[compute.owners]]``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from meter.settings import PLACEHOLDER
from meter.settings import OwnerSection

LONGEST_ID = 512
"""Characters of an id that the collector takes."""
LONGEST_NAME = 1024
"""Characters of a domain's name that patterns are tried on. A file system takes 255."""

Owner = tuple[str | None, str | None]
"""Project and user."""


def owner_of(name: str, root: Element, rules: Sequence[OwnerSection], default: Owner) -> Owner:
    """Return the owner that the first rule gives that matches the domain called ``name``, else ``default``.

    A rule that matches and lacks what one of its texts is made of does not count; nor does one whose element is there
    twice and says two things: neither can be believed.
    """
    for rule in rules:
        found = _values(rule, name, root)
        if found is not None:
            project_id, user_id = (_filled(text, found) for text in (rule.project_id, rule.user_id))
            if project_id is not None and user_id is not None:
                return project_id or default[0], user_id or default[1]
    return default


def _values(rule: OwnerSection, name: str, root: Element) -> Mapping[str, str | None] | None:
    """Return what the texts of ``rule`` may be made of, or ``None`` where it does not match."""
    if rule.name:
        match = re.fullmatch(rule.name, name[:LONGEST_NAME])
        return match.groupdict() if match else None
    if rule.element:
        elements = [_of_element(element) for element in root.findall(f"metadata/{rule.element}")]
        return elements[0] if elements and all(each == elements[0] for each in elements) else None
    return {}


def _of_element(element: Element) -> Mapping[str, str | None]:
    """Return the content of an element; a child that occurs twice with different contents is left out."""
    children: dict[str, str | None] = {}
    for child in element:
        name, text = child.tag.rpartition("}")[2], (child.text or "").strip()
        children[name] = text if children.get(name, text) == text else None
    return {"text": (element.text or "").strip(), **children, **element.attrib}


def _filled(text: str, values: Mapping[str, str | None]) -> str | None:
    """Return ``text`` with its placeholders filled in, or ``None`` where one cannot be."""
    if not all((values.get(name) or "").strip() for name in PLACEHOLDER.findall(text)):
        return None
    filled = PLACEHOLDER.sub(lambda match: (values[match[1]] or "").strip(), text)
    return filled if len(filled) <= LONGEST_ID else None
