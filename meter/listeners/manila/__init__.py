"""Listeners to Manila, the file share service."""

from meter.declarative.notifications import built_in

__all__ = ["share_listener"]

share_listener = built_in(__file__, "share")
