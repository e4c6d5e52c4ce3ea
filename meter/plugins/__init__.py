"""Plugins: discovery, validation, configuration and activation."""
