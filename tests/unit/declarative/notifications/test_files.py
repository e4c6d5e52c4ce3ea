"""Files of definitions: problems are reported with file and line, and valid definitions are used."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

from meter.declarative.notifications import DefinedListener
from meter.declarative.notifications import load_user_definitions
from meter.declarative.notifications import read_definitions
from meter.declarative.notifications import without_redefined_meters
from meter.declarative.notifications.files import DefinitionFile
from meter.plugins.registry import LISTENER
from meter.plugins.registry import configure
from meter.plugins.registry import find
from meter.sample import MeterDefinition

SITES = """
[[meter]]
name = "site.visitors"
event_types = ["site.counted"]
unit = "visitor"
volume = "$.payload.visitors"
resource = "$.payload.site"
"""


def toml(folder: Path, text: str, name: str = "sites.toml") -> DefinitionFile:
    path = folder / name
    path.write_text(dedent(text), encoding="utf-8")
    return read_definitions(path, name)


def test_definition_of_six_lines_defines_a_meter(tmp_path: Path) -> None:
    file = toml(tmp_path, SITES)
    assert file.problems == ()
    (definition,) = file.definitions
    assert definition.meters == (MeterDefinition("site.visitors", "gauge", "visitor"),)
    assert definition.origin == "sites.toml:2"


def test_unknown_table_is_reported_where_it_stands(tmp_path: Path) -> None:
    file = toml(tmp_path, '[deletion.d]\nevents = "x"\n[[meters]]\nname = "x"\n')
    assert [each.partition(" key")[0] for each in file.problems] == [
        "sites.toml:3: meters: unknown",
        "sites.toml:2: deletion.events: unknown",
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('name = ""', 'name: should have at least 1 character, not ""'),
        ("event_types = []", "event_types: should be an event type with * and ?, or several in a list, not []"),
        ('event_types = ["[a-z]"]', "event_types: should be an event type of at most 1000 characters, with * and ?"),
        ('type = "rate"', "type: should be gauge, delta, cumulative or a path, not 'rate'"),
        ('volume = "$.payload["', "volume: '$.payload[' is not a JSONPath"),
        (
            "volume = true",
            "volume: should be a number, a path that begins with $, several, or { from = …, to = … }, not",
        ),
        ('volume = { from = "$.payload.a" }', "volume: should be a number, a path"),
        ('volume = "$..a..b"', "volume: '$..a..b': '..' is allowed once"),
        (
            "resource = \"$.payload.x[?(@.a =~ '(a*)*b')]\"",
            "resource: \"$.payload.x[?(@.a =~ '(a*)*b')]\": use = or !=",
        ),
        ('metadata = "people"', "metadata: there is no [metadata.people] in this file, only: none"),
        ("metadata = { a = [] }", "metadata.a: should be a path, a text, a number or a table, not []"),
        ('lookup = ["colour"]', "lookup: colour: should be one of name, type, unit, volume"),
        ('vollume = "$.payload.x"', "vollume: unknown key; should be one of name, names, event_types, except"),
        ('optional = ["volume"]', 'optional: should be "user", "project" or "timestamp", not "volume"'),
        (f'volume = "$.{"a" * 510}"', "volume: should have at most 500 characters, not 512"),
    ],
)
def test_bad_definition_is_reported_with_its_line_and_the_others_work(tmp_path: Path, line: str, problem: str) -> None:
    key = line.partition(" ")[0]
    wrong = "\n".join(each for each in SITES.strip().splitlines() if not each.startswith(f"{key} "))
    text = f"{SITES}\n{wrong}\n{line}\n"
    file = toml(tmp_path, text)
    assert [definition.origin for definition in file.definitions] == ["sites.toml:2"]
    (problem_text, *_) = file.problems
    meter = "''" if key == "name" else "'site.visitors'"
    assert problem_text.startswith(f"sites.toml:{len(dedent(text).splitlines())}: meter {meter}: {problem}"), (
        problem_text
    )


@pytest.mark.parametrize("missing", ["name", "event_types", "unit", "resource"])
def test_missing_key_is_named(tmp_path: Path, missing: str) -> None:
    text = "\n".join(line for line in SITES.splitlines() if not line.startswith(missing))
    (problem,) = toml(tmp_path, text).problems
    assert problem.endswith(f"{missing}: is missing")


def test_problems_of_shared_tables_and_of_the_file_are_reported_with_the_line_of_the_key(tmp_path: Path) -> None:
    shared = """
        exchanges = 7
        [metadata.people]
        name = "$.payload.name"
        "odd.key" = []
        age = []
        [deletion.site]
        event_types = ["site.*"]
        whre = 1
        [metre]
    """
    assert [each.partition(": ")[0] for each in toml(tmp_path, shared).problems] == [
        "sites.toml:10",
        "sites.toml:3",
        "sites.toml:6",
        "sites.toml:9",
        "sites.toml:2",
    ]


CONDITIONS = """
[conditions.open]
except = "site.*.error"
unless = { "$.payload.state" = "closed" }
"""


def test_conditions_of_a_named_table_apply_beside_those_of_the_definition(tmp_path: Path) -> None:
    own = 'except = "site.x"\nunless = { "$.payload.kind" = "test" }\n'
    named = toml(tmp_path, SITES + own + 'conditions = "open"\n' + CONDITIONS)
    assert named.problems == ()
    [definition] = named.definitions
    assert [(source.shown, texts) for source, texts in definition.unless] == [
        ("payload.kind", {"test"}),
        ("payload.state", {"closed"}),
    ]
    [pattern] = definition.patterns
    assert pattern.unwanted is not None
    assert re.fullmatch(pattern.unwanted, "site.x")
    assert re.fullmatch(pattern.unwanted, "site.visit.error")


@pytest.mark.parametrize(
    ("used", "table", "problems"),
    [
        (
            "closed",
            CONDITIONS,
            [
                "10: conditions.open: no meter has conditions",
                "8: meter 'site.visitors': conditions: there is no [conditions.closed]",
            ],
        ),
        (
            "open",
            CONDITIONS.replace("unless", "unles"),
            ["12: unles: unknown key; should be one of except, unless", "8: meter"],
        ),
        (
            "open",
            CONDITIONS.replace("$.payload.state", "$.payload["),
            ["12: unless: '$.payload[' is not a JSONPath", "8: meter"],
        ),
        ("open", "\n[conditions.open]\n", ["10: conditions: should have except or unless", "8: meter"]),
        ("open", "\n[conditions]\nopen = 7\n", ["11: conditions: should be a table", "8: meter"]),
    ],
)
def test_bad_conditions_are_reported_and_their_definitions_are_not_used(
    tmp_path: Path, used: str, table: str, problems: list[str]
) -> None:
    file = toml(tmp_path, f'{SITES.rstrip()}\nconditions = "{used}"\n{table}')
    assert file.definitions == ()
    for problem, expected in zip(file.problems, problems, strict=True):
        assert problem.startswith(f"sites.toml:{expected}"), file.problems


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            SITES + "conditions = ['open']",
            "meter 'site.visitors': conditions: should be the name of a table under [cond",
        ),
        ("conditions = 'open'", "conditions: should be tables, [conditions.NAME]"),
        ("deletion = true", "deletion: should be tables, [deletion.NAME]"),
        ("metadata = []", "metadata: should be tables, [metadata.NAME]"),
        ("meter = 5", "meter: should be an array of tables, each with the header [[meter]]"),
        ("[meter]\nname = 'x'", "meter: should be an array of tables, each with the header [[meter]]"),
    ],
)
def test_key_with_a_value_of_another_kind_is_reported(tmp_path: Path, text: str, problem: str) -> None:
    file = toml(tmp_path, text)
    assert file.definitions == ()
    assert [each.partition(": ")[2][: len(problem)] for each in file.problems] == [problem]


def test_bad_toml_is_reported_with_the_line(tmp_path: Path) -> None:
    (problem,) = toml(tmp_path, "\n\n[[meter]\n").problems
    assert problem.startswith("sites.toml:3: not TOML: ")
    (problem,) = toml(tmp_path, "a = 1\nb = [2,\n\n").problems
    assert problem.startswith("sites.toml:3: not TOML: ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[[meter]]\nconditions = ["open"]\n', "2: meter 'without a name': conditions: should be the name of a table"),
        ("exchanges = []\nmeter = 3\n", "2: meter: should be an array of tables, each with the header [[meter]]"),
        ('[meter]\nname = "a"\n', "1: meter: should be an array of tables"),
        (f"a = {'[' * 5000}{']' * 5000}", "1: not TOML: it is nested too deeply"),
    ],
)
def test_values_of_other_types_are_reported_with_the_line(tmp_path: Path, text: str, problem: str) -> None:
    problems = toml(tmp_path, text).problems
    assert any(each.startswith(f"sites.toml:{problem}") for each in problems), problems


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("metric: [", "own.yaml:1: not YAML: "),
        (f"metric: {'[' * 600}{']' * 600}", "own.yaml:1: not YAML: it is nested too deeply"),
        ("<<: {metric: [7]}", "own.yaml:1: should be a table of a meter, not 7"),
        ("- a", "own.yaml:1: should have a list named metric, as Ceilometer's meters.yaml"),
        ("metric:\n  - 7\n", "own.yaml:2: should be a table of a meter, not 7"),
        (
            "---\nmetric:\n  - name: x\n    event_type: '(a'\n    type: gauge\n    unit: B\n    volume: 1\n    resource_id: $.payload.id\n",
            "own.yaml:3: meter 'x': event_types: '(a' is not a valid pattern (missing ): (a): use RE2 syntax",
        ),
        (
            "metric:\n  - name: x\n    event_type: a\n    type: gauge\n    unit: B\n    volume: {fields: [a], plugin: map}\n    resource_id: $.payload.id\n",
            "own.yaml:2: meter 'x': volume: should be a path, a number, or two fields with plugin: timedelta",
        ),
    ],
)
def test_bad_yaml_is_reported_with_the_line(tmp_path: Path, text: str, problem: str) -> None:
    (problem_text,) = toml(tmp_path, text, "own.yaml").problems
    assert problem_text.startswith(problem), problem_text


def test_unreadable_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'a = "\xe9"')
    (problem,) = read_definitions(tmp_path / "latin.toml").problems
    assert "latin.toml: cannot be read: 'utf-8' codec can't decode" in problem


def test_each_file_of_the_directory_is_a_listener(tmp_path: Path) -> None:
    toml(tmp_path, SITES)
    toml(tmp_path, "exchanges = ['halls']\n" + SITES.replace("site.", "hall."), "halls.toml")
    toml(tmp_path, SITES.replace("unit", "units"), "broken.toml")
    toml(tmp_path, "another program's", "README.txt")
    decisions, problems = load_user_definitions(str(tmp_path))
    assert [(each.name, each.state, each.reason) for each in decisions] == [
        ("definitions.broken", "broken", "has no valid definition"),
        ("definitions.halls", "pending", ""),
        ("definitions.sites", "pending", ""),
    ]
    assert [topic.exchange for topic in decisions[1].plugin.topics] == ["halls"]
    assert len(problems) == 2
    assert [problem.partition(" meter 'site.visitors': ")[0] for problem in problems] == [
        f"{tmp_path}/broken.toml:2:",  # what is missing
        f"{tmp_path}/broken.toml:5:",
    ]


@pytest.mark.parametrize("directory", ["", "/nowhere/at/all"])
def test_missing_directory_has_no_definitions(directory: str) -> None:
    assert load_user_definitions(directory) == ([], [])


def test_single_meter_of_a_file_can_be_disabled(tmp_path: Path) -> None:
    toml(tmp_path, SITES + SITES.replace("site.visitors", "site.guests"))
    decisions, _ = load_user_definitions(str(tmp_path))
    configured = configure(decisions, {}, ["site.guests"])
    assert configured.warnings == ()
    assert not configured.decisions[0].takes("site.guests")
    assert configured.decisions[0].takes("site.visitors")


def test_redefined_meter_is_disabled_in_the_built_in_listener(tmp_path: Path) -> None:
    toml(tmp_path, SITES.replace("site.visitors", "volume.size"))
    own, _ = load_user_definitions(str(tmp_path))
    decisions = {each.name: each for each in without_redefined_meters([*find([LISTENER]), *own], own)}
    assert not decisions["cinder.volume"].takes("volume.size")
    assert decisions["cinder.volume"].takes("volume")
    assert decisions["cinder.volume"].reason == "volume.size from definitions.sites"
    assert decisions["definitions.sites"].takes("volume.size")


def test_built_in_definitions_have_no_problems() -> None:
    assert [each.reason for each in find([LISTENER]) if each.state == "broken"] == []
    assert sum(isinstance(each.plugin, DefinedListener) for each in find([LISTENER])) > 25


def test_example_definitions_have_no_problems() -> None:
    decisions, problems = load_user_definitions(str(Path(__file__).parents[4] / "etc" / "meters.d"))
    assert problems == []
    assert [each.name for each in decisions] == ["definitions.example"]
