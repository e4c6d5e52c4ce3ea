"""The commands of docs/upgrade.rst, which the campaign runs."""

from __future__ import annotations

import re
import textwrap

from tests.upgrade.versions import TOP

PAGE = TOP / "docs/upgrade.rst"


def blocks(language: str) -> list[str]:
    """Return the code blocks of docs/upgrade.rst in a language, in order."""
    found = re.findall(
        rf"^( *)\.\. code-block:: {language}\n\n((?:\1   .*\n|\n)+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    return [textwrap.dedent(text) for _, text in found]


def block(beginning: str) -> str:
    """Return the block of commands that has a line which begins so."""
    [found] = [text for text in blocks("sh") if re.search(rf"^{re.escape(beginning)}", text, re.MULTILINE)]
    return found
