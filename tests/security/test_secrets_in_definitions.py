"""Files of definitions and of clouds may hold passwords and tokens: what is wrong with them is said without a piece of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from meter.declarative.pollster_files import load_user_pollsters
from meter.openstack.credentials import BadCredentials
from meter.openstack.credentials import from_clouds

SECRET = "hunter2"

FAULTS = [
    'password: "hunter2\n',
    "headers: {Authorization: Bearer hunter2: x}\n",
    "password: *hunter2\n",
    "password: !hunter2 x\n",
    "password: !hunter2!x y\n",
    "password: @hunter2\n",
    "password:\thunter2\n\tx: y\n",
    'password: "\\hunter2"\n',
    "password: hunter2\a\n",
    "password: hunter2\n  token: x\n",
]


@pytest.mark.parametrize("text", FAULTS)
def test_fault_of_yaml_shows_no_line_of_the_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)

    _, [problem] = load_user_pollsters(str(tmp_path))
    assert ": not YAML: " in problem
    assert SECRET not in problem
    with pytest.raises(BadCredentials) as caught:
        from_clouds("x", [file])
    assert "cannot be read: " in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["hunter2", "clouds: hunter2", "clouds: {x: [hunter2]}", "clouds: {x: {auth: hunter2}}"]
)
def test_text_where_a_mapping_of_clouds_belongs_is_not_shown(tmp_path: Path, text: str) -> None:
    file = tmp_path / "clouds.yaml"
    file.write_text(text)
    with pytest.raises(BadCredentials, match="expected mappings") as caught:
        from_clouds("x", [file])
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        'exposition = ["Bearer hunter2"]',
        'pollster = ["hunter2"]',
        'exposition = [{ name = "a", urls = ["https://a:b@c/", "ftp://meter:hunter2@host/metrics"] }]',
        'exposition = [{ name = "a", urls = ["meter:hunter2@host/metrics"] }]',
        'exposition = [{ name = "a", urls = ["https://meter:hunter2\N{CARE OF}@host/metrics"] }]',
    ],
)
def test_text_in_the_place_of_a_definition_or_url_is_not_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    _, problems = load_user_pollsters(str(tmp_path))
    assert problems
    assert SECRET not in str(problems)
