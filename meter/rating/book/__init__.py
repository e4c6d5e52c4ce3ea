"""The price book: accounts, SKUs, prices, charges and budgets, read from TOML files."""
