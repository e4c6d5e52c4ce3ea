"""Names of units of information: MiB and GiB (binary), or MB and GB for the same powers of 1024 (Ceilometer until 25).

Only the name differs: volumes are not converted. Statistics of samples with different unit names are separate.
"""

from __future__ import annotations

import re
from functools import lru_cache

_BINARY = re.compile(r"(?<![A-Za-z])([KMGTPE])iB(?![A-Za-z])")
_OLDER = re.compile(r"(?<![A-Za-z])([KMGTPE])B(?![A-Za-z])")


@lru_cache(1000)
def older_name(unit: str) -> str:
    """Return the name of ``unit`` in Ceilometer until 25: ``MB`` for ``MiB``, ``GB h`` for ``GiB h``."""
    return _BINARY.sub(r"\1B", unit)


def binary_name(unit: str) -> str:
    """Return the binary name of ``unit``: ``MiB`` for ``MB``. Other units are returned unchanged."""
    return _OLDER.sub(r"\1iB", unit)
