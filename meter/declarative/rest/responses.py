"""What is in an answer: JSON, XML told as JSON would tell it, or a text.

This module alone imports xmltodict, which expands no entities of a document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import Literal
from xml.parsers.expat import ExpatError

import xmltodict

from meter.http import BadResponse
from meter.http import HttpResponse

Response = Literal["json", "xml", "text"]
"""How an answer is understood."""


def document(answer: HttpResponse, ways: Sequence[Response]) -> Any:
    """Return what ``answer`` holds, understood in the first of ``ways`` that works; :class:`BadAnswer`.

    Of XML names become names of mappings, elements that are repeated a list, and everything else is text. A text is a
    list of itself.
    """
    failures = []
    for way in ways:
        try:
            return _UNDERSTOOD[way](answer)
        except BadResponse as error:
            failures.append(error)
    raise failures[0]


def _xml(answer: HttpResponse) -> Any:
    try:
        return xmltodict.parse(answer.body, disable_entities=True)
    except (ExpatError, ValueError, RecursionError) as error:
        raise BadResponse(f"{answer.request}: the answer ({answer.status}) is no XML: {error}") from None


def _text(answer: HttpResponse) -> Any:
    return [answer.body.decode(errors="replace")]


_UNDERSTOOD = {"json": HttpResponse.json, "xml": _xml, "text": _text}
