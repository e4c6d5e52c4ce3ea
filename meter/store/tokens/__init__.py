"""Tokens of the API in the database: how ``meter-token`` changes them, and how the API reads them."""
