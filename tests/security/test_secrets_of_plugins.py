"""``meter-doctor`` tells of files with secrets that only plugins know, such as the passwords of BMCs."""

from __future__ import annotations

from pathlib import Path

import pytest

from meter.commands.doctor.secrets import secret_findings
from meter.settings.config_file import parse

SETTINGS = """
[meter]
state_dir = "{directory}/state"
[signing]
key = "0123456789abcdef0123456789abcdef"
[pollsters.redfish]
username = "meter"
password_file = "{directory}/all"
[[pollsters.redfish.hosts]]
host = "hv1"
url = "https://bmc1.example.org"
password_file = "{directory}/one"
"""


@pytest.mark.parametrize("name", ["all", "one"])
def test_file_with_the_password_of_a_bmc_that_all_can_read_is_a_fault(tmp_path: Path, name: str) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    for each in ("all", "one"):
        (tmp_path / each).write_text("hunter2")
        (tmp_path / each).chmod(0o640)
    config = parse(SETTINGS.format(directory=tmp_path), "meter-central")
    assert not [each for each in secret_findings(None, config) if "password_file" in each.text]

    (tmp_path / name).chmod(0o644)

    [finding] = [each for each in secret_findings(None, config) if "password_file" in each.text]
    assert (finding.level, str(tmp_path / name) in finding.text) == ("fault", True)
