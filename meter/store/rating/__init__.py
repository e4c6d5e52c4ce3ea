"""The rating of the store: kept usage, closed statements, budgets and waiting webhooks."""
