"""The signature of reports as docs/keys.rst describes it for other implementations: its example verifies what an agent sends."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from meter.interfaces import Publication
from meter.report import read_report
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from tests.reporting_agent import KEYS
from tests.reporting_agent import ReportingAgent
from tests.reporting_agent import ScriptedPollster

PAGE = (Path(__file__).parents[2] / "docs/keys.rst").read_text()


def example() -> dict[str, Any]:
    """Return the names that the example of the page defines."""
    _, _, rest = PAGE.partition(".. code-block:: python\n\n")
    lines = []
    for line in rest.splitlines():
        if line and not line.startswith(" "):
            break
        lines.append(line)
    names: dict[str, Any] = {}
    exec(textwrap.dedent("\n".join(lines)), names)
    return names


def report_of(directory: Path, **more: Any) -> Publication:
    agent = ReportingAgent(directory, ScriptedPollster(series=[("größe", "küche", "lamp.power")]), **more)
    agent.cycle()
    agent.send()
    agent.close()
    [report] = [each for each in agent.bus.published if each.routing_key == "report.cycle"]
    return report


def test_the_example_of_the_page_verifies_the_report_of_an_agent(tmp_path: Path) -> None:
    publication = report_of(tmp_path)
    verified = example()["verified"]
    report = verified(publication.body, b"secret")
    assert report == read_report(publication.body, KEYS).content
    assert report["polls"][0]["series"] == [{"meters": ["lamp.power"], "resources": ["küche"], "project": "größe"}]
    with pytest.raises(ValueError, match="forged"):
        verified(publication.body, b"another")


def test_the_example_of_the_page_refuses_an_altered_report(tmp_path: Path) -> None:
    envelope = json.loads(report_of(tmp_path).body)
    cast = json.loads(envelope["oslo.message"])
    cast["args"]["report"]["polls"][0]["samples"] += 1
    envelope["oslo.message"] = json.dumps(cast)
    with pytest.raises(ValueError, match="forged"):
        example()["verified"](json.dumps(envelope).encode(), b"secret")


def test_a_key_for_some_meters_signs_the_reports_of_its_agent_if_there_is_no_other(tmp_path: Path) -> None:
    limited = SigningKey("limited", b"limited", meters=("lamp.*",))
    unlimited = SigningKey("unlimited", b"unlimited")
    one = report_of(tmp_path / "one", keys=Keyring([limited]))
    two = report_of(tmp_path / "two", keys=Keyring([limited, unlimited]))
    keys = Keyring([limited, unlimited])
    assert [read_report(each.body, keys).key_id for each in (one, two)] == ["limited", "unlimited"]
