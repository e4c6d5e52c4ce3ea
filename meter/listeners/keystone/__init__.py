"""Listeners to Keystone, the identity service."""

from meter.declarative.notifications import built_in

__all__ = ["authenticate_listener", "identity_listener"]

identity_listener = built_in(__file__, "identity")
authenticate_listener = built_in(__file__, "authenticate")
