"""Plugins: which are installed, how they are configured and validated, and which of them are active."""
