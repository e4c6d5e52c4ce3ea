"""Owners of domains not created by Nova."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from meter.pollsters.libvirt.description import parse
from meter.pollsters.libvirt.owners import owner_of
from meter.settings import OwnerSection

BILLING = "{http://example.org/billing}owner"
XML = """<domain><name>web-7</name><metadata>
  <b:owner xmlns:b="http://example.org/billing" project="p7"> boss <b:contact>ann</b:contact></b:owner>
</metadata></domain>"""
NOBODY = (None, None)
BY_NAME = {"name": r"(?P<team>[a-z]+)-\d+", "project_id": "team-{team}", "user_id": "{team}@example.org"}


def owner(*rules: dict[str, Any], name: str = "web-7", xml: str = XML, default: Any = NOBODY) -> Any:
    return owner_of(name, parse(xml), [OwnerSection(**rule) for rule in rules], default)


def test_owner_is_taken_from_the_name() -> None:
    assert owner(BY_NAME) == ("team-web", "web@example.org")


def test_pattern_must_match_the_whole_name() -> None:
    assert owner(BY_NAME, name="web-7-old") == NOBODY


def test_owner_is_taken_from_an_element() -> None:
    rule = {"element": BILLING, "project_id": "{project}", "user_id": "{contact} of {text}"}
    assert owner(rule) == ("p7", "ann of boss")


@pytest.mark.parametrize(
    "xml",
    [
        "<domain/>",
        XML.replace('project="p7"', 'project=" "'),
        XML.replace('project="p7"', f'project="{"p" * 513}"'),
        XML.replace("<metadata>", '<metadata><owner xmlns="http://example.org/billing" project="p8"/>'),
    ],
    ids=["absent", "empty", "long", "twice"],
)
def test_element_without_the_value_is_skipped(xml: str) -> None:
    assert owner({"element": BILLING, "project_id": "{project}"}, {"project_id": "lab"}, xml=xml) == ("lab", None)


def test_element_that_occurs_twice_with_equal_content_is_used() -> None:
    twice = '<metadata><owner xmlns="http://example.org/billing"><project>p7</project></owner>'
    xml = f"<domain>{twice}</metadata>{twice}</metadata></domain>"
    assert owner({"element": BILLING, "project_id": "{project}"}, xml=xml) == ("p7", None)


def test_child_that_occurs_twice_with_different_contents_is_ignored() -> None:
    children = "<project>p7</project><project>p8</project>"
    xml = f'<domain><metadata><owner xmlns="http://example.org/billing">{children}</owner></metadata></domain>'
    assert owner({"element": BILLING, "project_id": "{project}"}, xml=xml) == NOBODY


def test_first_matching_rule_is_used() -> None:
    assert owner({"name": "db-.*", "project_id": "db"}, {"name": "web.*", "project_id": "web"}, BY_NAME)[0] == "web"


def test_default_owner_fills_what_rules_leave_open() -> None:
    default = ("lab", "operator")
    assert owner({"name": "web.*", "project_id": "web"}, default=default) == ("web", "operator")
    assert owner({"name": "db.*", "project_id": "db"}, default=default) == default


def test_rule_without_a_condition_matches_every_domain() -> None:
    assert owner({"project_id": "all"}) == ("all", None)


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        (
            {"name": "(", "project_id": "x"},
            "name is not a regular expression: missing .*, unterminated subpattern at character 1",
        ),
        ({"name": "a", "element": "b", "project_id": "x"}, "a name or an element, not both"),
        ({"name": "a"}, "needs a project_id or a user_id"),
        ({"name": "a", "project_id": "{team}"}, r"\{team\} is not a named group of name"),
        ({"project_id": "{team}"}, r"\{team\} is not a named group of name"),
        ({"element": "{http://x", "project_id": "x"}, "element should be like"),
        ({"element": "a[", "project_id": "x"}, "element should be like"),
        ({"pattern": "a", "project_id": "x"}, "Extra inputs"),
    ],
)
def test_invalid_rule_is_rejected(rule: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        OwnerSection(**rule)
