"""Pages tell administrators which settings to write: each must exist."""

import re
from pathlib import Path

import meter.api.web
from meter.settings import Config

TEMPLATES = Path(meter.api.web.__file__).parent / "templates"
SETTING = re.compile(r"<code>(\w+)</code> in the section <code>\[([\w.]+)\]</code>")


def _exists(section: str, setting: str) -> bool:
    at = Config()
    for name in [*section.split("."), setting]:
        if not hasattr(at, name):
            return False
        at = getattr(at, name)
    return True


def test_every_setting_that_a_page_tells_to_write_exists() -> None:
    named = {
        (path.name, section, setting)
        for path in TEMPLATES.glob("*.html")
        for setting, section in SETTING.findall(path.read_text(encoding="utf-8"))
    }
    assert {name for name, _, _ in named} >= {"prices.html", "statements.html"}
    assert [each for each in named if not _exists(*each[1:])] == []
