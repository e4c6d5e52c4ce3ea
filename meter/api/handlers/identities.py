"""Handler of ``/v2/identities``: the names of projects, domains and users, with their history."""

from __future__ import annotations

from meter.api.errors import invalid_input
from meter.api.rendering.identities import identity_of
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.request.paging import key_marker
from meter.api.request.paging import key_of_marker
from meter.api.request.paging import next_link
from meter.api.request.times import parse_time_argument
from meter.api.responses import ListResponse
from meter.identity_names import IdentityFilter
from meter.identity_names import IdentityKey
from meter.identity_report import KINDS
from meter.identity_report import IdentityKind

PARAMETERS = (
    Parameter("kind", "string", "Only identities of this kind: project, domain or user.", narrows=True),
    Parameter("id", "string", "Only the identity with this id.", narrows=True),
    Parameter(
        "name", "string", "Only identities with this name, now or formerly; with at, at that time.", narrows=True
    ),
    Parameter("at", "string", "Only names that were valid at this time.", narrows=True),
)


async def identities(context: RequestContext) -> ListResponse:
    """Handle ``/v2/identities``: a page of identities, ordered by kind and id."""
    arguments = context.arguments
    at = arguments["at"]
    filter = IdentityFilter(
        kind=None if arguments["kind"] is None else _kind("kind", arguments["kind"]),
        id=arguments["id"],
        name=arguments["name"],
        at=None if at is None else parse_time_argument("at", at),
    )
    after = None
    if arguments["marker"] is not None:
        kind, id_ = key_of_marker(arguments["marker"], 2)
        after = IdentityKey(_kind("marker", kind), id_)
    found, following = await context.store.identities(filter, context.limit, after)
    link = {} if following is None else {"Link": next_link(context.url, key_marker(*following))}
    return ListResponse(list(found), identity_of, link)


def _kind(argument: str, text: str) -> IdentityKind:
    for kind in KINDS:
        if text == kind:
            return kind
    raise invalid_input(argument, text, f"it must be one of {', '.join(KINDS)}.")
