"""Plugins made of files: definitions of notifications, and of REST pollsters."""
