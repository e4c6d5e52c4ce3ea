"""Listeners to Magnum, the container cluster service."""

from meter.declarative.notifications import built_in

__all__ = ["bay_listener"]

bay_listener = built_in(__file__, "bay")
