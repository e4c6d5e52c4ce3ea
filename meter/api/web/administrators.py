"""Pages and parts of pages that only administrators see."""

from __future__ import annotations

from meter.api.errors import HttpError
from meter.api.request.context import RequestContext


def for_administrators(context: RequestContext, what: str) -> None:
    """Raise :class:`HttpError` 403 for anyone but an administrator; ``what`` begins the sentence that says so."""
    if not context.requester.is_admin:
        raise HttpError(403, f"{what} for administrators only.")


def acting(context: RequestContext) -> str:
    """Return who the audit log says has acted: the user, or that the API does not know one."""
    return context.requester.user_id or "administrator without a user id"
