"""Parsing of responses: JSON, XML as the equivalent JSON, or text.

The only module that imports xmltodict, with expansion of entities disabled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import Literal
from xml.parsers.expat import ExpatError

import xmltodict

from meter.http import BadResponse
from meter.http import HttpResponse

ResponseFormat = Literal["json", "xml", "text"]


def parse(response: HttpResponse, formats: Sequence[ResponseFormat]) -> Any:
    """Return the body of ``response`` parsed by the first of ``formats`` that fits; raise :class:`BadResponse`.

    XML elements become mappings, repeated elements a list, and everything else text. A text is a list with one entry.
    """
    failures = []
    for each in formats:
        try:
            return _PARSERS[each](response)
        except BadResponse as error:
            failures.append(error)
    raise failures[0]


def _xml(response: HttpResponse) -> Any:
    try:
        return xmltodict.parse(response.body, disable_entities=True)
    except (ExpatError, ValueError, RecursionError) as error:
        raise BadResponse(f"{response.request}: the response ({response.status}) is not XML: {error}") from None


def _text(response: HttpResponse) -> Any:
    return [response.body.decode(errors="replace")]


_PARSERS = {"json": HttpResponse.json, "xml": _xml, "text": _text}
