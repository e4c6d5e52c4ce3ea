"""Installs Meter as its documentation says, on clean systems: long checks that are not part of ``make test``."""
