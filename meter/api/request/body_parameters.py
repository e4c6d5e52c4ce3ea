"""Parameters in the body of a GET request, which Ceilometer's documentation shows, converted to pairs of a query string.

``{"q": [{"field": "user_id", "value": "ann"}], "limit": 3}`` is equivalent to
``?q[0].field=user_id&q[0].value=ann&limit=3``. Unknown or invalid content is rejected, since a filter that is ignored
would return too much.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from meter.api.errors import ApiError
from meter.api.errors import invalid_input
from meter.api.errors import unknown_argument
from meter.api.request.arguments import Pair
from meter.api.request.arguments import Parameter
from meter.api.request.arguments import parse_pairs
from meter.api.request.body import decode_body
from meter.api.request.media_types import FORM_TYPE

MAX_FORM_BYTES = 512 * 1024
"""Maximum size of a form, which is parsed in one step."""

MAX_BYTES = 32 * 1024
"""Maximum size of such a body: it is repeated in the ``Link`` header of a page, and clients limit the length of a header line."""


def pairs_from_body(content: bytes, media_type: str, parameters: Sequence[Parameter]) -> Sequence[Pair]:
    """Return the pairs in the body ``content`` of a GET request; :class:`ApiError` 400 if it is invalid.

    curl calls any body a form by default. A body of that type, or without a type, is therefore parsed as JSON if it
    begins like JSON, and otherwise as a form, which has the syntax of a query string.
    """
    if not content.strip():
        return ()
    if len(content) > MAX_BYTES:
        raise ApiError(
            400, f"The body of a GET request can have at most {MAX_BYTES} bytes; use POST /v2/query/samples."
        )
    if media_type in ("", FORM_TYPE) and content.lstrip()[:1] not in b'{["':
        return parse_pairs(content.strip(), "The body")
    decoded = decode_body(content)
    if not isinstance(decoded, dict):
        raise ApiError(400, 'The body must be a JSON object such as {"q": [{"field": "user_id", "value": "ann"}]}.')
    return [pair for name, value in decoded.items() for pair in _pairs(_find(name, parameters), name, value)]


def pairs_of_form(content: bytes, media_type: str) -> Sequence[Pair]:
    """Return the fields of a form of a page; :class:`ApiError` 400, 413 or 415 if it is none. No error has a value of a field."""
    if not content:
        return ()
    if media_type != FORM_TYPE:
        raise ApiError(415, f"A form has the media type {FORM_TYPE}.")
    if len(content) > MAX_FORM_BYTES:
        raise ApiError(413, f"A form can have at most {MAX_FORM_BYTES} bytes.")
    return parse_pairs(content, "The form")


def check_no_overlap(query_pairs: Iterable[Pair], body_pairs: Iterable[Pair]) -> None:
    """Raise :class:`ApiError` 400 for a parameter that both the query string and the body have: it is ambiguous."""
    both = sorted(
        {_parameter_name(name) for name, _ in query_pairs} & {_parameter_name(name) for name, _ in body_pairs}
    )
    if both:
        raise ApiError(
            400, f"Parameter {', '.join(both)} was given several times: in the query string and in the body."
        )


def _parameter_name(name: str) -> str:
    """Return the parameter that ``q.field`` and ``q[0].field`` are part of."""
    return name if name.startswith("metadata.") else re.split(r"[.\[]", name)[0]


def _find(name: str, parameters: Iterable[Parameter]) -> Parameter:
    for parameter in parameters:
        if name == parameter.name or (parameter.prefix and name.startswith(parameter.name)):
            return parameter
    raise unknown_argument(name[:200])


def _pairs(parameter: Parameter, name: str, value: Any) -> Iterator[Pair]:
    if value is None:
        if parameter.narrows:
            raise invalid_input(name, None, "null is not a filter; omit it to request everything.")
    elif parameter.members:
        yield from _member_pairs(parameter, value)
    elif parameter.many:
        for n, item in enumerate(_list(name, value)):
            yield f"{name}[{n}]", _string(f"{name}[{n}]", item)
    elif parameter.type == "integer":
        yield name, _integer(name, value)
    elif parameter.type == "boolean" and isinstance(value, bool):
        yield name, str(value)
    else:
        yield name, _string(name, value)


def _member_pairs(parameter: Parameter, value: Any) -> Iterator[Pair]:
    for n, item in enumerate(_list(parameter.name, value)):
        path = f"{parameter.name}[{n}]"
        if not isinstance(item, dict):
            raise invalid_input(path, _excerpt(item), f"it must be an object with {', '.join(parameter.members)}.")
        unknown = sorted(item.keys() - set(parameter.members))
        if unknown:
            raise ApiError(400, f"Unknown attribute for argument {parameter.name}: {', '.join(unknown)[:200]}")
        for member in parameter.members:
            if member in parameter.mandatory and item.get(member) is None:
                raise invalid_input(f"{path}.{member}", None, "Mandatory field missing.")
            if item.get(member) is not None:
                yield f"{path}.{member}", _string(f"{path}.{member}", item[member])


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise invalid_input(name, _excerpt(value), "it must be a list.")
    return value


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise invalid_input(name, _excerpt(value), "it must be a string.")
    return value


def _integer(name: str, value: Any) -> str:
    """Return the text of an integer, which can be written as ``1``, ``1.0`` or ``"1"``."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise invalid_input(name, _excerpt(value), "it must be an integer.")
    return str(int(value))


def _excerpt(value: Any) -> str:
    return json.dumps(value)[:80]
