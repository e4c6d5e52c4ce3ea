"""Upgrades of a running site from an earlier commit, and restores of its database: run by ``make upgrade-check``.

A site of the fault campaign (:mod:`tests.chaos.site`) runs with daemons of the earlier version; they are replaced one after another, under load.
Nothing may be lost or doubled, and questions about the past must have the same answers before, in between and afterwards.
"""
