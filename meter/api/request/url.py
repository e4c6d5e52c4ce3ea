"""The URL of a request, as it appears in the links of its response."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from urllib.parse import quote
from urllib.parse import urlencode

from meter.api.request.arguments import Pair


def link_url(root: str, target: bytes) -> str:
    """Return the URL of the request target ``target`` below ``root``.

    Characters that a URL cannot have, such as the ``>`` that ends a link in a ``Link`` header, are percent-encoded.
    """
    return root + quote(target, safe="%/:?#[]@!$&'()*+,;=-._~")


def append_pairs(url: str, pairs: Sequence[Pair]) -> str:
    """Return ``url`` with ``pairs`` appended to its query string."""
    if not pairs:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(pairs)}"


def query_url(path: str, terms: Sequence[Mapping[str, str]], pairs: Sequence[Pair]) -> str:
    """Return ``path`` with the terms of ``q``, in the parallel form, and ``pairs`` as its query string."""
    members = ("field", "op", "value", *(("type",) if any(term.get("type") for term in terms) else ()))
    given = [
        (f"q.{member}", term.get(member) or ("eq" if member == "op" else "")) for term in terms for member in members
    ]
    query = urlencode([*given, *pairs], safe=":/")
    return f"{path}?{query}" if query else path
