"""The store: samples in PostgreSQL. The only code that knows SQL, txpostgres and psycopg2.

:class:`PostgresStore` is what daemons use. :mod:`meter.store.embedded` runs a PostgreSQL of one's own for it.
:mod:`meter.store.verification` reads what is stored for ``meter-verify``,
:mod:`meter.store.administration` describes the database for ``meter-db``.
"""

from meter.store.administration import Administration
from meter.store.embedded import EmbeddedPostgres
from meter.store.embedded import embedded_directory
from meter.store.keeping import Retention
from meter.store.store import PostgresStore
from meter.store.verification import StoredRow
from meter.store.verification import Verification

__all__ = [
    "Administration",
    "EmbeddedPostgres",
    "PostgresStore",
    "Retention",
    "StoredRow",
    "Verification",
    "embedded_directory",
]
