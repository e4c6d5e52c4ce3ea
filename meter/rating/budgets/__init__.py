"""Budgets: what was used and is forecast against what was planned, and the webhooks that tell it."""
