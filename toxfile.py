"""What tox does besides ``tox.ini``: it looks for Pythons where version managers keep them, not only on the PATH.

On the PATH a version manager has a shim, which runs nothing until its version has been chosen.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

VERSIONS = ("3.12", "3.13")
"""Those that ``tox.ini`` tries besides the one that tox runs on."""

MANAGERS = (
    ("PYENV_ROOT", ".pyenv", "versions/{version}*"),
    ("MISE_DATA_DIR", ".local/share/mise", "installs/python/{version}*"),
    ("ASDF_DATA_DIR", ".asdf", "installs/python/{version}*"),
    ("UV_PYTHON_INSTALL_DIR", ".local/share/uv/python", "cpython-{version}*"),
)
"""A variable that names a manager's directory, the directory without it in the user's home, where its Pythons are in it."""


def pythons() -> Iterator[Path]:
    """Every Python of :data:`VERSIONS` that a version manager has installed."""
    for variable, default, pattern in MANAGERS:
        home = Path(os.environ.get(variable) or Path.home() / default)
        for version in VERSIONS:
            for installed in sorted(home.glob(pattern.format(version=version))):
                program = installed / f"bin/python{version}"
                if program.exists():
                    yield program


# Read by tox after this file; what the user has set counts.
os.environ.setdefault("TOX_DISCOVER", "\n".join(map(str, pythons())))
