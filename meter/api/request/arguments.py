"""The query string, read as an operation's parameters.

Besides plain parameters there are lists of objects, which come in two forms that mean the same: parallel
(``q.field=a&q.field=b&q.value=1&q.value=2``) and indexed (``q[0].field=a&q[0].value=1``). In the parallel form a member
that is named less often than the first belongs to the first objects, whatever was meant. Lists of values have both forms
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

from meter.api.errors import Fault
from meter.api.errors import invalid_input
from meter.api.errors import unknown_argument

Pair = tuple[str, str]
"""A name and a value, decoded."""

MOST_VALUES = 2000
"""Values in one query string; a request line of 16 KB hardly holds more."""

TRUE_WORDS = frozenset({"1", "t", "true", "on", "y", "yes"})
FALSE_WORDS = frozenset({"0", "f", "false", "off", "n", "no"})


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an operation.

    ``many``: it may be repeated, and is read as a tuple. ``members``: it is a list of objects of text with these
    members, of which every object has the first; those of ``mandatory`` are never null in a JSON body. ``prefix``: it is
    every name that begins so, read as a mapping. ``narrows``: it leaves entries out of the answer, so that an empty
    value or null, which would leave out none, is refused.
    """

    name: str
    type: Literal["text", "integer", "boolean"]
    description: str
    many: bool = False
    members: tuple[str, ...] = ()
    mandatory: tuple[str, ...] = ()
    prefix: bool = False
    narrows: bool = False


def read_arguments(parameters: Iterable[Parameter], pairs: Iterable[Pair]) -> dict[str, Any]:
    """Return a value per parameter: ``None`` or ``()`` for those that are absent; :class:`Fault` for anything else."""
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        given.setdefault(name, []).append(value)
    values = {parameter.name: _read(parameter, given) for parameter in parameters}
    if given:
        raise unknown_argument(", ".join(sorted(given)))
    return values


def read_pairs(text: bytes, label: str = "The query string") -> Sequence[Pair]:
    """Return the names and values of a query string, or of a form; ``label`` names it in a :class:`Fault`."""
    try:
        return parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MOST_VALUES)
    except UnicodeError as error:
        raise Fault(400, f"{label} must be UTF-8, percent-encoded.") from error
    except ValueError as error:
        raise Fault(400, f"{label} must have at most {MOST_VALUES} values.") from error


def check_pairs(pairs: Collection[Pair]) -> None:
    """Raise :class:`Fault` 400 for pairs that are too many or that no column could hold."""
    if len(pairs) > MOST_VALUES:
        raise Fault(400, f"A question must have at most {MOST_VALUES} values.")
    if any("\0" in text for pair in pairs for text in pair):
        raise Fault(400, "A question must not hold NUL characters.")


def _read(parameter: Parameter, given: dict[str, list[str]]) -> Any:
    """Take the values of ``parameter`` out of ``given`` and return what they mean."""
    if parameter.members:
        return _objects(parameter, given)
    if parameter.prefix:
        names = [name for name in given if name.startswith(parameter.name)]
        return {name.removeprefix(parameter.name): _once(name, given.pop(name)) for name in names}
    texts = given.pop(parameter.name, [])
    if parameter.many:
        numbered = _numbered(parameter, given)
        if texts and numbered:
            raise Fault(400, f"{parameter.name} and {parameter.name}[…] cannot be used together.")
        return numbered or tuple(texts)
    text = _once(parameter.name, texts)
    if texts and not text and parameter.narrows:
        raise invalid_input(parameter.name, "", "it must not be empty: leave it out to ask for everything.")
    if not text:
        return None
    match parameter.type:
        case "integer":
            return integer(parameter.name, text)
        case "boolean":
            return boolean(parameter.name, text)
        case "text":
            return text


def _once(name: str, texts: Sequence[str]) -> str:
    if len(texts) > 1:
        raise invalid_input(name, ", ".join(texts), "it may be given once.")
    return texts[0] if texts else ""


def integer(name: str, text: str) -> int:
    """Return the integer that ``text`` is; :class:`Fault` names the parameter or field ``name``."""
    try:
        return int(text)
    except ValueError as error:
        raise invalid_input(name, text, f"unable to convert to int. Error: {error}") from error


def boolean(name: str, text: str) -> bool:
    """Return the boolean that ``text`` is, in any of the words Ceilometer knew."""
    word = text.strip().lower()
    if word not in TRUE_WORDS | FALSE_WORDS:
        raise invalid_input(name, text, "unable to convert to bool: it should be true or false.")
    return word in TRUE_WORDS


def _objects(parameter: Parameter, given: dict[str, list[str]]) -> tuple[Mapping[str, str], ...]:
    if parameter.name in given:
        wanted = " and ".join(f"{parameter.name}.{member}" for member in parameter.members)
        raise invalid_input(parameter.name, given[parameter.name][0], f"it is given as {wanted}.")
    parallel = {member: given.pop(f"{parameter.name}.{member}", []) for member in parameter.members}
    indexed = _indexed(parameter, given)
    if any(parallel.values()) and indexed:
        raise Fault(400, f"{parameter.name}.… and {parameter.name}[…].… cannot be used together.")
    return indexed or _zipped(parameter, parallel)


def _zipped(parameter: Parameter, parallel: Mapping[str, list[str]]) -> tuple[Mapping[str, str], ...]:
    first = parameter.members[0]
    count = len(parallel[first])
    for member, texts in parallel.items():
        if len(texts) > count:
            raise invalid_input(
                f"{parameter.name}.{member}",
                ", ".join(texts),
                f"there are {len(texts)} of them and {count} {parameter.name}.{first}.",
            )
    return tuple({member: texts[n] for member, texts in parallel.items() if n < len(texts)} for n in range(count))


def _numbered(parameter: Parameter, given: dict[str, list[str]]) -> tuple[str, ...]:
    """Take the values of a list in the indexed form out of ``given``, in the order of their numbers."""
    pattern = re.compile(rf"{re.escape(parameter.name)}\[([0-9]{{1,9}})\]")
    values: dict[int, str] = {}
    for name in list(given):
        found = pattern.fullmatch(name)
        if found is None:
            continue
        texts = given.pop(name)
        if len(texts) > 1 or int(found[1]) in values:
            raise invalid_input(name, ", ".join(texts), "it may be given once.")
        values[int(found[1])] = texts[0]
    return tuple(value for _, value in sorted(values.items()))


def _indexed(parameter: Parameter, given: dict[str, list[str]]) -> tuple[Mapping[str, str], ...]:
    pattern = re.compile(rf"{re.escape(parameter.name)}\[([0-9]{{1,9}})\]\.({'|'.join(parameter.members)})")
    objects: dict[int, dict[str, str]] = {}
    for name in list(given):
        found = pattern.fullmatch(name)
        if found is None:
            continue
        texts = given.pop(name)
        one = objects.setdefault(int(found[1]), {})
        if len(texts) > 1 or found[2] in one:
            raise invalid_input(name, ", ".join(texts), "it may be given once.")
        one[found[2]] = texts[0]
    first = parameter.members[0]
    for index, one in objects.items():
        if first not in one:
            raise invalid_input(f"{parameter.name}[{index}].{first}", None, "Mandatory field missing.")
    return tuple(one for _, one in sorted(objects.items()))
