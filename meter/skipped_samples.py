"""What pollsters say about the samples that they did not make: counted in the metrics and told in cycle reports."""

from __future__ import annotations

from collections.abc import Collection

from zope.interface import Interface


class ISkippedSamples(Interface):
    """Takes what pollsters could not measure, and why a resource is not measured any more. Daemons that poll provide it.

    A series (meter and resource) that a successful poll does not measure any more is reported as *removed*: no more samples of it
    are expected. It is reported as *skipped* instead, and still expected, if the pollster names its resource or its project in
    :meth:`samples_skipped`.
    """

    def samples_skipped(
        plugin: str, reason: str, count: int = 1, resources: Collection[str] = (), projects: Collection[str] = ()
    ) -> None:
        """Count ``count`` samples that ``plugin`` skipped; ``reason`` is one of a few constants of the plugin.

        ``resources`` are the ids of resources that could not be measured although they may still exist, and ``projects`` those
        of projects whose resources could not be measured, as far as they are known.
        """

    def resources_ended(plugin: str, reason: str, resources: Collection[str]) -> None:
        """State why ``resources`` are not measured any more, in a word or a clause: ``gone``, ``migrated``."""

    def resources_unknown(plugin: str, reason: str) -> None:
        """State that something exists that could not be read, so that ``plugin`` does not know which resources it has.

        Until the next poll no series is removed that has not been measured since the daemon started.
        """
