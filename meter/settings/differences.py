"""The settings of a configuration one by one: which of them differ in two configurations, and how each is shown without secrets."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic import SecretStr

from meter.settings.masked import masked
from meter.settings.masked import masked_settings
from meter.settings.root import Config

Setting = tuple[str, ...]
"""The names of the sections and, at the end, that of the setting: ``("polling", "interval_seconds")``."""

MAX_SHOWN = 200
"""Maximum length of a value in the log, in characters."""

PLUGIN_SECTIONS = ("pollsters", "listeners")
"""Sections with a sub-section for each plugin, whose options are not known here."""


def settings_of(config: Config) -> dict[Setting, Any]:
    """Return the value of each setting."""
    return dict(_walk((), config))


def _walk(place: Setting, value: Any) -> Iterator[tuple[Setting, Any]]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _walk((*place, name), getattr(value, name))
    elif len(place) == 1 and place[0] in PLUGIN_SECTIONS:
        for name, options in value.items():
            yield (*place, name), options
    else:
        yield place, value


def changed_settings(old: Mapping[Setting, Any], new: Mapping[Setting, Any]) -> list[Setting]:
    """Return the settings with different values, in the order of the configuration."""
    return [each for each in dict.fromkeys([*new, *old]) if old.get(each) != new.get(each)]


def named(setting: Setting) -> str:
    """Return the setting as messages name it: ``[api.auth] mode``, and ``[pollsters.cpu]`` for the options of a plugin."""
    if setting[0] in PLUGIN_SECTIONS:
        return f"[{'.'.join(setting)}]"
    return f"[{'.'.join(setting[:-1])}] {setting[-1]}"


def shown_change(setting: Setting, old: Any, new: Any) -> str | None:
    """Return ``old -> new`` for a log, ``None`` if one of them has, or may have, a secret: options of plugins are unknown here."""
    if setting[0] in PLUGIN_SECTIONS or _may_be_secret(old) or _may_be_secret(new):
        return None
    return f"{_shown(old)} -> {_shown(new)}"


def _may_be_secret(value: Any) -> bool:
    """Return whether a value is a secret, or a section, which may have one."""
    if isinstance(value, Mapping):
        return any(_may_be_secret(each) for each in value.values())
    if isinstance(value, list | tuple):
        return any(_may_be_secret(each) for each in value)
    return isinstance(value, SecretStr | BaseModel)


def _shown(value: Any) -> str:
    text = masked(repr(masked_settings(value)) if not isinstance(value, bool) else str(value).lower())
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def with_settings(config: Config, changes: Mapping[Setting, Any]) -> Config:
    """Return ``config`` with other values of some settings, all valid; ``None`` removes the options of a plugin."""
    for setting, value in changes.items():
        config = _with(config, setting, value)
    return config


def _with(model: Any, setting: Setting, value: Any) -> Any:
    name, *rest = setting
    if not rest:
        if isinstance(model, Mapping):
            others = {each: options for each, options in model.items() if each != name}
            return others if value is None else {**others, name: value}
        return model.model_copy(update={name: value})
    return model.model_copy(update={name: _with(getattr(model, name), tuple(rest), value)})
