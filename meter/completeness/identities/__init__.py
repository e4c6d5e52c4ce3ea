"""Histories of the names of projects, domains and users."""
