"""Sends the response of a handler: headers and a body at once, or a stream or a long list to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from meter.api.auth.authorization import Authorization
from meter.api.limits import RequestLimits
from meter.api.operation import Operation
from meter.api.rendering.lists import encoded_list
from meter.api.request.media_types import JSON_TYPES
from meter.api.responses import JsonResponse
from meter.api.responses import ListResponse
from meter.api.responses import RawResponse
from meter.api.responses import SampleListResponse
from meter.api.responses import StreamingResponse
from meter.api.streaming.backpressure import ReadingTime
from meter.api.streaming.backpressure import stream
from meter.daemon.shared_slices import OwnedSlices


class ResponseSender:
    """Sends results of handlers. Clients have to read long ones within ``limits``."""

    def __init__(self, clock: IReactorTime, limits: RequestLimits) -> None:
        self._clock = clock
        self._limits = limits

    async def send(
        self,
        request: Request,
        operation: Operation,
        result: Any,
        slices: OwnedSlices,
        authorization: Authorization,
        client: str,
    ) -> bytes:
        """Set status and headers; send a stream or a long list to its end, or return the body for klein to send.

        ``client`` is the address of the client in the log.
        """
        status = operation.status
        match result:
            case StreamingResponse(media_type, chunks, last_chunk, headers):
                request.setResponseCode(status)
                for name, value in headers.items():
                    request.setHeader(name, value)
                request.setHeader("content-type", media_type)
                if request.method != b"HEAD":
                    seconds = float("inf") if operation.streaming else self._limits.max_export_seconds
                    time = ReadingTime(self._clock, self._limits, seconds)
                    await stream(
                        request, chunks, time, client=client, authorize=authorization.check, last_chunk=last_chunk
                    )
                return b""
            case ListResponse(headers=headers) | SampleListResponse(headers=headers):
                parts = await encoded_list(result, slices)
                for name, value in headers.items():
                    request.setHeader(name, value)
                if len(parts) == 1:
                    return with_headers(request, status, parts[0])
                _set_headers(request, status, sum(map(len, parts)))
                if request.method != b"HEAD":
                    # The request is in progress until the client has read it: what it has not read stays in memory.
                    time = ReadingTime(self._clock, self._limits, self._limits.max_export_seconds)
                    await stream(request, _in_turn(parts), time, client=client, authorize=authorization.check)
                return b""
            case RawResponse(media_type, body, headers, own_status, cookies):
                add_headers(request, headers)
                for cookie in cookies:
                    request.responseHeaders.addRawHeader("set-cookie", cookie)
                return with_headers(request, own_status or status, body, f"{media_type}; charset=utf-8")
            case JsonResponse(content, headers):
                for name, value in headers.items():
                    request.setHeader(name, value)
                return with_headers(request, status, msgspec.json.encode(content))
        return with_headers(request, status, msgspec.json.encode(result))


async def _in_turn(parts: Sequence[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def add_headers(request: Request, headers: Mapping[str, str]) -> None:
    """Set ``headers``; ``Vary`` is added to what the response depends on already."""
    for name, value in headers.items():
        if name.lower() == "vary":
            value = ", ".join([*request.responseHeaders.getRawHeaders("vary", []), value])
        request.setHeader(name, value)


def with_headers(request: Request, status: int, body: bytes, content_type: str = JSON_TYPES[0]) -> bytes:
    """Set status, type and length of ``body`` and return it; klein sends it."""
    _set_headers(request, status, len(body), content_type)
    return body


def _set_headers(request: Request, status: int, length: int, content_type: str = JSON_TYPES[0]) -> None:
    request.setResponseCode(status, HTTPStatus(status).phrase.encode())  # Twisted 26.10 does not know all
    request.setHeader("content-type", content_type)
    request.setHeader("content-length", str(length))
