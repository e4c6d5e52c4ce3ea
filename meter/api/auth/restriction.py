"""Restriction of a filter to what its requester may see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from meter.api.auth.requester import Requester
from meter.api.errors import ApiError
from meter.api.errors import HttpError
from meter.query import And
from meter.query import Comparison
from meter.query import Expression
from meter.query import In
from meter.query import Not
from meter.query import Or
from meter.query import SampleFilter


def restrict(filter: SampleFilter, requester: Requester) -> SampleFilter:
    """Return ``filter`` restricted to the project of ``requester``, unchanged for an administrator.

    Raises :class:`HttpError` 403 for a requester without a project, and :class:`ApiError` 401 if ``filter`` names
    another project.
    """
    if requester.is_admin:
        return filter
    if not requester.project_id:
        raise HttpError(403, "RBAC Authorization Failed: the token is not scoped to a project.")
    project_id = filter.equals.get("project_id", requester.project_id)
    for named in (project_id, *(_projects(filter.expression) if filter.expression else ())):
        if named != requester.project_id:
            raise ApiError(401, f"Not Authorized to access project {named}")
    return replace(filter, equals={**filter.equals, "project_id": requester.project_id})


def _projects(expression: Expression) -> Iterator[object]:
    """Yield every project that ``expression`` names, whatever the operator."""
    match expression:
        case Comparison("project_id", _, value):
            yield value
        case In("project_id", values):
            yield from values
        case And(parts) | Or(parts):
            for part in parts:
                yield from _projects(part)
        case Not(part):
            yield from _projects(part)
