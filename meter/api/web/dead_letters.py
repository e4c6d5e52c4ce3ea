"""The pages of dead letters: what they are by kind, one of them, and forms that replay them. For administrators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import quote
from urllib.parse import urlencode

from meter.api.bus_services import MAX_READ_LETTERS
from meter.api.bus_services import BusServices
from meter.api.bus_services import ListedLetter
from meter.api.errors import RETRY_AFTER_SECONDS
from meter.api.errors import ApiError
from meter.api.errors import HttpError
from meter.api.errors import invalid_input
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.request.paging import offset_of
from meter.api.responses import RawResponse
from meter.api.web.administrators import acting
from meter.api.web.administrators import for_administrators
from meter.api.web.operation import form
from meter.api.web.operation import page
from meter.api.web.page import page_response
from meter.bus.dead_letter_advice import KIND_ADVICE
from meter.bus.dead_letter_replay import NoSuchDeadLetter
from meter.bus.dead_letters import DEAD_LETTER_KINDS
from meter.bus.masking import masked_text
from meter.interfaces import Unavailable
from meter.printable import printable

PATH = "/pipeline/dead-letters"
REPLAY_PATH = "/pipeline/dead-letters/replay"

FIRST_READ = 200
"""Dead letters that the first page reads: bodies can be long."""

PAGE_LETTERS = 100

MAX_REASON = 1000
"""Characters of the reason that the audit log keeps."""

MAX_HEADER = 2000
"""Characters of the value of a header that are shown."""

KIND = Parameter("kind", "string", "Only dead letters of this kind.", narrows=True)
MARKER = Parameter("marker", "string", "The number of dead letters before those of the page.")
ID = Parameter("id", "string", "The id of a dead letter; repeatable.", many=True)
FORCE = Parameter("force", "boolean", "Replay also those whose body is masked or truncated.")
REASON = Parameter("reason", "string", "Why, for the audit log.")


class KindSummary(NamedTuple):
    """The dead letters of a kind among those that were read: how many, the commonest reason, how often, and the advice."""

    kind: str
    letters: int
    reason: str
    times: int
    first_at: str
    last_at: str
    replayable: int
    advice: str


class LetterRow(NamedTuple):
    """A row of the list."""

    letter: ListedLetter
    url: str


async def dead_letters(context: RequestContext) -> RawResponse:
    """Handle ``/pipeline/dead-letters``."""
    for_administrators(context, "Dead letters are")
    kind, offset = context.arguments["kind"], offset_of(context.arguments["marker"])
    if kind is not None and kind not in DEAD_LETTER_KINDS:
        raise invalid_input("kind", kind, f"use {', '.join(DEAD_LETTER_KINDS)}.")
    if offset > MAX_READ_LETTERS:
        raise invalid_input("marker", offset, f"pages show the oldest {MAX_READ_LETTERS} dead letters.")
    if context.bus is None:
        return await page_response(context, "dead_letters.html", "Dead letters", found=None)
    with _errors():
        found = await context.bus.letters(MAX_READ_LETTERS if kind is not None or offset else FIRST_READ)
    chosen = [each for each in found.letters if kind in (None, each.dead_letter.kind)]
    end = offset + PAGE_LETTERS
    return await page_response(
        context,
        "dead_letters.html",
        "Dead letters",
        found=found,
        kinds=list(summaries(found.letters)),
        rows=[LetterRow(each, letter_url(each.dead_letter.id)) for each in chosen[offset:end]],
        offset=offset,
        matching=len(chosen),
        kind=kind,
        known_kinds=DEAD_LETTER_KINDS,
        next_url=page_url(kind, end) if _has_next(len(chosen), found.read, found.total, end) else None,
        max_letters=context.bus.max_dead_letters,
        max_read=MAX_READ_LETTERS,
        replay_path=REPLAY_PATH,
    )


def _has_next(matching: int, read: int, total: int, end: int) -> bool:
    return matching > end or (read < min(total, MAX_READ_LETTERS) and end <= matching)


def summaries(letters: Sequence[ListedLetter]) -> Iterator[KindSummary]:
    """Yield a summary of each kind, the commonest first."""
    counts = Counter(each.dead_letter.kind for each in letters)
    for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        of_kind = [each.dead_letter for each in letters if each.dead_letter.kind == kind]
        [(reason, times)] = Counter(each.reason for each in of_kind).most_common(1)
        at = sorted(each.at for each in of_kind if each.at)
        yield KindSummary(
            kind,
            count,
            reason,
            times,
            at[0] if at else "",
            at[-1] if at else "",
            sum(each.not_replayable is None for each in of_kind),
            advice_of(kind, "a dead letter"),
        )


def advice_of(kind: str, here: str) -> str:
    """Return what to do about a kind; ``here`` is what shows a dead letter, in place of the command that does."""
    return KIND_ADVICE.get(kind, f"{here} has the reason").replace("meter-dead-letters show ID", here)


def letter_url(id: str) -> str:
    """Return the path of the page of a dead letter."""
    return f"{PATH}/{quote(id, safe='')}"


def page_url(kind: str | None, offset: int) -> str:
    """Return the URL of the page that begins after ``offset`` dead letters."""
    return f"{PATH}?{urlencode({**({} if kind is None else {'kind': kind}), 'marker': offset})}"


async def dead_letter(context: RequestContext) -> RawResponse:
    """Handle ``/pipeline/dead-letters/{id}``."""
    for_administrators(context, "Dead letters are")
    bus = _bus(context)
    with _errors():
        found = await bus.letter(context.path["id"])
    return await page_response(
        context,
        "dead_letter.html",
        "Dead letter",
        letter=found,
        size=len(found.body),
        body=await bus.body_text(found),
        advice=advice_of(found.kind, "this page"),
        headers=[
            (printable(name), masked_text(str(value)[:MAX_HEADER])) for name, value in sorted(found.headers.items())
        ],
        replay_path=REPLAY_PATH,
    )


async def replay(context: RequestContext) -> RawResponse:
    """Handle the form that replays dead letters."""
    for_administrators(context, "Dead letters are")
    bus, arguments = _bus(context), context.arguments
    ids, kind, reason = arguments["id"], arguments["kind"], (arguments["reason"] or "").strip()
    if bool(ids) == (kind is not None):
        raise ApiError(400, "Name either dead letters by their ids, or a kind.")
    if kind is not None and kind not in DEAD_LETTER_KINDS:
        raise invalid_input("kind", kind, f"use {', '.join(DEAD_LETTER_KINDS)}.")
    if len(reason) > MAX_REASON:
        raise ApiError(400, f"The reason can have at most {MAX_REASON} characters.")
    record = bus.recorder(acting(context), reason)
    with _errors():
        report = await bus.replay(ids=ids, kind=kind, record=record, force=bool(arguments["force"]))
    results = report.results
    return await page_response(
        context,
        "dead_letters_replayed.html",
        "Replay of dead letters",
        report=report,
        shown=results[:PAGE_LETTERS],
        replayed=sum(each.problem is None for each in results),
        kept=sum(each.problem is not None for each in results),
        kind=kind,
        path=PATH,
    )


def _bus(context: RequestContext) -> BusServices:
    if context.bus is None:
        raise HttpError(404, "This server knows no message bus: [bus] url is not configured here.")
    return context.bus


@contextmanager
def _errors() -> Iterator[None]:
    """Tell an administrator what is not there, and why the bus or the audit log is unavailable."""
    try:
        yield
    except NoSuchDeadLetter as error:
        text = (
            f"{error}. It may have been replayed or discarded in the meantime, or is not among the oldest {MAX_READ_LETTERS}:"
            " meter-dead-letters reads all of them."
        )
        raise HttpError(404, text) from error
    except Unavailable as error:
        raise ApiError(
            503, f"The dead letters are unavailable: {error}", {"Retry-After": str(RETRY_AFTER_SECONDS)}
        ) from error


PAGES = (
    page(PATH, dead_letters, "Dead letters, for administrators.", KIND, MARKER),
    form(REPLAY_PATH, replay, "Replays dead letters, for administrators.", ID, KIND, FORCE, REASON),
    page(f"{PATH}/{{id}}", dead_letter, "One dead letter, for administrators."),
)
