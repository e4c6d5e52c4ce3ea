"""The operations of rating: statements, usage without a price, and costs in CloudKitty's format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meter.api.handlers import cloudkitty
from meter.api.handlers import statements
from meter.api.handlers import unpriced_usage
from meter.api.operation import LIMIT
from meter.api.operation import MARKER
from meter.api.operation import Operation
from meter.api.rendering import cloudkitty as rendering_cloudkitty
from meter.api.rendering.statements import StatementEntry
from meter.api.rendering.unpriced_usage import UnpricedUsageEntry
from meter.api.streaming.export import JSON_LINES
from meter.rating.statements.statement_keys import StatementKey

STATEMENTS: tuple[Operation, ...] = (
    Operation(
        name="statements",
        path="/v2/statements",
        summary="Statements, the newest period first. Tenants see those with something of their project.",
        parameters=(statements.ACCOUNT, statements.PROJECT, statements.PERIOD, statements.STATE, LIMIT, MARKER),
        result=Sequence[StatementEntry],
        handler=statements.statements,
        costly=True,
    ),
    Operation(
        name="statement",
        path="/v2/statements/{id}",
        summary="One statement: the signed document, or for a project that shares it with others an unsigned extract.",
        parameters=(statements.FORMAT,),
        result=dict[str, Any],
        handler=statements.statement,
        media_types=statements.MEDIA_TYPES,
        costly=True,
    ),
    Operation(
        name="statement_annex",
        path="/v2/statements/{id}/annex",
        summary="The quantities of resources and days of a statement, or of the requester's project, as JSON lines.",
        result=str,
        handler=statements.annex,
        media_types=(JSON_LINES,),
        costly=True,
    ),
    Operation(
        name="statement_keys",
        path="/v2/statement-keys",
        summary="Public keys with which signatures of statements are verified, also those of earlier statements.",
        result=Sequence[StatementKey],
        handler=statements.statement_keys,
    ),
    Operation(
        name="unpriced_usage",
        path="/v2/unpriced-usage",
        summary="Usage without a price in this period and the last one, over all accounts, for administrators.",
        result=Sequence[UnpricedUsageEntry],
        handler=unpriced_usage.unpriced_usage,
        costly=True,
    ),
)

CLOUDKITTY: tuple[Operation, ...] = (
    Operation(
        name="summary",
        path="/v2/summary",
        summary="Sums of what usage cost, in the format of CloudKitty's v2 API.",
        parameters=(
            cloudkitty.BEGIN,
            cloudkitty.END,
            cloudkitty.FILTERS,
            cloudkitty.GROUPBY,
            cloudkitty.RESPONSE_FORMAT,
            cloudkitty.LIMIT,
            cloudkitty.OFFSET,
        ),
        result=rendering_cloudkitty.Summary,
        handler=cloudkitty.summary,
        costly=True,
    ),
    Operation(
        name="dataframes",
        path="/v2/dataframes",
        summary="What resources used on each day and what it cost, in the format of CloudKitty's v2 API.",
        parameters=(cloudkitty.BEGIN, cloudkitty.END, cloudkitty.FILTERS, cloudkitty.LIMIT, cloudkitty.OFFSET),
        result=rendering_cloudkitty.DataFrames,
        handler=cloudkitty.dataframes,
        costly=True,
    ),
)
