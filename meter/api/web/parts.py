"""Parts of a page: one that fails, or that its requester may not see, does not take the others away."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Generic
from typing import TypeVar

from meter.api.bus_services import BusServices
from meter.api.bus_services import BusState
from meter.interfaces import RequestError
from meter.interfaces import Unavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """The content of a part of a page, or why there is none."""

    value: T | None = None
    problem: str = ""


async def part(work: Awaitable[T]) -> Part[T]:
    """Return what ``work`` returns; a query that is too costly or too long is the problem of this part alone.

    While the store is away the whole page fails: nothing else could be shown.
    """
    try:
        return Part(await work)
    except RequestError as error:
        return Part(problem=str(error))


async def bus_part(bus: BusServices | None) -> Part[BusState]:
    """Return the state of the bus, or why it is not known."""
    if bus is None:
        return Part(problem="This server knows no message bus: [bus] url is not configured here.")
    try:
        return Part(await bus.state())
    except Unavailable as error:
        return Part(problem=f"The message bus is unavailable: {error}")
