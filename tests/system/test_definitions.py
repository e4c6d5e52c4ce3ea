"""A bad definition of the operator is reported with its line; the definitions beside it make samples."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from meter.message import seal
from tests.system.daemons import until
from tests.system.test_spine import publish

CAPTURED = json.loads((Path(__file__).parents[1] / "data/notifications/openstack.volume.resize.end.json").read_text())
DEFINITIONS = """\
[[meter]]
name = "volume.resized"
event_types = ["volume.resize.end"]
type = "delta"
unit = "resize"
resource = "$.payload.volume_id"

[[meter]]
name = "volume.halved"
event_types = ["volume.resize.end"]
type = "gouge"
unit = "GiB"
volume = "$.payload.["
resource = "$.payload.volume_id"

[[meter]]
name = "volume.gigabytes"
event_types = ["volume.resize.end"]
unit = "GiB"
volume = "$.payload.size"
resource = "$.payload.volume_id"
"""
BAD_TOML = "[[meter]]\nname = volume\n"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "meters.d"
    folder.mkdir()
    (folder / "own.toml").write_text(DEFINITIONS)
    (folder / "typo.toml").write_text(BAD_TOML)
    return folder


def test_bad_definitions_are_reported_and_the_others_work(furnished, folder):
    wrong = [
        f"{folder}/own.toml:13: meter 'volume.halved': volume: '$.payload.[' is not a JSONPath such as $.payload.size (",
        f"{folder}/own.toml:11: meter 'volume.halved': type: should be gauge, delta, cumulative or a path, not 'gouge'\n",
        f"{folder}/typo.toml:2: not TOML: ",
    ]
    collector = furnished.daemon("meter-collector", f'[notifications]\ndefinitions = "{folder}"\n')

    checked = collector.check()

    assert checked.returncode == 0
    assert [text for text in wrong if f"warning: {text}" not in checked.stderr] == []
    assert len(checked.stderr.splitlines()) == len(wrong)
    assert re.search(r"^definitions.own +listener +active ", checked.stdout, re.M)
    assert re.search(r"^definitions.typo +listener +broken .*has no valid definition$", checked.stdout, re.M)

    collector.start().until_ready()
    assert [text for text in wrong if f"{collector.config_file}: {text}" not in collector.log] == []
    body = seal(CAPTURED["message"]).decode()
    publish(
        furnished.bus,
        [{"exchange": CAPTURED["exchange"], "routing_key": CAPTURED["routing_key"], "body": body}],
    )
    api = furnished.daemon("meter-api").start().until_ready()
    [size] = until(lambda: api.get("/v2/meters/volume.gigabytes"), "a sample of the last definition")
    [resized] = until(lambda: api.get("/v2/meters/volume.resized"), "a sample of the first definition")
    [built_in] = until(lambda: api.get("/v2/meters/volume.size"), "a sample of a built-in definition")
    assert (size["counter_volume"], resized["counter_volume"], built_in["counter_volume"]) == (3, 1, 3)
    assert api.get("/v2/meters/volume.halved") == []
