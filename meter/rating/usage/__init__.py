"""Usage: the quantity of each resource, SKU and day, computed exactly from a store."""
