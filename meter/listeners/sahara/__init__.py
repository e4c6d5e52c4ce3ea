"""Listeners to Sahara, the data processing service."""

from meter.declarative.notifications import built_in

__all__ = ["cluster_listener"]

cluster_listener = built_in(__file__, "cluster")
