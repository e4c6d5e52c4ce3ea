"""What a version verifies of a store: signatures, the audit log, closed statements, and proofs as docs/api.rst says."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from tests.system.daemons import SECRET
from tests.upgrade.page import block
from tests.upgrade.rolling_site import CommandFailed
from tests.upgrade.rolling_site import RollingSite
from tests.upgrade.versions import TOP


def verification_problems(site: RollingSite, ids: Sequence[str], api: str, config: Path) -> list[str]:
    """Return what the new version does not verify with ``config``, and which proofs of samples from ``api`` do not hold."""
    problems = []
    statement = site.directory / f"{site.month}.acme.json"
    annex = site.directory / "annex"
    of_page = [
        line.replace('"$STATEMENT"', f"{site.month}.acme").split()
        for line in block("meter-verify").splitlines()
        if line
    ]
    for words in (
        *of_page,
        ("meter-rate", "export", f"{site.month}.acme", "--format", "annex", "--output", annex),
        ("meter-rate", "verify", statement, "--annex", annex),
    ):
        try:
            site.command(site.new, *words, config=config)
        except CommandFailed as error:
            problems.append(str(error))
    for id in ids:
        try:
            prove(api, id)
        except (AssertionError, TypeError, OSError) as error:
            problems.append(f"the proof of {id} does not hold: {error!r}")
    return problems


def prove(api: str, id: str) -> None:
    """Verify the proof of a sample as docs/api.rst says; ``AssertionError`` if it does not hold."""
    page = (TOP / "docs/api.rst").read_text(encoding="utf-8")
    [block] = re.findall(r"\.\. code-block:: python\n\n((?:   .*\n|\n)+?)\n*(?=\(Integers)", page)
    code = compile(textwrap.dedent(block), "docs/api.rst", "exec")
    exec(code, {"SECRET": SECRET.encode(), "API": api, "SAMPLE": id})
