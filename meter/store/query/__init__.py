"""Queries: from the records of :mod:`meter.query` to SQL and back."""
