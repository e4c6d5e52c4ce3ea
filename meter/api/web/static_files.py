"""The files that pages load: style, scripts and their licences, from this package alone."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from meter.api.errors import HttpError
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.responses import RawResponse

MEDIA_TYPES: Mapping[str, str] = {
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
    "txt": "text/plain",
}
"""Media types by the ends of file names; files with other names are not served."""

VERSION = Parameter("v", "string", "The beginning of the file's SHA-256, which lets a browser keep it.")


@dataclass(frozen=True, slots=True)
class StaticFile:
    """The content of a file, the same compressed if that is shorter, and the beginning of its SHA-256."""

    media_type: str
    content: bytes
    compressed: bytes | None
    version: str


@cache
def static_files() -> Mapping[str, StaticFile]:
    """Return all files by name."""
    found = {}
    for each in (files("meter.api.web") / "static").iterdir():
        media_type = MEDIA_TYPES.get(each.name.rpartition(".")[2])
        if media_type is not None:
            content = each.read_bytes()
            compressed = gzip.compress(content, 9, mtime=0)
            version = hashlib.sha256(content).hexdigest()[:16]
            found[each.name] = StaticFile(
                media_type, content, compressed if len(compressed) < len(content) else None, version
            )
    return found


def static_url(name: str) -> str:
    """Return the URL of a file, which changes with its content; ``KeyError`` if there is none."""
    return f"/static/{name}?v={static_files()[name].version}"


async def static_file(context: RequestContext) -> RawResponse:
    """Handle ``/static/{name}``."""
    file = static_files().get(context.path["name"])
    if file is None:
        raise HttpError(404)
    return _response(context, file, kept=context.arguments["v"] == file.version)


async def favicon(context: RequestContext) -> RawResponse:
    """Handle ``/favicon.ico``, which browsers ask for also where a page names its icon."""
    return _response(context, static_files()["icon.svg"], kept=False)


def _response(context: RequestContext, file: StaticFile, *, kept: bool) -> RawResponse:
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable" if kept else "no-cache",
        "Vary": "Accept-Encoding",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    }
    if file.compressed is not None and context.accepts_gzip:
        return RawResponse(file.media_type, file.compressed, {**headers, "Content-Encoding": "gzip"})
    return RawResponse(file.media_type, file.content, headers)
