"""Parsing and validation of requests: parameters, filters, times, markers and bodies."""
