"""Handlers of ``/v2/statements``: what was billed, as signed documents, CSV, pages and FOCUS; and the keys that verify it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from collections.abc import Iterator
from collections.abc import Sequence
from tempfile import SpooledTemporaryFile
from typing import IO
from typing import cast
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from meter.api.auth.visible_statements import VisibleStatement
from meter.api.errors import ApiError
from meter.api.errors import HttpError
from meter.api.errors import invalid_input
from meter.api.rendering.statements import entry
from meter.api.rendering.statements import open_entry
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.request.paging import offset_of
from meter.api.request.paging import offset_page_link
from meter.api.responses import JsonResponse
from meter.api.responses import ListResponse
from meter.api.responses import RawResponse
from meter.api.responses import StreamingResponse
from meter.api.streaming.export import JSON_LINES
from meter.rating.exports.formats import TEXT_FORMATS
from meter.rating.exports.statement_page import CONTENT_SECURITY_POLICY
from meter.rating.period import BillingPeriod
from meter.rating.statements.canonical_parts import canonical_parts
from meter.rating.statements.preview import PeriodNotBegun
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement_id import statement_id
from meter.rating.statements.statement_keys import StatementKey

JSON = "application/json"
CSV = "text/csv"
HTML = "text/html"
MEDIA_TYPES = (JSON, CSV, HTML)

CHUNK_CHARACTERS = 16 * 1024
"""Text that is collected before it is written."""

MEMORY_BYTES = 64 * 1024
"""Of a longer document the text is in a temporary file until it is sent."""

RAW_BYTES = 1024 * 1024
"""Longer JSON documents are streamed, without a Content-Length."""
ENDINGS = {"json": "json", "csv": "csv", "html": "html", "focus": "focus.csv"}
"""Endings of the names of downloaded files, by format."""

MAX_NAME = 150
"""Characters of the id of a statement in the name of a file."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")

ACCOUNT = Parameter("account_id", "string", "Only statements of this account.", narrows=True)
PROJECT = Parameter("project_id", "string", "Only statements with lines or usage of this project.", narrows=True)
STATE = Parameter(
    "state",
    "string",
    "closed (default), or open: the preview of an account, or of the account of a project, for the present period or for"
    " the one that is given.",
    narrows=True,
)
PERIOD = Parameter("period", "string", "Only statements of this billing period, such as 2026-11.", narrows=True)
FORMAT = Parameter(
    "format",
    "string",
    f"Format of the response, whatever the Accept header says: one of {', '.join(TEXT_FORMATS)}.",
    narrows=True,
)


async def statements(context: RequestContext) -> ListResponse:
    """Handle ``/v2/statements``: closed statements, the newest period first; or the open one of an account or project."""
    arguments = context.arguments
    state = arguments["state"] or "closed"
    if state not in ("closed", "open"):
        raise invalid_input("state", state, "use closed or open.")
    if state == "open":
        preview = await open_statement(context, arguments["account_id"], arguments["project_id"], arguments["period"])
        return ListResponse([] if preview is None else [preview], open_entry)
    _check_period(arguments["period"])
    limit, offset = context.limit, offset_of(arguments["marker"])
    visible = context.store.statements
    only = None if context.requester.is_admin else visible.visible_project(None)
    found = await visible.summaries(
        arguments["account_id"], arguments["project_id"], arguments["period"], offset + limit + 1
    )
    return ListResponse(
        list(found[offset : offset + limit]),
        lambda each: entry(each, only),
        offset_page_link(context.url, offset, limit, len(found)),
    )


async def statement(context: RequestContext) -> RawResponse | JsonResponse | StreamingResponse:
    """Handle ``/v2/statements/{id}``."""
    chosen = _format(context)
    found = await visible_statement(context, context.path["id"])
    if found.whole is None:
        if chosen != "json":
            raise HttpError(403, "This format is for whole statements: the extract of a project is JSON.")
        assert found.part is not None
        return JsonResponse(found.part, headers=_download(found.part.statement_id, "extract.json"))
    sha256 = await _sha256(context, found.whole) if chosen == "html" else ""
    made = TEXT_FORMATS[chosen]
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY} if chosen == "html" else {}
    # A statement takes many times the memory of its document: it is not kept until a slow client has read that.
    document = await _written(context, made.write(found.whole, sha256))
    headers.update(_download(found.whole.statement.statement_id, ENDINGS[chosen], inline=chosen == "html"))
    if chosen == "json" and document.tell() <= RAW_BYTES:
        return RawResponse(JSON, b"".join([chunk async for chunk in _content(document)]), headers)
    return StreamingResponse(f"{made.media_type}; charset=utf-8", _content(document), headers=headers)


async def annex(context: RequestContext) -> StreamingResponse:
    """Handle ``/v2/statements/{id}/annex``."""
    found = await visible_statement(context, context.path["id"])
    document = found.whole.statement if found.whole is not None else found.part
    assert document is not None
    if document.state != "closed":
        raise ApiError(404, "An open statement has no annex.")
    lines = context.store.statements.annex(document.statement_id)
    # The rows of one project alone have another hash than the annex.
    if found.whole is not None and context.requester.is_admin:
        lines = _with_sha256(lines, found.whole.statement.annex_sha256)
    headers = _download(document.statement_id, "annex.jsonl")
    return StreamingResponse(JSON_LINES, lines, headers=headers)


async def statement_keys(context: RequestContext) -> Sequence[StatementKey]:
    """Handle ``/v2/statement-keys``."""
    return [] if context.rating is None else context.rating.keys.keys()


def _format(context: RequestContext) -> str:
    chosen: str | None = context.arguments["format"]
    if chosen is None:
        return {CSV: "csv", HTML: "html"}.get(context.media_type, "json")
    if chosen not in TEXT_FORMATS:
        raise invalid_input("format", chosen, f"use {', '.join(TEXT_FORMATS)}.")
    return chosen


def _download(statement_id: str, ending: str, *, inline: bool = False) -> dict[str, str]:
    """Return the header with the file name under which a browser saves a statement; any file system has such names."""
    name = _UNSAFE.sub("_", statement_id)[:MAX_NAME]
    how = "inline" if inline else "attachment"
    return {"Content-Disposition": f'{how}; filename="statement-{name}.{ending}"'}


async def visible_statement(context: RequestContext, asked: str) -> VisibleStatement:
    """Return the statement with the id ``asked``; :class:`ApiError` 404 if there is none that the requester may see.

    Its id may be written with an account that is not percent-encoded, as a decoded path has it.
    """
    period, _, account = asked.partition(".")
    for id in dict.fromkeys((asked, statement_id(period, unquote(account)))):
        found = await context.store.statements.statement(id)
        if found is not None:
            return found
    if context.prices is not None and account and _is_period(period):
        preview = await open_statement(context, unquote(account), None, period)
        if preview is not None:
            return preview
    raise ApiError(404, f"There is no statement {asked}.")


async def open_statement(
    context: RequestContext, account_id: str | None, project_id: str | None, period: str | None
) -> VisibleStatement | None:
    """Return the open statement of an account or project, ``None`` if there is nothing to be seen."""
    project_id = context.store.statements.visible_project(project_id)
    if context.prices is None:
        return None
    if account_id is None and project_id is None:
        raise ApiError(400, "Open statements are those of an account or project: give account_id or project_id.")
    _check_period(period)
    directory = await context.prices.current()
    now = context.utc_now
    correct_periods = 0 if context.rating is None else context.rating.correct_periods
    try:
        return await context.store.preview(
            directory, account_id, project_id, period, now, correct_periods, context.slices
        )
    except PeriodNotBegun:
        return None
    except ValueError as error:
        raise ApiError(400, str(error)) from error


def _check_period(name: str | None) -> None:
    if name is not None and not _is_period(name):
        raise invalid_input("period", name, "use year and month, as in 2026-11.")


def _is_period(name: str) -> bool:
    try:
        BillingPeriod.named(name, ZoneInfo("UTC"))
    except ValueError:
        return False
    return True


async def _sha256(context: RequestContext, signed: SignedStatement) -> str:
    digest = hashlib.sha256()
    for part in canonical_parts(signed.statement):
        digest.update(part)
        if context.slices.over:
            await context.slices.pause()
    return digest.hexdigest()


async def _written(context: RequestContext, pieces: Iterator[str]) -> IO[bytes]:
    """Return a temporary file, which nobody else can open, with ``pieces``; it is in memory while it is small."""
    file = SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115  # closed by its reader
    try:
        async for chunk in _chunks(context, pieces):
            file.write(chunk)
    except BaseException:
        file.close()
        raise
    return cast("IO[bytes]", file)


async def _content(file: IO[bytes]) -> AsyncIterator[bytes]:
    """Yield what is in ``file`` from its begin on; then it is closed."""
    with file:
        file.seek(0)
        while chunk := file.read(CHUNK_CHARACTERS):
            yield chunk


async def _with_sha256(chunks: AsyncIterator[bytes], sha256: str) -> AsyncIterator[bytes]:
    """Yield ``chunks``, the last one only if all of them have the hash: an annex that was altered is not complete.

    :raises ValueError: they have another one, which aborts the response.
    """
    digest = hashlib.sha256()
    held = b""
    async for chunk in chunks:
        digest.update(chunk)
        if held:
            yield held
        held = chunk
    if digest.hexdigest() != sha256:
        raise ValueError(f"the SHA-256 of the stored annex is {digest.hexdigest()}; the statement has {sha256}")
    if held:
        yield held


async def _chunks(context: RequestContext, pieces: Iterator[str]) -> AsyncIterator[bytes]:
    """Yield ``pieces`` in larger chunks, made in slices."""
    collected: list[str] = []
    size = 0
    for piece in pieces:
        collected.append(piece)
        size += len(piece)
        if size >= CHUNK_CHARACTERS:
            yield "".join(collected).encode()
            collected, size = [], 0
        if context.slices.over:
            await context.slices.pause()
    yield "".join(collected).encode()
