"""Parameters: the query string, or any other list of names and values, parsed into an operation's arguments.

Besides plain parameters there are lists of objects, in two equivalent forms: parallel
(``q.field=a&q.field=b&q.value=1&q.value=2``) and indexed (``q[0].field=a&q[0].value=1``). In the parallel form, values
of a member that is given less often than the first member belong to the first objects. Lists of values have both forms
too (``groupby=a&groupby=b``, ``groupby[0]=a&groupby[1]=b``).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import Literal
from urllib.parse import parse_qsl

from meter.api.errors import ApiError
from meter.api.errors import invalid_input
from meter.api.errors import unknown_argument

Pair = tuple[str, str]
"""A name and a value, decoded."""

MAX_PAIRS = 2000
"""Maximum number of parameters of one request; a request line of 16 KB hardly has room for more."""

TRUE_WORDS = frozenset({"1", "t", "true", "on", "y", "yes"})
FALSE_WORDS = frozenset({"0", "f", "false", "off", "n", "no"})

ONLY_ONCE = "it can be given only once."


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an operation.

    ``many``: can be repeated; the argument is a tuple. ``members``: a list of objects with these members, all strings;
    every object has the first member, and those in ``mandatory`` are never null in a JSON body. ``prefix``: any name
    with this prefix; the argument is a mapping. ``narrows``: restricts the result, so that an empty value or null, which
    would restrict nothing, is rejected. ``secret``: no error has its value.
    """

    name: str
    type: Literal["string", "integer", "boolean"]
    description: str
    many: bool = False
    members: tuple[str, ...] = ()
    mandatory: tuple[str, ...] = ()
    prefix: bool = False
    narrows: bool = False
    secret: bool = False


def parse_arguments(parameters: Iterable[Parameter], pairs: Iterable[Pair]) -> dict[str, Any]:
    """Return one argument per parameter, ``None`` or ``()`` for absent ones; :class:`ApiError` 400 for unknown names."""
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        given.setdefault(name, []).append(value)
    arguments = {parameter.name: _take(parameter, given) for parameter in parameters}
    if given:
        raise unknown_argument(", ".join(sorted(given)))
    return arguments


def parse_pairs(text: bytes, label: str = "The query string") -> Sequence[Pair]:
    """Return the names and values of a query string, or of a form; ``label`` names it in the :class:`ApiError`."""
    try:
        return parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PAIRS)
    except UnicodeError as error:
        raise ApiError(400, f"{label} must be percent-encoded UTF-8.") from error
    except ValueError as error:
        raise ApiError(400, f"{label} can have at most {MAX_PAIRS} parameters.") from error


def check_pairs(pairs: Collection[Pair]) -> None:
    """Raise :class:`ApiError` 400 for too many pairs, and for NUL characters, which PostgreSQL cannot compare."""
    if len(pairs) > MAX_PAIRS:
        raise ApiError(400, f"A request can have at most {MAX_PAIRS} parameters.")
    if any("\0" in text for pair in pairs for text in pair):
        raise ApiError(400, "Parameters must not contain NUL characters.")


def _take(parameter: Parameter, given: dict[str, list[str]]) -> Any:
    """Remove the values of ``parameter`` from ``given`` and return them parsed."""
    if parameter.members:
        return _objects(parameter, given)
    if parameter.prefix:
        names = [name for name in given if name.startswith(parameter.name)]
        return {name.removeprefix(parameter.name): _single(name, given.pop(name)) for name in names}
    texts = given.pop(parameter.name, [])
    if parameter.many:
        indexed = _indexed_values(parameter, given)
        if texts and indexed:
            raise ApiError(400, f"{parameter.name} and {parameter.name}[…] cannot be used together.")
        return indexed or tuple(texts)
    text = _single(parameter.name, ["…" if parameter.secret else text for text in texts] if len(texts) > 1 else texts)
    if texts and not text and parameter.narrows:
        raise invalid_input(parameter.name, "", "it must not be empty; omit it to request everything.")
    if not text:
        return None
    match parameter.type:
        case "integer":
            return parse_integer(parameter.name, text)
        case "boolean":
            return parse_boolean(parameter.name, text)
        case "string":
            return text


def _single(name: str, texts: Sequence[str]) -> str:
    if len(texts) > 1:
        raise invalid_input(name, ", ".join(texts), ONLY_ONCE)
    return texts[0] if texts else ""


def parse_integer(name: str, text: str) -> int:
    """Return ``text`` as an integer; :class:`ApiError` 400, with the parameter or field ``name``, if it is not one."""
    try:
        return int(text)
    except ValueError as error:
        raise invalid_input(name, text, f"unable to convert to int. Error: {error}") from error


def parse_boolean(name: str, text: str) -> bool:
    """Return ``text`` as a boolean, in any of the words that Ceilometer accepted; :class:`ApiError` 400 otherwise."""
    word = text.strip().lower()
    if word not in TRUE_WORDS | FALSE_WORDS:
        raise invalid_input(name, text, "unable to convert to bool: use true or false.")
    return word in TRUE_WORDS


def _objects(parameter: Parameter, given: dict[str, list[str]]) -> tuple[Mapping[str, str], ...]:
    if parameter.name in given:
        expected = " and ".join(f"{parameter.name}.{member}" for member in parameter.members)
        raise invalid_input(parameter.name, given[parameter.name][0], f"use {expected}.")
    parallel = {member: given.pop(f"{parameter.name}.{member}", []) for member in parameter.members}
    indexed = _indexed_objects(parameter, given)
    if any(parallel.values()) and indexed:
        raise ApiError(400, f"{parameter.name}.… and {parameter.name}[…].… cannot be used together.")
    return indexed or _parallel_objects(parameter, parallel)


def _parallel_objects(parameter: Parameter, parallel: Mapping[str, list[str]]) -> tuple[Mapping[str, str], ...]:
    first = parameter.members[0]
    count = len(parallel[first])
    for member, texts in parallel.items():
        if len(texts) > count:
            raise invalid_input(
                f"{parameter.name}.{member}",
                ", ".join(texts),
                f"{len(texts)} given, but only {count} {parameter.name}.{first}.",
            )
    return tuple({member: texts[n] for member, texts in parallel.items() if n < len(texts)} for n in range(count))


def _indexed_values(parameter: Parameter, given: dict[str, list[str]]) -> tuple[str, ...]:
    """Remove the values of a list in the indexed form from ``given`` and return them, ordered by index."""
    pattern = re.compile(rf"{re.escape(parameter.name)}\[([0-9]{{1,9}})\]")
    values: dict[int, str] = {}
    for name in list(given):
        match = pattern.fullmatch(name)
        if match is None:
            continue
        texts = given.pop(name)
        if len(texts) > 1 or int(match[1]) in values:
            raise invalid_input(name, ", ".join(texts), ONLY_ONCE)
        values[int(match[1])] = texts[0]
    return tuple(value for _, value in sorted(values.items()))


def _indexed_objects(parameter: Parameter, given: dict[str, list[str]]) -> tuple[Mapping[str, str], ...]:
    pattern = re.compile(rf"{re.escape(parameter.name)}\[([0-9]{{1,9}})\]\.({'|'.join(parameter.members)})")
    objects: dict[int, dict[str, str]] = {}
    for name in list(given):
        match = pattern.fullmatch(name)
        if match is None:
            continue
        texts = given.pop(name)
        one = objects.setdefault(int(match[1]), {})
        if len(texts) > 1 or match[2] in one:
            raise invalid_input(name, ", ".join(texts), ONLY_ONCE)
        one[match[2]] = texts[0]
    first = parameter.members[0]
    for index, one in objects.items():
        if first not in one:
            raise invalid_input(f"{parameter.name}[{index}].{first}", None, "Mandatory field missing.")
    return tuple(one for _, one in sorted(objects.items()))
