"""Links to views: paths with the parameters that are set."""

from __future__ import annotations

from urllib.parse import urlencode


def view_link(path: str, **parameters: object) -> str:
    """Return ``path`` with ``parameters`` in its query string, without those that are ``None`` or empty."""
    given = {name: value for name, value in parameters.items() if value is not None and value != ""}
    return f"{path}?{urlencode(given)}" if given else path
