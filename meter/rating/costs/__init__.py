"""Costs by day: what usage cost on each day, in sums and by resource, as clients of CloudKitty ask for it."""
