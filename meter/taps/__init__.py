"""Composition roots: one module per daemon, which creates its parts and connects them. No other module imports these.

Only this package imports the reactor, and only it passes configuration values to constructors.
"""
