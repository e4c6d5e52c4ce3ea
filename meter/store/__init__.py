"""The store: samples in PostgreSQL. The only code that uses SQL, txpostgres and psycopg2.

Daemons use :class:`PostgresStore`, and :class:`EmbeddedPostgres` to run the database themselves. ``meter-verify`` uses
:class:`Verification`, ``meter-db`` and ``meter-audit`` use :class:`Administration`.
"""

from meter.store.audit.chain import Anchor
from meter.store.audit.chain import ChainVerifier
from meter.store.audit.log import MAX_REASON
from meter.store.maintenance.administration import Administration
from meter.store.maintenance.maintenance import Retention
from meter.store.maintenance.verification import StoredRow
from meter.store.maintenance.verification import Verification
from meter.store.maintenance.voiding import Act
from meter.store.maintenance.voiding import Selection
from meter.store.maintenance.voiding import UnexpectedCount
from meter.store.maintenance.voiding import Voiding
from meter.store.postgres.embedded import EmbeddedPostgres
from meter.store.postgres.embedded import embedded_directory
from meter.store.store import PostgresStore

__all__ = [
    "MAX_REASON",
    "Act",
    "Administration",
    "Anchor",
    "ChainVerifier",
    "EmbeddedPostgres",
    "PostgresStore",
    "Retention",
    "Selection",
    "StoredRow",
    "UnexpectedCount",
    "Verification",
    "Voiding",
    "embedded_directory",
]
