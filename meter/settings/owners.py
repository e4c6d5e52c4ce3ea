"""Rules in ``[[compute.owners]]`` that assign an owner to domains not created by Nova."""

from __future__ import annotations

import re

from pydantic import Field
from pydantic import model_validator

from meter.settings.section import Section

PLACEHOLDER = re.compile(r"\{(\w+)\}")
"""A placeholder in ``project_id`` or ``user_id``: ``{team}``."""
ELEMENT_PATH = re.compile(r"(\{[^{}]+\})?[\w.-]+(/(\{[^{}]+\})?[\w.-]+)*")


class OwnerSection(Section):
    """A rule that assigns an owner to domains not created by Nova."""

    name: str = Field(
        default="",
        description="Regular expression that the whole domain name must match; its named groups can be used in project_id and user_id: (?P<team>[a-z]+)-.*",
    )
    element: str = Field(
        default="",
        description="Instead of name: an XML element in the domain's metadata, {http://example.org/billing}owner. Its attributes, the texts of its children and its own {text} can be used in project_id and user_id.",
    )
    project_id: str = Field(
        default="", description='Project of the matching domains: "lab", or with a placeholder: "{team}".'
    )
    user_id: str = Field(default="", description="User of the matching domains, written as project_id is.")

    @model_validator(mode="after")
    def _can_match(self) -> OwnerSection:
        if self.name and self.element:
            raise ValueError("a rule has a name or an element, not both")
        if not self.project_id and not self.user_id:
            raise ValueError("a rule needs a project_id or a user_id")
        if self.element and not ELEMENT_PATH.fullmatch(self.element):
            raise ValueError(f"element should be like {{http://example.org/billing}}owner/project, not {self.element}")
        known: set[str] | None = None if self.element else set()
        if self.name:
            try:
                known = set(re.compile(self.name).groupindex)
            except re.error as error:
                # Its own text has the position from 0.
                place = "" if error.pos is None else f" at character {error.pos + 1}"
                raise ValueError(f"name is not a regular expression: {error.msg}{place}") from error
        for placeholder in PLACEHOLDER.findall(self.project_id + self.user_id):
            if known is not None and placeholder not in known:
                raise ValueError(f"{{{placeholder}}} is not a named group of name: write (?P<{placeholder}>...)")
        return self
