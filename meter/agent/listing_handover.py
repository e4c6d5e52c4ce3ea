"""Whose list of series is the newest of each pollster, as leaders of an election tell each other with their checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

from meter.cycle_report import SucceededListing


class ListingHandover:
    """What an agent with the name ``agent``, ``daemon@host``, knows of the lists of earlier leaders.

    A new leader *succeeds* the list of another agent with its own first list of all series of the pollster; until then, whoever
    leads next has to succeed the other agent's.
    """

    def __init__(self, agent: str) -> None:
        self._agent = agent
        self._listings: dict[str, SucceededListing] = {}

    @property
    def listings(self) -> Mapping[str, SucceededListing]:
        """The newest list of each pollster, by its name: what the checkpoint of a leader contains."""
        return dict(self._listings)

    def received(self, listings: Mapping[str, SucceededListing]) -> None:
        """Take the lists that the checkpoint of another leader contains."""
        self._listings |= listings

    def predecessor(self, pollster: str) -> SucceededListing | None:
        """Return the list of another agent that the next list of all series succeeds, if there is one."""
        listing = self._listings.get(pollster)
        return None if listing is None or listing.agent == self._agent else listing

    def listed(self, pollster: str, due: str) -> None:
        """Take a list of this agent, which is on disk, in the report of the cycle at ``due``."""
        self._listings[pollster] = SucceededListing(self._agent, due)
