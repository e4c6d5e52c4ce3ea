"""Listeners to Glance, the image service."""

from meter.declarative.notifications import built_in

__all__ = ["image_listener"]

image_listener = built_in(__file__, "image")
