"""Packaging of Meter: everything is in ``pyproject.toml``."""

from setuptools import setup

setup()
