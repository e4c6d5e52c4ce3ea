"""Requests to the object store: one without a token, to a public container or with a temporary URL, is that of the account's project.

Swift's filter of ceilometermiddleware then reports no project of the initiator, and a random user. The id of the account is that of its
project; of an account that belongs to none, such as one with another prefix, the filter gives the path of the request.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from meter.declarative.notifications import DefinedListener
from meter.declarative.notifications import DefinitionResult
from meter.notification import Notification
from meter.sample import Sample


class ObjectStoreListener(DefinedListener):
    """Makes samples with the definitions of ``defined``; those of requests without a project have the account's."""

    def __init__(self, defined: DefinedListener) -> None:
        super().__init__(defined.name, defined.definitions, [topic.exchange for topic in defined.topics])

    def results(self, notification: Notification) -> Iterator[DefinitionResult]:
        """Yield the result of each definition."""
        for result in super().results(notification):
            yield replace(result, samples=tuple(map(_with_project, result.samples)))


def _with_project(sample: Sample) -> Sample:
    if sample.project_id is not None or "/" in sample.resource_id:
        return sample
    return replace(sample, project_id=sample.resource_id, user_id=None)
