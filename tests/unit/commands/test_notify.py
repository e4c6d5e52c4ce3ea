"""``meter-notify explain`` prints what the collector makes of a notification and why; it sends nothing and shows no secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from meter.commands.captured_notifications import read_captured
from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.notify import explain
from meter.settings.config_file import parse

NOTIFICATIONS = Path(__file__).parents[2] / "data" / "notifications"

Explain = Callable[..., tuple[int, str]]


@pytest.fixture
def run_explain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Explain:
    def run(*files: Path | str, configuration: str = "", as_json: bool = False) -> tuple[int, str]:
        config = parse(f'[notifications]\ndefinitions = "{tmp_path}/meters.d"\n{configuration}', "meter-collector")
        captured = [(Path(name).name, each) for name in files for each in read_captured(str(name))]
        status = explain(captured, config, Clock(), as_json=as_json)
        out, err = capsys.readouterr()
        return status, out + err

    return run


def captured(name: str) -> Path:
    return NOTIFICATIONS / f"{name}.json"


def written(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_sample_is_printed_with_the_definition_that_makes_it(run_explain: Explain) -> None:
    status, text = run_explain(captured("openstack.volume.resize.end"))
    assert status == EXIT_OK
    assert text.splitlines()[0] == (
        "openstack.volume.resize.end.json: volume.resize.end from volume.block1@fake, 2026-11-22T16:07:24.711807"
    )
    assert (
        "  volume.size = 3 GiB (gauge)  resource e70460b0-519e-4502-a256-d90f6475545d"
        "  project b6e8cc20ee9c457e83f13218eca89c43  user 4cc236f0eb364412abb1024bc6ffbdf3  by cinder/volume.toml:"
    ) in text


def test_unwanted_event_type_is_reported(run_explain: Explain) -> None:
    status, text = run_explain(captured("nova.scheduler.select_destinations.start"))
    assert status == EXIT_FOUND_PROBLEMS
    assert "  no listener wants this event type" in text


@pytest.mark.parametrize("as_json", [False, True])
def test_every_captured_notification_has_samples_or_a_reason(run_explain: Explain, as_json: bool) -> None:
    for path in sorted(NOTIFICATIONS.glob("*.json")):
        _, text = run_explain(path, as_json=as_json)
        assert len(text.splitlines()) >= (1 if as_json else 2), path.name


@pytest.mark.parametrize("metrics", [True, 5, 1.5, "x", {}, [3]])
def test_notification_with_invalid_metrics_is_explained(run_explain: Explain, tmp_path: Path, metrics: Any) -> None:
    content = json.loads(captured("nova.compute.metrics.update").read_text())
    body = content.get("message", content)
    body["payload"]["metrics"] = metrics
    _, text = run_explain(written(tmp_path, content))
    assert "one.json: compute.metrics.update" in text


def test_missing_required_value_is_reported(run_explain: Explain) -> None:
    status, text = run_explain(captured("glance.image.update.1"))
    assert status == EXIT_OK
    assert "no sample: the notification lacks a value that the definition requires" in text


def test_bad_field_is_reported_by_name(run_explain: Explain, tmp_path: Path) -> None:
    content = json.loads(captured("openstack.volume.resize.end").read_text())
    content["message"]["payload"]["size"] = "much"
    _, text = run_explain(written(tmp_path, content))
    assert "payload.size must be a number from 0 to 2**63 - 1, not 'much'" in text
    assert "  would be dead-lettered (misunderstood), because of cinder.volume: " in text


def test_disabled_meter_and_disabled_listener_are_reported(run_explain: Explain) -> None:
    off = '[plugins]\ndisable = ["volume.size", "glance.*"]\n'
    _, text = run_explain(captured("openstack.volume.resize.end"), configuration=off)
    assert "volume.size is disabled (without volume.size)" in text
    status, text = run_explain(captured("glance.image.upload"), configuration=off)
    assert status == EXIT_FOUND_PROBLEMS
    assert "glance.image wants this event type but is not active: disabled: [plugins] disable has glance.*" in text


def test_exchange_without_a_binding_is_reported(run_explain: Explain, tmp_path: Path) -> None:
    content = json.loads(captured("openstack.volume.resize.end").read_text()) | {"exchange": "elsewhere"}
    _, text = run_explain(written(tmp_path, content))
    assert "  NOT RECEIVED: the collector's queue is not bound to exchange elsewhere for notifications.info" in text


def test_user_definitions_and_their_problems_are_reported(run_explain: Explain, tmp_path: Path) -> None:
    folder = tmp_path / "meters.d"
    folder.mkdir()
    (folder / "own.toml").write_text(
        '[[meter]]\nname = "resized"\nevent_types = ["volume.resize.end"]\nunit = "time"\ntype = "delta"\n'
        'resource = "$.payload.volume_id"\n\n[[meter]]\nname = "wrong"\n'
    )
    _, text = run_explain(captured("openstack.volume.resize.end"))
    assert f"by {folder}/own.toml:1" in text
    assert f"{folder}/own.toml:8: meter 'wrong': event_types: is missing" in text


def test_secret_is_masked(run_explain: Explain, tmp_path: Path) -> None:
    folder = tmp_path / "meters.d"
    folder.mkdir()
    (folder / "own.toml").write_text(
        '[[meter]]\nname = "all"\nevent_types = ["scheduler.*"]\nunit = "x"\nresource = "$.publisher_id"\n'
        'metadata = { all = "$.payload" }\n'
    )
    status, text = run_explain(captured("nova.scheduler.select_destinations.start"), as_json=True)
    assert status == EXIT_OK
    assert "gAAAAA" not in text
    assert json.loads(text)["metadata"]["all"]["request_spec"]["instance_properties"]["vcpus"] == 1


def test_json_output_has_an_object_per_sample(run_explain: Explain) -> None:
    _, text = run_explain(captured("swift.objectstore.http.request.3"), as_json=True)
    samples = [each for each in map(json.loads, text.splitlines()) if "meter" in each]
    assert [(each["meter"], each["volume"], each["listener"]) for each in samples] == [
        ("storage.api.request", 1, "swift.objectstore"),
        ("storage.objects.incoming.bytes", 10, "swift.objectstore"),
    ]


def test_a_file_may_hold_a_list_of_bare_or_wrapped_notifications(tmp_path: Path) -> None:
    message = json.loads(captured("glance.image.upload").read_text())["message"]
    wrapped = {"oslo.version": "2.0", "oslo.message": json.dumps(message)}
    bodies = [json.loads(each.body) for each in read_captured(str(written(tmp_path, [message, wrapped])))]
    assert [json.loads(body["oslo.message"]) for body in bodies] == [message, message]


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "not JSON"), ("[7]", "a notification must be a JSON object, not a int"), ('{"message": 7}', "not a int")],
)
def test_file_without_a_notification_is_an_error(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(CommandError, match=said):
        list(read_captured(str(path)))


def test_body_that_cannot_be_parsed_is_reported_as_dead_lettered(run_explain: Explain, tmp_path: Path) -> None:
    status, text = run_explain(
        written(tmp_path, {"event_type": "x" * 10_000, "message_id": "1", "timestamp": "2026-11-22"})
    )
    assert status == EXIT_FOUND_PROBLEMS
    assert "one.json: would be dead-lettered (undecodable): a notification must have a payload" in text
    content = {"event_type": "x" * 10_000, "message_id": "1", "timestamp": "2026-11-22", "payload": {}}
    assert "event_type must have at most 255 characters, not 10000" in run_explain(written(tmp_path, content))[1]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_file_with_one_notification_per_line_is_explained(run_explain: Explain, tmp_path: Path, end: str) -> None:
    lines = [
        json.dumps(json.loads(captured(name).read_text()))
        for name in ("openstack.volume.resize.end", "glance.image.upload")
    ]
    path = tmp_path / "captured.jsonl"
    path.write_bytes((end.join(lines) + end).encode())
    status, text = run_explain(path)
    assert status == EXIT_OK
    assert [line for line in text.splitlines() if line.startswith("captured.jsonl: ")] == [
        "captured.jsonl: volume.resize.end from volume.block1@fake, 2026-11-22T16:07:24.711807",
        "captured.jsonl: image.upload from image.localhost, 2026-11-22T15:57:13.085609",
    ]
    in_array = written(tmp_path, [json.loads(line) for line in lines])
    assert run_explain(in_array)[1].replace("one.json", "captured.jsonl") == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lines.jsonl: not JSON"),
        ("no\n{}\n", "lines.jsonl: not JSON"),
        ("{}\n{\n", "lines.jsonl:2: not JSON"),
        ("{}\n\n7\n", "lines.jsonl: a notification must be a JSON object, not a int"),
    ],
)
def test_line_without_a_notification_is_an_error(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(text)
    with pytest.raises(CommandError) as error:
        list(read_captured(str(path)))
    assert said in str(error.value)
