"""The store: samples in PostgreSQL. The only code that knows SQL, txpostgres and psycopg2.

:class:`PostgresStore` is what daemons use. :mod:`meter.store.embedded` runs a PostgreSQL of one's own for it.
"""

from meter.store.embedded import EmbeddedPostgres
from meter.store.embedded import embedded_directory
from meter.store.store import PostgresStore

__all__ = ["EmbeddedPostgres", "PostgresStore", "embedded_directory"]
