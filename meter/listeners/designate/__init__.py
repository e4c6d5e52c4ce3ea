"""Listeners to Designate, the name service."""

from meter.declarative.notifications import built_in

__all__ = ["domain_listener"]

domain_listener = built_in(__file__, "domain")
