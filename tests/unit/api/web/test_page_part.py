"""Parts of a page that fail or are hidden."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Coroutine
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from meter.api.errors import ApiError
from meter.api.errors import HttpError
from meter.api.web.page_part import UNAVAILABLE_PART
from meter.api.web.page_part import PagePart
from meter.api.web.page_part import page_part
from meter.api.web.page_part import part_of_available_store
from meter.interfaces import RequestError
from meter.interfaces import Unavailable


def part_of(
    error: Exception | None, made: Callable[[Awaitable[int]], Coroutine[Any, Any, PagePart[int]]] = page_part
) -> PagePart[int]:
    async def question() -> int:
        if error is not None:
            raise error
        return 7

    found: list[PagePart[int]] = []
    failures: list[object] = []
    Deferred.fromCoroutine(made(question())).addCallbacks(found.append, failures.append)
    if failures:
        failures[0].raiseException()  # type: ignore[attr-defined]
    return found[0]


def test_answer_is_the_part() -> None:
    assert part_of(None) == PagePart(7)


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (
            RequestError("the query took longer than 30 s"),
            "This part cannot be shown: the query took longer than 30 s.",
        ),
        (Unavailable("database at 10.0.0.1 is down"), UNAVAILABLE_PART),
    ],
)
def test_failed_part_says_why_without_addresses(error: Exception, part: str) -> None:
    assert part_of(error) == PagePart(None, part)


def test_part_that_the_requester_may_not_see_is_hidden() -> None:
    assert part_of(HttpError(403, "Agents are shown to administrators only.")).hidden


@pytest.mark.parametrize("error", [ApiError(401, "expired"), HttpError(404), ValueError("a defect")])
def test_other_errors_fail_the_page(error: Exception) -> None:
    with pytest.raises(type(error)):
        part_of(error)


def test_store_that_is_away_fails_a_page_all_of_whose_parts_it_has() -> None:
    with pytest.raises(Unavailable):
        part_of(Unavailable("the database is down"), part_of_available_store)
    assert part_of(RequestError("too costly"), part_of_available_store).problem
