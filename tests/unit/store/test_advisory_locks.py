"""Advisory locks of PostgreSQL: who waits for whom must be meant."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

TOP = Path(__file__).parents[3]


def test_every_advisory_lock_has_a_key_of_its_own() -> None:
    keys = Counter(
        key.lower()
        for path in TOP.glob("meter/**/*.py")
        for key in re.findall(r"= (0x6D65746572_\d\d)\b", path.read_text(encoding="utf-8"), re.IGNORECASE)
    )
    assert len(keys) >= 9
    assert {key for key, count in keys.items() if count > 1} == set()
