"""Listeners to the notifier middleware in the pipelines of the services."""

from meter.declarative.notifications import built_in

__all__ = ["http_listener"]

http_listener = built_in(__file__, "http")
