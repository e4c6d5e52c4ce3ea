"""A statement as a web page that can be printed: one file without scripts and without anything from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from decimal import Decimal
from functools import cache

from jinja2 import Environment
from jinja2 import PackageLoader
from jinja2 import StrictUndefined
from jinja2 import Template

from meter.rating.exact import EXACT
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement import Statement
from meter.rating.statements.statement import StatementLine

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""What a page needs of a browser: its own style."""


@dataclass(frozen=True, slots=True)
class LineGroup:
    """Consecutive lines of a project, or those of the account as a whole, with their sum."""

    project_id: str
    project_name: str
    lines: Sequence[StatementLine]
    amount: Decimal


def statement_page(signed: SignedStatement, sha256: str = "") -> Iterator[str]:
    """Yield the page piece by piece. An open statement, which has no signature, is called a preview.

    ``sha256`` is that of the statement's canonical form, by which the account's next statement names it.
    """
    statement = signed.statement
    return _template().generate(
        signed=signed,
        sha256=sha256,
        statement=statement,
        groups=line_groups(statement),
        taxes=[line for line in statement.lines if line.kind == "tax"],
        names={line.project_id: line.project_name for line in statement.lines if line.project_name},
    )


def line_groups(statement: Statement) -> list[LineGroup]:
    """Return the net lines by project, in the order of their first lines; those without project are the account's, and last."""
    lines: dict[str, list[StatementLine]] = {}
    for line in statement.lines:
        if line.kind != "tax":
            lines.setdefault(line.project_id, []).append(line)
    groups = []
    for project_id in sorted(lines, key=lambda each: not each):
        amount = Decimal(0)
        for line in lines[project_id]:
            amount = EXACT.add(amount, line.amount)
        groups.append(LineGroup(project_id, lines[project_id][0].project_name, lines[project_id], amount))
    return groups


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("meter.rating.exports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["visible"] = visible
    environment.filters["utc"] = _utc
    environment.filters["hours"] = _hours
    return environment.get_template("statement.html")


def visible(id: str) -> str:
    """Return an id whose unprintable and invisible characters are escaped: two that are not the same do not look the same."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in id)


def _number(value: Decimal | None) -> str:
    """Return a number without exponent, with the sign of typography, which does not break from its digits."""
    return "" if value is None else f"{value:f}".replace("-", "\u2212")


def _utc(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _hours(seconds: int) -> str:
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min {seconds % 60:02d} s"
