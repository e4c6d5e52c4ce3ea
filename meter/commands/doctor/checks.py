"""The checks of ``meter-doctor``, in the order of the result."""

from __future__ import annotations

CHECKS: dict[str, str] = {
    "configuration": "the configuration file is valid for every daemon",
    "plugins": "every installed plugin can be loaded, and its settings are valid",
    "secrets": "no default or short secret, and no file of secrets that other users can read",
    "certificates": "no TLS certificate has ended or ends within 21 days: files, broker, database, Keystone",
    "status pages": "what the daemons of this host say in /readyz",
    "broker": "the broker can be reached, on all hosts of its URL, and its version",
    "permissions": "the broker's user may configure, write and read in the virtual host",
    "queues": "Meter's queues exist, are consumed, and are not long",
    "dead letters": "how many dead letters there are, by kind, with the commonest reason of each",
    "database": "the database can be reached, its version, and the version of the schema",
    "durability": "no setting of PostgreSQL with which a crash loses committed samples",
    "cluster": "all workers of a spread store answer, and have nothing in doubt; no spread is unfinished",
    "archive": "all archive servers answer, and have the weeks that were moved to them",
    "partitions": "this week and the next have a partition",
    "finalization": "all hours are final that can be, or which is the oldest that is not",
    "disk": "the size of the database, and room on its disk and on that of state_dir",
    "daemons": "which daemons are silent since when, are not ready, or logged an error within an hour",
    "versions": "all daemons and this command have the same version",
    "clocks": "the clocks of this host and of all daemons agree with the database's",
    "keys": "the keys that this host and all daemons sign with are known to every collector",
    "spools": "no spool is filling, has old messages, or is on a full disk",
}
"""What each check looks at, by its name."""
