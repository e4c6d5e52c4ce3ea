"""Reading the files of a price directory: which files these are, their text, their tables, and the line of each fault."""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import NamedTuple
from typing import get_args

from pydantic import BaseModel
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from meter.rating.book.book_problem import BookProblem
from meter.rating.book.book_problem import suggestion
from meter.rating.book.price_book import Place
from meter.rating.book.tables import TABLES
from meter.rating.book.tables import BookTable
from meter.rating.book.values import FloatText
from meter.rating.book.values import shown
from meter.settings.plain_words import plain
from meter.toml_lines import Path as TomlPath
from meter.toml_lines import innermost_line
from meter.toml_lines import toml_lines

SUFFIX = ".toml"
MAX_FILES = 1000
MAX_FILE_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class PriceFile:
    """The text of a file of the price directory; ``name`` is its name in messages."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class ReadTable:
    """A table as it was read from a file. ``model`` is ``None`` if it is faulty; ``raw`` is what the file says."""

    kind: str
    model: BookTable | None
    raw: Mapping[str, Any]
    file: str
    prefix: TomlPath
    lines: Mapping[TomlPath, int]

    @property
    def place(self) -> Place:
        """Where its header is."""
        return self.place_of()

    def place_of(self, *keys: str | int) -> Place:
        """Return where a key is, or, if the table does not have it, the innermost thing around it."""
        return Place(file=self.file, line=innermost_line(self.lines, (*self.prefix, *keys)))


def file_paths(directory: Path) -> list[Path]:
    """Return the files of the price directory in the order of their names: ``*.toml``, but for hidden ones.

    :raises OSError: the directory cannot be read.
    """
    names = [each for each in directory.iterdir() if each.suffix == SUFFIX and not each.name.startswith(".")]
    return sorted(names, key=lambda each: each.name)


def read_files(directory: Path, problems: list[BookProblem]) -> list[PriceFile]:
    """Return the files of the price directory; what cannot be read is added to ``problems``."""
    try:
        paths = file_paths(directory)
    except OSError as fault:
        problems.append(BookProblem(str(directory), 0, f"the directory cannot be read: {fault.strerror}"))
        return []
    if not paths:
        problems.append(BookProblem(str(directory), 0, f"there is no file *{SUFFIX} in the price directory"))
    if len(paths) > MAX_FILES:
        problems.append(
            BookProblem(str(directory), 0, f"the price directory has {len(paths)} files; {MAX_FILES} are allowed")
        )
        return []
    return [file for path in paths if (file := _read(path, problems)) is not None]


def _read(path: Path, problems: list[BookProblem]) -> PriceFile | None:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would never end
            problems.append(BookProblem(path.name, 0, "it is not a file"))
            return None
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as fault:
        problems.append(BookProblem(path.name, 0, f"it cannot be read: {fault.strerror}"))
        return None
    if len(content) > MAX_FILE_BYTES:
        problems.append(BookProblem(path.name, 0, f"it is too large: {MAX_FILE_BYTES // 2**20} MiB are allowed"))
        return None
    try:
        # Editors of Windows write a byte order mark, which TOML does not know.
        return PriceFile(path.name, content.decode("utf-8-sig"))
    except UnicodeDecodeError as fault:
        line = content.count(b"\n", 0, fault.start) + 1
        problems.append(BookProblem(path.name, line, "it is not in UTF-8: save it as UTF-8"))
        return None


class ReadTables(NamedTuple):
    """The tables of all files; not ``complete`` if a file was no TOML at all, so that nothing is known of its tables."""

    tables: list[ReadTable]
    complete: bool


def read_tables(files: Sequence[PriceFile], problems: list[BookProblem]) -> ReadTables:
    """Return the tables of ``files``; what is wrong with a file or within a table is added to ``problems``."""
    tables: list[ReadTable] = []
    complete = True
    for file in files:
        try:
            raw = tomllib.loads(file.text, parse_float=FloatText)
            lines = toml_lines(file.text)
        except tomllib.TOMLDecodeError as fault:
            problems.append(_no_toml(file, str(fault)))
            complete = False
        except (ValueError, RecursionError) as fault:  # a number with thousands of digits, thousands of brackets
            problems.append(BookProblem(file.name, 0, f"it is no usable TOML: {fault}"))
            complete = False
        else:
            tables += _tables(file, raw, lines, problems)
    return ReadTables(tables, complete)


def _tables(
    file: PriceFile, raw: Mapping[str, Any], lines: Mapping[TomlPath, int], problems: list[BookProblem]
) -> Iterator[ReadTable]:
    for kind, tables in raw.items():
        line = innermost_line(lines, (kind, 0) if (kind, 0) in lines else (kind,))
        if kind not in TABLES:
            problems.append(BookProblem(file.name, line, f"unknown table [[{kind}]]{suggestion(kind, TABLES)}"))
        elif not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
            problems.append(BookProblem(file.name, line, f"write two brackets: [[{kind}]]"))
        else:
            for number, table in enumerate(tables):
                yield _table(ReadTable(kind, None, table, file.name, (kind, number), lines), problems)


def _no_toml(file: PriceFile, text: str) -> BookProblem:
    """Return the fault with the line that :mod:`tomllib` tells in its text, as in ``Invalid value (at line 3, column 9)``."""
    what, _, where = text.rpartition(" (at line ")
    number = where.partition(",")[0]
    if number.isdecimal():
        return BookProblem(file.name, int(number), f"it is not TOML: {what}")
    return BookProblem(
        file.name, file.text.count("\n") + 1, f"it is not TOML: {text.removesuffix(' (at end of document)')}"
    )


def _table(read: ReadTable, problems: list[BookProblem]) -> ReadTable:
    model = TABLES[read.kind]
    try:
        return ReadTable(read.kind, model.model_validate(read.raw), read.raw, read.file, read.prefix, read.lines)
    except ValidationError as fault:
        for detail in fault.errors(include_url=False):
            problems.append(BookProblem.at(read.place_of(*detail["loc"]), f"[[{read.kind}]] {_told(model, detail)}"))
        return read


def _told(model: type[BaseModel], detail: ErrorDetails) -> str:
    """Return what is wrong with a key, and what would be right, for an error of pydantic."""
    *outer, last = detail["loc"]
    key = "".join(f"[{each + 1}]" if isinstance(each, int) else f".{each}" for each in detail["loc"]).removeprefix(".")
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key {key}{suggestion(str(last), _keys(model, outer))}"
        case "missing":
            return f"{key} is missing"
        case "literal_error":
            allowed = [each.strip("' ") for each in detail["ctx"]["expected"].replace(" or ", ", ").split(", ")]
            close = suggestion(str(detail["input"]), allowed, shown=0)
            return f"{key} must be one of {', '.join(allowed)}, not {shown(detail['input'])}{close}"
        case "price_book":
            return f"{key} {detail['msg']}"
        case "bool_type":
            return f"{key} must be true or false, without quotes, not {shown(detail['input'])}"
    return f"{key}: {plain(detail['msg'])}, not {shown(detail['input'])}"


def _keys(model: type[BaseModel], outer: Sequence[str | int]) -> list[str]:
    """Return the keys of the table at ``outer`` within ``model``, as files have them."""
    current: type[BaseModel] | None = model
    for part in outer:
        if isinstance(part, str) and current is not None:
            field = next(
                (each for name, each in current.model_fields.items() if part in (name, each.alias)),
                None,
            )
            current = _model_in(field.annotation) if field is not None else None
    return [each.alias or name for name, each in current.model_fields.items()] if current is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model_in(each)) is not None), None)
