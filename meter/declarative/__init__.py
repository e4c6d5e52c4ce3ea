"""Plugins defined in files: notification definitions and REST pollsters."""
