"""``meter-doctor``: checks a whole installation, and says at which step the samples of a resource stop.

:mod:`~meter.commands.doctor.checks` has the list of checks; the modules with the names of their subjects collect what there is to
know and judge it. ``meter-doctor why`` is :mod:`~meter.commands.doctor.why`.
"""
