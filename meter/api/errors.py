"""What goes wrong with a request, and the two JSON shapes in which Ceilometer's clients expect to be told.

A *fault* comes from what was asked; its body has a ``faultstring``. An *abort* comes from how it was asked (no such
path, no such method); its body is an object for those who accept JSON by name, one text for all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

EXPLANATIONS: Mapping[int, str] = {
    403: "Access was denied to this resource.",
    404: "The resource could not be found.",
    405: "The method is not allowed for this resource.",
    406: "Answers are application/json, which the Accept header of the request leaves out.",
    410: "This resource is no longer available. No forwarding address is given.",
}
"""What an abort says when it has nothing better to say."""


class Fault(Exception):
    """An answer that is an error because of what was asked: an HTTP status and a text for whoever asked."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers or {}

    def body(self, accept: str) -> bytes:
        """Return the JSON body; ``accept`` (the request's header) does not matter here."""
        side = "Server" if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "Client"
        return error_body({"debuginfo": None, "faultcode": side, "faultstring": self.text})


class Abort(Fault):
    """An answer that is an error because of how it was asked: path, method, types."""

    def __init__(self, status: int, text: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, text or EXPLANATIONS.get(status, HTTPStatus(status).description), headers)

    def body(self, accept: str) -> bytes:
        """Return the JSON body in the shape that goes with the request's ``Accept`` header."""
        title = HTTPStatus(self.status).phrase
        if "json" in accept.lower():
            return error_body({"code": self.status, "title": title, "description": self.text})
        return error_body(f"{self.status} {title}\n\n{self.text}\n\n ")


class Unauthenticated(Fault):
    """Nobody knows who is asking; the body is the one that Keystone's middleware gives."""

    def __init__(self, challenge: str) -> None:
        super().__init__(401, "The request you have made requires authentication.", {"WWW-Authenticate": challenge})

    def body(self, accept: str) -> bytes:
        """Return the JSON body; ``accept`` does not matter here."""
        return msgspec.json.encode({"error": {"code": self.status, "title": "Unauthorized", "message": self.text}})


def error_body(content: Any) -> bytes:
    """Return ``content`` under the one key that clients look for."""
    return msgspec.json.encode({"error_message": content})


def invalid_input(name: str, value: object, reason: str) -> Fault:
    """Return the fault of a parameter or field ``name`` that cannot be ``value``."""
    return Fault(400, f"Invalid input for field/attribute {name}. Value: '{value}'. {reason}")


def unknown_argument(name: str, reason: str = "") -> Fault:
    """Return the fault of a parameter or field that does not exist, or not here."""
    return Fault(400, f'Unknown argument: "{name}"{": " if reason else ""}{reason}')
