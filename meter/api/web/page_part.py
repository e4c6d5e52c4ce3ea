"""A part of a page that may fail, or that its requester may not see, without taking the rest of the page away."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Generic
from typing import TypeVar

from twisted.logger import Logger

from meter.api.errors import HttpError
from meter.interfaces import RequestError
from meter.interfaces import Unavailable

T = TypeVar("T")

_log = Logger()

UNAVAILABLE_PART = "This part is temporarily unavailable: try again later."


@dataclass(frozen=True, slots=True)
class PagePart(Generic[T]):
    """What a part shows, or the sentence that says why there is nothing; ``hidden``: the requester may not see it."""

    value: T | None
    problem: str = ""
    hidden: bool = False


async def part_of_available_store(question: Awaitable[T]) -> PagePart[T]:
    """Return the answer to ``question`` as a part, of a page all of whose parts come from the store.

    A question that is too costly or takes too long is the problem of this part alone. A store that is away, and a requester who
    may see nothing, fail the whole page: nothing else could be shown.
    """
    try:
        return PagePart(await question)
    except RequestError as error:
        return PagePart(None, f"This part cannot be shown: {error}.")


async def page_part(question: Awaitable[T]) -> PagePart[T]:
    """Return the answer to ``question`` as a part, also if what it asks is away. Lost authorization, 401, still fails the page."""
    try:
        return await part_of_available_store(question)
    except HttpError as error:
        if error.status != 403:
            raise
        return PagePart(None, error.text, hidden=True)
    except Unavailable as error:
        _log.warn("A part of a page is unavailable: {error}", error=str(error))
        return PagePart(None, UNAVAILABLE_PART)
