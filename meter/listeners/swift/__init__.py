"""Listeners to Swift, the object store."""

from meter.declarative.notifications import built_in

__all__ = ["objectstore_listener"]

objectstore_listener = built_in(__file__, "objectstore")
