"""The maximum size of a publication, which each bus enforces before it sends anything."""

from __future__ import annotations

from meter.interfaces import Publication


class BodyTooLarge(ValueError):
    """A body with more than ``max_bytes``, which the bus does not publish."""

    def __init__(self, size: int, max_bytes: int) -> None:
        super().__init__(f"the body of a publication has {size} bytes; the limit is {max_bytes}")
        self.max_bytes = max_bytes


def check_body(publication: Publication, max_bytes: int) -> None:
    """Raise :class:`BodyTooLarge` for a body of more than ``max_bytes``, ``ValueError`` for one that is not bytes."""
    if not isinstance(publication.body, bytes):
        raise ValueError(f"the body of a publication must be bytes, not {type(publication.body).__name__}")
    if len(publication.body) > max_bytes:
        raise BodyTooLarge(len(publication.body), max_bytes)
