"""``meter-rate``: checks the price book, prices a wish, and previews, closes, verifies and exports statements.

:mod:`~meter.commands.rate.command` has the list of subcommands. Each has a module with its options and its work, and a line there.
"""
