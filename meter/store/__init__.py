"""The store: samples in PostgreSQL. The only code that knows SQL, txpostgres and psycopg2.

:class:`PostgresStore` is what daemons use. :mod:`meter.store.postgres.embedded` runs a PostgreSQL of one's own for it.
:mod:`meter.store.maintenance.verification` reads what is stored for ``meter-verify``,
:mod:`meter.store.maintenance.administration` describes the database for ``meter-db``.
"""

from meter.store.maintenance.administration import Administration
from meter.store.maintenance.maintenance import Retention
from meter.store.maintenance.verification import StoredRow
from meter.store.maintenance.verification import Verification
from meter.store.postgres.embedded import EmbeddedPostgres
from meter.store.postgres.embedded import embedded_directory
from meter.store.store import PostgresStore

__all__ = [
    "Administration",
    "EmbeddedPostgres",
    "PostgresStore",
    "Retention",
    "StoredRow",
    "Verification",
    "embedded_directory",
]
