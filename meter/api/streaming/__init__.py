"""Responses that are sent while they are made: exports and server-sent events."""
