"""The question in the body of a GET, which Ceilometer's documentation shows, as the pairs of a query string.

``{"q": [{"field": "user_id", "value": "ann"}], "limit": 3}`` asks what ``?q[0].field=user_id&q[0].value=ann&limit=3``
asks. Whatever a body holds is either read or refused: half of a question would be answered with too much.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from meter.api.errors import Fault
from meter.api.errors import invalid_input
from meter.api.errors import unknown_argument
from meter.api.request.arguments import Pair
from meter.api.request.arguments import Parameter
from meter.api.request.arguments import read_pairs
from meter.api.request.media_types import FORM_TYPE
from meter.api.request.strict_json import BadJson
from meter.api.request.strict_json import strict_json

LARGEST_BYTES = 32 * 1024
"""Of a question: it returns in the ``Link`` header of a page, which clients take in as a line."""


def body_pairs(content: bytes, media_type: str, parameters: Sequence[Parameter]) -> Sequence[Pair]:
    """Return the pairs that the body ``content`` of a GET means; :class:`Fault` 400 for one that means nothing.

    What curl sends is called a form unless its user says otherwise: such a body, and one without a type, is JSON if it
    begins as JSON does, and otherwise a form, which is written like a query string.
    """
    if not content.strip():
        return ()
    if len(content) > LARGEST_BYTES:
        raise Fault(400, f"The body of a GET may have at most {LARGEST_BYTES} bytes: POST to /v2/query/samples.")
    if media_type in ("", FORM_TYPE) and content.lstrip()[:1] not in b'{["':
        return read_pairs(content.strip(), "The body")
    asked = decoded(content)
    if not isinstance(asked, dict):
        raise Fault(400, 'The body must be a JSON object like {"q": [{"field": "user_id", "value": "ann"}]}.')
    return [pair for name, value in asked.items() for pair in _pairs_of(_parameter(name, parameters), name, value)]


def decoded(content: bytes) -> Any:
    """Return the decoded body of a request; :class:`Fault` 400 where it is not JSON."""
    try:
        return strict_json(content)
    except BadJson as error:
        raise Fault(400, f"The body cannot be read: {error}") from error


def check_asked_once(asked: Iterable[Pair], in_body: Iterable[Pair]) -> None:
    """Raise :class:`Fault` 400 for a parameter that the query string and the body both give: which one is meant?"""
    twice = sorted({_root(name) for name, _ in asked} & {_root(name) for name, _ in in_body})
    if twice:
        raise Fault(400, f"Parameter {', '.join(twice)} was given several times: in the query string and in the body.")


def _root(name: str) -> str:
    """Return the parameter that ``q.field`` and ``q[0].field`` are part of."""
    return name if name.startswith("metadata.") else re.split(r"[.\[]", name)[0]


def _parameter(name: str, parameters: Iterable[Parameter]) -> Parameter:
    for parameter in parameters:
        if name == parameter.name or (parameter.prefix and name.startswith(parameter.name)):
            return parameter
    raise unknown_argument(name[:200])


def _pairs_of(parameter: Parameter, name: str, value: Any) -> Iterator[Pair]:
    if value is None:
        if parameter.narrows:
            raise invalid_input(name, None, "null asks for nothing: leave it out to ask for everything.")
    elif parameter.members:
        yield from _members(parameter, value)
    elif parameter.many:
        for n, one in enumerate(_list(name, value)):
            yield f"{name}[{n}]", _text(f"{name}[{n}]", one)
    elif parameter.type == "integer":
        yield name, _integer(name, value)
    elif parameter.type == "boolean" and isinstance(value, bool):
        yield name, str(value)
    else:
        yield name, _text(name, value)


def _members(parameter: Parameter, value: Any) -> Iterator[Pair]:
    for n, one in enumerate(_list(parameter.name, value)):
        place = f"{parameter.name}[{n}]"
        if not isinstance(one, dict):
            raise invalid_input(place, _shown(one), f"it must be an object with {', '.join(parameter.members)}.")
        unknown = sorted(one.keys() - set(parameter.members))
        if unknown:
            raise Fault(400, f"Unknown attribute for argument {parameter.name}: {', '.join(unknown)[:200]}")
        for member in parameter.members:
            if member in parameter.mandatory and one.get(member) is None:
                raise invalid_input(f"{place}.{member}", None, "Mandatory field missing.")
            if one.get(member) is not None:
                yield f"{place}.{member}", _text(f"{place}.{member}", one[member])


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise invalid_input(name, _shown(value), "it must be a list.")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise invalid_input(name, _shown(value), "it must be a text.")
    return value


def _integer(name: str, value: Any) -> str:
    """Return the text of an integer, which may be written ``1``, ``1.0`` or ``"1"``."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise invalid_input(name, _shown(value), "it must be an integer.")
    return str(int(value))


def _shown(value: Any) -> str:
    return json.dumps(value)[:80]
