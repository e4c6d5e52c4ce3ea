"""JSON as a signed document may be: each member once, no floats, UTF-8; anything else is refused with the reason."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

MAX_BYTES = 256 * 1024 * 1024
"""Maximum size of a document: statements of thousands of projects are smaller."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def decoded(body: bytes) -> Any:
    """Return what the JSON document ``body`` contains.

    :raises ValueError: it is not JSON, or has what two readers may understand differently: a member twice, a number with a
        fraction or an exponent, ``NaN``; or it is too large, or nested too deeply.
    """
    if len(body) > MAX_BYTES:
        raise ValueError(f"the document has {len(body)} bytes; at most {MAX_BYTES} are read")
    try:
        document = json.loads(
            body.decode("utf-8"), object_pairs_hook=_members, parse_float=_refuse_number, parse_constant=_refuse_number
        )
        if _SURROGATE.search(body):
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"the document is not UTF-8: byte {error.start} is {body[error.start]:#04x}") from error
    except RecursionError:
        raise ValueError("the document is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"the document is not JSON: {error}") from error
    except UnicodeEncodeError:
        raise ValueError("a text of the document has half of a surrogate pair") from None
    return document


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the member {twice[:80]!r} stands twice in one object: which value was signed is not certain")
    return members


def _refuse_number(text: str) -> Any:
    raise ValueError(f"the number {text[:40]} is not an integer: decimals of a statement are strings")
