"""What an operation may answer with, where a record that becomes JSON is not all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any


@dataclass(frozen=True, slots=True)
class JsonResponse:
    """A record that becomes JSON, and headers to go with it."""

    content: Any
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawResponse:
    """Bytes that are ready to be sent."""

    media_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class StreamingResponse:
    """A body of any length, made piece by piece as the client takes it."""

    media_type: str
    chunks: AsyncIterator[bytes]
