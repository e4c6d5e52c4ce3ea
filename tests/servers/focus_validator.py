"""The validator of the FinOps Foundation for FOCUS data, with pyarrow, in a virtual environment of its own.

It needs Python 3.12 and pins old versions of what Meter uses. The environment is made by the first test that asks for it,
in about a minute, and kept under ``~/.cache/meter-tests``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import toxfile
from tests.servers import not_allowed

VERSION = "2.2.1"
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / f"meter-tests/focus-validator-{VERSION}"
PACKAGES = (f"focus-validator=={VERSION}", "pyarrow<20", "msgspec>=0.20", "rfc8785>=0.1.4")
"""Newer versions of pyarrow want another numpy than the validator; the last two are what the exports of Meter need."""

SUPPORTED = (
    "AVAILABILITY_ZONE",
    "BILLING_BASED_ON_PROVISIONED_RESOURCES",
    "MULTIPLE_PRICING_CATEGORIES",
    "NEGOTIATED_PRICING",
    "PRICING_BILLING_CURRENCY_DIFFERENCES",
    "PUBLIC_PRICE_LIST",
    "REGION",
    "RESOURCE_TYPE_ASSIGNMENT",
    "SUB_ACCOUNT",
    "TAGGING",
    "UNIT_PRICING",
    "USAGE_MEASUREMENT",
)
"""What a provider with Meter supports, by which the validator chooses its rules."""

_RESULT = re.compile(
    r"(?m)^\S+ (?P<rule>[A-Za-z]+-[A-Z]-\d{3}-[MCO]): (?P<outcome>PASS|FAIL)(?:.*?violations=(?P<rows>\d+))?"
)


def python312() -> str:
    """Return a Python 3.12; skip the running test where there is none."""
    found = [str(each) for each in toxfile.pythons() if each.name == "python3.12"]
    if found:
        return found[-1]
    on_path = shutil.which("python3.12")
    if on_path and subprocess.run([on_path, "--version"], capture_output=True, check=False).returncode == 0:
        return on_path
    not_allowed("focus-validator needs Python 3.12, which is not installed")


def python() -> Path:
    """Return the Python of the environment, which is made if it is not there, or only half made."""
    made = HOME / "made"
    if not made.exists():
        subprocess.run([python312(), "-m", "venv", "--clear", str(HOME)], check=True)
        subprocess.run([str(HOME / "bin/pip"), "install", "-q", "--prefer-binary", *PACKAGES], check=True)
        made.touch()
    return HOME / "bin/python"


@dataclass(frozen=True, slots=True)
class FocusReport:
    """What the validator says: how many rules passed, and those that failed with the number of rows."""

    passed: int
    failed: dict[str, int]


def validate(path: Path) -> FocusReport:
    """Return the report on the CSV or Parquet file at ``path``, against FOCUS 1.2, whose rules the package has."""
    [packages] = (python().parent.parent / "lib").glob("python3*/site-packages")
    command = [
        str(HOME / "bin/focus-validator"),
        *("--data-file", str(path), "--validate-version", "1.2", "--block-download"),
        *("--applicability-criteria", ",".join(f"{each}_SUPPORTED" for each in SUPPORTED)),
    ]
    # It looks for files relative to its directory, and its exit status is 0 whatever it finds.
    done = subprocess.run(command, cwd=packages, capture_output=True, text=True, check=False, timeout=300)
    found = [each.groupdict() for each in _RESULT.finditer(done.stdout)]
    assert found, done.stdout + done.stderr
    failed = {each["rule"]: int(each["rows"] or 0) for each in found if each["outcome"] == "FAIL"}
    return FocusReport(sum(each["outcome"] == "PASS" for each in found), failed)
