"""Listeners to Swift, the object store."""

from meter.declarative.notifications import built_in
from meter.listeners.swift.objectstore import ObjectStoreListener

__all__ = ["objectstore_listener"]

objectstore_listener = ObjectStoreListener(built_in(__file__, "objectstore"))
