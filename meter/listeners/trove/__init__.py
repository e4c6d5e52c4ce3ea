"""Listeners to Trove, the database service."""

from meter.declarative.notifications import built_in

__all__ = ["instance_listener"]

instance_listener = built_in(__file__, "instance")
