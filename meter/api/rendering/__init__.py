"""The JSON shapes of responses."""
