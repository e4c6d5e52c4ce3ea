"""Maintenance of the store: partitions, rollups, retention, garbage collection, verification."""
