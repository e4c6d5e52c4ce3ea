"""Every wrong setting is told with its section, key and line, in words of TOML and not of Python."""

from __future__ import annotations

import re
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import time
from typing import get_args
from typing import get_origin

import pytest
import tomli_w
from pydantic import BaseModel

from meter.settings import Config
from meter.settings.config_file import parse
from meter.settings.plain_words import toml_text
from meter.settings.problems import ConfigError

WRONG = (
    True,
    -1,
    0,
    1.5,
    float("nan"),
    "",
    "x y",
    [],
    ["a"],
    [1],
    [True],
    {"a": 1},
    [{"a": 1}],
    datetime(2026, 1, 1, tzinfo=UTC),
)
"""Values; most of them are wrong for any one setting."""

PYTHON = re.compile(
    r"\b(True|False|None|nan\b.*nan)\b|datetime|<class|instance of|Error|Errno|0x|\\x|[Ii]nput should|'\w*'[,)]"
)
TOLD = re.compile(r"meter\.toml, line \d+: \[[\w.-]+\]( [\w.-]+)?: \S.*", re.DOTALL)


def places(model: type[BaseModel], path=()):
    """The path of every setting and section in the document; an element of an array of tables has the position 0."""
    for name, field in model.model_fields.items():
        yield (*path, name)
        element = "nova" if get_origin(field.annotation) is dict else 0
        for each in (field.annotation, *get_args(field.annotation)):
            if isinstance(each, type) and issubclass(each, BaseModel):
                yield from places(each, (*path, name) if each is field.annotation else (*path, name, element))


def document(path, value):
    for part in reversed(path):
        value = [value] if part == 0 else {part: value}
    return tomli_w.dumps(value)


def told(text):
    """What is wrong with the configuration; nothing if it is right."""
    try:
        parse(text, "meter-collector", "meter.toml")
    except ConfigError as error:
        return error.problems
    return []


PLACES = list(places(Config))


@pytest.mark.parametrize("section", [name for name in Config.model_fields if name not in ("pollsters", "listeners")])
def test_every_wrong_value_is_told_with_its_place_and_without_words_of_python(section):
    for path in PLACES:
        if path[0] != section:
            continue
        found = [
            problem
            for value in WRONG
            if len(path) > 1 or isinstance(value, dict)
            for problem in told(document(path, value))
        ]
        assert found, path
        assert [each for each in found if not TOLD.fullmatch(each) or PYTHON.search(each)] == []


def test_every_section_refuses_a_key_that_it_does_not_know_with_what_it_knows():
    sections = {path[:-1] for path in PLACES if len(path) > 1}
    for path in sections:
        [found] = [each for each in told(document((*path, "flying_cars"), 1)) if "flying_cars" in each]
        assert re.fullmatch(
            r"meter.toml, line \d+: \[[\w.]+\] flying_cars: unknown key; (known: .+|did you mean .+\?)", found
        )


@pytest.mark.parametrize("text", ["[{}]\nx = 1", "[api]\n{} = 1"])
def test_a_name_of_thousands_of_digits_is_an_unknown_one(text):
    [found] = told(text.format("1" * 5000))
    assert re.search(r"1\]?: unknown (key|section)", found)


def test_values_are_shown_as_toml():
    values = [
        True,
        1,
        1.5,
        'a"b',
        [1, "x"],
        {"a": [False]},
        datetime(2026, 1, 1, tzinfo=UTC),
        date(2026, 1, 1),
        time(1, 2),
    ]
    assert [toml_text(each) for each in values] == [
        "true",
        "1",
        "1.5",
        '"a\\"b"',
        '[1, "x"]',
        "{a = [false]}",
        "2026-01-01T00:00:00Z",
        "2026-01-01",
        "01:02:00",
    ]
    assert len(toml_text("x" * 1000)) == 80


def test_array_where_a_table_should_stand_is_told_with_its_line():
    assert told("# first\n[[store]]\nreaders = 1\n") == ["meter.toml, line 2: [store]: should be a table"]
