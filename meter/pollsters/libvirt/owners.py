"""The owner of a domain not created by Nova, by the rules of ``[[compute.owners]]``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from meter.settings import PLACEHOLDER
from meter.settings import OwnerSection

MAX_ID_CHARACTERS = 512
"""Maximum length of an id that the collector accepts."""
MAX_NAME_CHARACTERS = 1024
"""How many characters of a domain's name patterns are matched against. A file system permits 255."""

Owner = tuple[str | None, str | None]
"""Project and user."""


def owner_of(name: str, root: Element, rules: Sequence[OwnerSection], default: Owner) -> Owner:
    """Return the owner by the first rule that matches the domain ``name`` with the XML ``root``, else ``default``.

    A rule is skipped if one of its placeholders has no value, or if its element occurs twice with different contents.
    """
    for rule in rules:
        found = _values(rule, name, root)
        if found is not None:
            project_id, user_id = (_fill(text, found) for text in (rule.project_id, rule.user_id))
            if project_id is not None and user_id is not None:
                return project_id or default[0], user_id or default[1]
    return default


def _values(rule: OwnerSection, name: str, root: Element) -> Mapping[str, str | None] | None:
    """Return the values of the placeholders of ``rule``, ``None`` if it does not match."""
    if rule.name:
        match = re.fullmatch(rule.name, name[:MAX_NAME_CHARACTERS])
        return match.groupdict() if match else None
    if rule.element:
        elements = [_content(element) for element in root.findall(f"metadata/{rule.element}")]
        return elements[0] if elements and all(each == elements[0] for each in elements) else None
    return {}


def _content(element: Element) -> Mapping[str, str | None]:
    """Return the text, children and attributes of an element; a child with two different contents is ``None``."""
    children: dict[str, str | None] = {}
    for child in element:
        name, text = child.tag.rpartition("}")[2], (child.text or "").strip()
        children[name] = text if children.get(name, text) == text else None
    return {"text": (element.text or "").strip(), **children, **element.attrib}


def _fill(text: str, values: Mapping[str, str | None]) -> str | None:
    """Return ``text`` with its placeholders filled in, ``None`` if one has no value or the result is too long."""
    if not all((values.get(name) or "").strip() for name in PLACEHOLDER.findall(text)):
        return None
    filled = PLACEHOLDER.sub(lambda match: (values[match[1]] or "").strip(), text)
    return filled if len(filled) <= MAX_ID_CHARACTERS else None
