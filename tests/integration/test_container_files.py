"""The files for containers: hadolint and the Compose Specification find no fault, and all that they name exists."""

from __future__ import annotations

import importlib
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyOptions

from meter.settings.config_file import load
from meter.settings.masked import masked_urls

TOP = Path(__file__).parents[2]
FOLDER = TOP / "etc/container"
COMPOSE = FOLDER / "compose.yaml"
BIN = Path(sys.executable).parent
SECRETS = "/run/secrets/"
DAEMONS = ("meter-api", "meter-collector", "meter-compute")
CONFIGURATION = "/etc/meter/meter.toml"


def composed() -> dict[str, Any]:
    """The compose file, merged."""
    document: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return document


def of_meter() -> dict[str, dict[str, Any]]:
    return {name: each for name, each in composed()["services"].items() if each["image"] == "meter-cloud"}


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Containerfile with their arguments, without comments."""
    lines = [each for each in (FOLDER / "Containerfile").read_text().splitlines() if not each.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [(name, " ".join(rest.split())) for name, rest in re.findall(r"^([A-Z]+) (.*)$", text, re.M)]


def test_hadolint_finds_no_fault() -> None:
    checked = subprocess.run([BIN / "hadolint", FOLDER / "Containerfile"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_hadolint_finds_a_missing_option_of_apt_get(tmp_path: Path) -> None:
    text = (FOLDER / "Containerfile").read_text().replace(" --no-install-recommends", "")
    (tmp_path / "Containerfile").write_text(text)
    checked = subprocess.run(
        [BIN / "hadolint", tmp_path / "Containerfile"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 1
    assert "DL3015" in checked.stdout


def test_compose_file_conforms_to_the_specification() -> None:
    options = PyOptions(apply_merge=True)
    compose = options.from_yaml(COMPOSE.read_text(encoding="utf-8"))
    compose.validate()
    assert set(compose.service_names()) == {"rabbitmq", "postgresql", "collector", "api", "compute"}


@pytest.mark.parametrize(
    ("old", "new"), [("restart: unless-stopped", "restart: sometimes"), ("source: rabbitmq_conf", "source: rabbitmq")]
)
def test_compose_file_that_violates_the_specification_is_refused(old: str, new: str) -> None:
    options = PyOptions(apply_merge=True)
    with pytest.raises(ValueError, match=r"sometimes|rabbitmq"):
        options.from_yaml(COMPOSE.read_text(encoding="utf-8").replace(old, new)).validate()


def test_image_is_built_from_files_that_exist_and_runs_as_an_unprivileged_user() -> None:
    copied = [shlex.split(rest)[:-1] for name, rest in instructions() if name == "COPY" and "--from" not in rest]
    assert copied
    assert [path for paths in copied for path in paths if not (TOP / path).exists()] == []
    assert [rest for name, rest in instructions() if name == "USER"] == ["10001"]
    [entry] = [rest for name, rest in instructions() if name == "ENTRYPOINT"]
    program, *options = yaml.safe_load(entry)
    [command] = [yaml.safe_load(rest) for name, rest in instructions() if name == "CMD"]
    assert (BIN / program).exists()
    module, _, observer = next(each for each in options if each.startswith("--logger="))[9:].rpartition(".")
    assert callable(getattr(importlib.import_module(module), observer))
    assert command == ["meter", "--config", CONFIGURATION]


def test_containers_run_daemons_that_exist_with_the_configuration_that_is_mounted() -> None:
    assert sorted(each["command"][0] for each in of_meter().values()) == sorted(DAEMONS)
    for each in of_meter().values():
        assert each["command"][1:] == ["--config", CONFIGURATION]
        source, target, _ = each["volumes"][0].split(":")
        assert ((FOLDER / source).exists(), target) == (True, CONFIGURATION)
        assert (FOLDER / each["build"]["context"]).resolve() == TOP
        assert (TOP / each["build"]["dockerfile"]).exists()
        assert int(each["stop_grace_period"].removesuffix("s")) > 75


def test_containers_may_write_only_their_state() -> None:
    for each in of_meter().values():
        assert each["read_only"] is True
        assert each["cap_drop"] == ["ALL"]
        assert [volume for volume in each["volumes"][1:] if volume.endswith(":/var/lib/meter")]
    named = {volume.split(":")[0] for each in composed()["services"].values() for volume in each.get("volumes", [])}
    assert {each for each in named if not each.startswith((".", "/"))} == set(composed()["volumes"])


def made(directory: Path) -> Path:
    subprocess.run([FOLDER / "make-secrets", directory], check=True)
    return directory


def test_secrets_are_made_once_and_are_those_that_the_compose_file_takes(tmp_path: Path) -> None:
    secrets = made(tmp_path / "secrets")
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    taken = composed()["secrets"]
    assert set(before) == {*taken, "rabbitmq_password"}  # which is part of two others
    assert {name: Path(each["file"]).name for name, each in taken.items()} == {name: name for name in taken}
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert before["postgresql_password"].strip() in before["store_dsn"]
    assert before["rabbitmq_password"].strip() in before["bus_url"]
    assert before["rabbitmq_password"].strip() in before["rabbitmq_conf"]
    assert {path.name: path.read_text() for path in made(secrets).iterdir()} == before
    assert made(tmp_path / "others").joinpath("signing_key").read_text() != before["signing_key"]


@pytest.mark.parametrize("name", DAEMONS)
def test_daemons_accept_the_configuration_with_the_secrets(tmp_path: Path, name: str) -> None:
    secrets = made(tmp_path / "secrets")
    text = (FOLDER / "meter.toml").read_text(encoding="utf-8")
    used = set(re.findall(rf'"{SECRETS}(\w+)"', text))
    assert used == set(composed()["x-meter"]["secrets"])
    (tmp_path / "meter.toml").write_text(text.replace(SECRETS, f"{secrets}/"))
    config = load(str(tmp_path / "meter.toml"), name)
    services = composed()["services"]
    assert re.fullmatch(r"postgresql://meter:\*\*\*@postgresql/meter", masked_urls(config.store.dsn.get_secret_value()))
    assert re.fullmatch(r"amqp://meter:\*\*\*@rabbitmq:5672/", masked_urls(config.bus.url.get_secret_value()))
    assert {"postgresql", "rabbitmq"} <= set(services)
    assert config.api.listen == f"tcp:{services['api']['ports'][0].split(':')[-1]}"
    probe = composed()["x-meter"]["healthcheck"]["test"][-1]
    assert f"//127.0.0.1:{config.status.listen.split(':')[1]}/healthz" in probe
