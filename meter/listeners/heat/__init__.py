"""Listeners to Heat, the orchestration service."""

from meter.declarative.notifications import built_in

__all__ = ["stack_listener"]

stack_listener = built_in(__file__, "stack")
