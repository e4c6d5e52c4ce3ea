"""What of a systemd unit the check obeys, as no systemd runs in a chroot: how a service is started, and as whom."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

UNIT_DIRECTORIES = ("etc/systemd/system", "lib/systemd/system", "usr/lib/systemd/system")
VARIABLE = re.compile(r"^\$\{?(\w+)\}?$")


@dataclass(frozen=True, slots=True)
class Unit:
    """A service: ``command`` and the settings of its section ``[Service]`` that the check obeys."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    user: str = "root"
    group: str = ""
    supplementary_groups: Sequence[str] = ()
    state_directories: Sequence[str] = ()
    state_mode: int = 0o755
    runtime_directories: Sequence[str] = ()
    umask: int = 0o022
    starts_others: bool = False
    after: Sequence[str] = ()
    notifies: bool = False

    @property
    def groups(self) -> Sequence[str]:
        """The groups that have to exist."""
        return (*((self.group,) if self.group else ()), *self.supplementary_groups)


def read_unit(root: Path, name: str) -> Unit:
    """Return the unit ``name`` that is installed in ``root``; ``FileNotFoundError`` if there is none."""
    stem = name.removesuffix(".service")
    template, separator, instance = stem.partition("@")
    file_name = f"{template}@.service" if separator else f"{stem}.service"
    for directory in UNIT_DIRECTORIES:
        file = root / directory / file_name
        if file.is_file():
            return parse_unit(file.read_text(encoding="utf-8"), stem, instance, root)
    raise FileNotFoundError(f"Unit {name} could not be found.")


def parse_unit(text: str, name: str, instance: str = "", root: Path = Path("/")) -> Unit:
    """Return the unit that ``text`` describes; ``EnvironmentFile`` is read in ``root``."""
    text = text.replace("%i", instance)
    settings = _section(text, "Service")
    environment: dict[str, str] = {}
    for value in settings.get("Environment", ()):
        environment.update(each.split("=", 1) for each in shlex.split(value))
    for value in settings.get("EnvironmentFile", ()):
        file = root / value.lstrip("-").lstrip("/")
        if file.is_file():
            environment.update(_assignments(file.read_text(encoding="utf-8")))
    [*_, start] = settings.get("ExecStart", [""])
    words = shlex.split(start.lstrip("-@:+!"))

    def last(key: str, default: str) -> str:
        return settings.get(key, [default])[-1]

    def every(key: str) -> Sequence[str]:
        return tuple(word for value in settings.get(key, ()) for word in value.split())

    return Unit(
        name=name,
        command=tuple(each for word in words for each in _expanded(word, environment)),
        environment=environment,
        user=last("User", "root"),
        group=last("Group", ""),
        supplementary_groups=every("SupplementaryGroups"),
        state_directories=every("StateDirectory"),
        state_mode=int(last("StateDirectoryMode", "755"), 8),
        runtime_directories=every("RuntimeDirectory"),
        umask=int(last("UMask", "022"), 8),
        starts_others=last("Type", "simple") == "oneshot" and words[:1] in (["/bin/true"], ["/usr/bin/true"]),
        notifies=last("Type", "simple").startswith("notify"),
        after=tuple(word for value in _section(text, "Unit").get("After", ()) for word in value.split()),
    )


def _section(text: str, wanted: str) -> dict[str, list[str]]:
    """Return the values of each key in a section; an empty value removes those before it."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in text.replace("\\\n", " ").splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == f"[{wanted}]" and "=" in line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            found.setdefault(key.strip(), [])
            if value.strip():
                found[key.strip()].append(value.strip())
            else:
                found[key.strip()].clear()
    return {key: values for key, values in found.items() if values}


def _assignments(text: str) -> dict[str, str]:
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {key: " ".join(shlex.split(value)) for key, _, value in pairs}


def _expanded(word: str, environment: Mapping[str, str]) -> Sequence[str]:
    if match := VARIABLE.match(word):
        return shlex.split(environment.get(match[1], ""))
    return (word,)
