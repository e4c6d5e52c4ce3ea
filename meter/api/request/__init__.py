"""Requests: parameters, filters and bodies, parsed and checked."""
