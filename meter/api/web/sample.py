"""The page ``/sample``: one sample as it was signed, and each check that this server makes of its signature."""

from __future__ import annotations

import msgspec

from meter.api.errors import ApiError
from meter.api.handlers.v2 import stored_proof
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.responses import RawResponse
from meter.api.web.links import view_link
from meter.api.web.operation import page
from meter.api.web.page import page_response
from meter.api.web.signature_checks import covered_members
from meter.api.web.signature_checks import outcome_of
from meter.api.web.signature_checks import signature_checks
from meter.api.web.signature_checks import verify_command

MAX_MESSAGE_CHARACTERS = 20_000

ID = Parameter("id", "string", "The id of the sample.")


async def sample(context: RequestContext) -> RawResponse:
    """Handle ``/sample``."""
    id = context.arguments["id"] or ""
    if not id:
        raise ApiError(400, "A sample is shown by its id: /sample?id=…")
    proof = await stored_proof(context, id)
    shown = await context.store.sample(id)
    checks = signature_checks(proof, shown, context.keys)
    message = msgspec.json.format(msgspec.json.encode(proof.message), indent=2).decode()
    return await page_response(
        context,
        "sample.html",
        "Sample",
        id=id,
        proof=proof,
        sample=shown,
        checks=checks,
        outcome=outcome_of(checks),
        has_keys=context.keys is not None,
        message=message[:MAX_MESSAGE_CHARACTERS],
        is_cut=len(message) > MAX_MESSAGE_CHARACTERS,
        covered=covered_members(proof),
        command=None if shown is None else verify_command(shown),
        view_link=view_link,
    )


PAGES = (page("/sample", sample, "One sample, its signed message and what was checked.", ID),)
