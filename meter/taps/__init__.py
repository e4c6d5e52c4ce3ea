"""Composition roots: one module per daemon that puts its parts together, straight down. Nothing imports these.

Only here is the reactor imported, and only here does configuration become arguments.
"""
