"""Private servers for tests, each a plugin of pytest with one fixture."""
