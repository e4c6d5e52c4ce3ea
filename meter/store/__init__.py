"""The store: samples in PostgreSQL. The only code that uses SQL, txpostgres and psycopg2.

Daemons use :class:`PostgresStore`, and :class:`EmbeddedPostgres` to run the database themselves. ``meter-verify`` uses
:class:`Verification`, ``meter-db`` and ``meter-audit`` use :class:`Administration`, ``meter-token``
:class:`ApiTokenAdministration`, ``meter-doctor`` :class:`DatabaseInspection`.
"""

from meter.store.archive.archive_health import ArchiveHealth
from meter.store.archive.archive_health import listed
from meter.store.archive.archive_losses import UnexpectedLoss
from meter.store.archive.archive_losses import WeekLoss
from meter.store.archive.archive_servers import ArchiveReader
from meter.store.archive.archive_servers import ArchiveServerError
from meter.store.archive.archive_servers import archive_parameters
from meter.store.archive.archived_weeks import LostWeek
from meter.store.archive.archived_weeks import WeekIsArchived
from meter.store.archive.archiver import NotArchived
from meter.store.audit.chain import Anchor
from meter.store.audit.chain import ChainVerifier
from meter.store.audit.log import MAX_REASON
from meter.store.audit.void_statements import VoidedSamplesCheck
from meter.store.cluster.spreading import NotSpreadable
from meter.store.cluster.spreading_administration import SpreadingAdministration
from meter.store.cluster.unfinished_spread import UnfinishedSpread
from meter.store.cluster.workers import Cluster
from meter.store.cluster.workers import Worker
from meter.store.maintenance.administration import Administration
from meter.store.maintenance.archive_administration import ArchiveAdministration
from meter.store.maintenance.inspection import DatabaseInspection
from meter.store.maintenance.inspection import DatabaseServer
from meter.store.maintenance.inspection import HeartbeatRow
from meter.store.maintenance.inspection import PartitionState
from meter.store.maintenance.inspection import overdue
from meter.store.maintenance.ledger_retention import retained_days
from meter.store.maintenance.maintenance import Retention
from meter.store.maintenance.packing_administration import PackingAdministration
from meter.store.maintenance.retirement import NotRetirable
from meter.store.maintenance.sample_trace import SampleTrace
from meter.store.maintenance.sample_trace import TracedFailure
from meter.store.maintenance.sample_trace import TracedInactivity
from meter.store.maintenance.sample_trace import sample_trace
from meter.store.maintenance.schema_upgrade import SchemaUpgrade
from meter.store.maintenance.verification import BatchTimes
from meter.store.maintenance.verification import Verification
from meter.store.maintenance.voiding import Act
from meter.store.maintenance.voiding import Selection
from meter.store.maintenance.voiding import UnexpectedCount
from meter.store.maintenance.voiding import Voiding
from meter.store.packing.packer import NotVerified
from meter.store.postgres.connection import Rejected
from meter.store.postgres.embedded import EmbeddedPostgres
from meter.store.postgres.embedded import embedded_directory
from meter.store.query.stored_rows import BatchRows
from meter.store.query.stored_rows import StoredRow
from meter.store.store import PostgresStore
from meter.store.tokens.administration import MAX_VALID_TOKENS
from meter.store.tokens.administration import ApiTokenAdministration
from meter.store.tokens.administration import TooManyTokens
from meter.store.tokens.administration import UnknownToken
from meter.store.write.late_samples import LateSamples

__all__ = [
    "MAX_REASON",
    "MAX_VALID_TOKENS",
    "Act",
    "Administration",
    "Anchor",
    "ApiTokenAdministration",
    "ArchiveAdministration",
    "ArchiveHealth",
    "ArchiveReader",
    "ArchiveServerError",
    "BatchRows",
    "BatchTimes",
    "ChainVerifier",
    "Cluster",
    "DatabaseInspection",
    "DatabaseServer",
    "EmbeddedPostgres",
    "HeartbeatRow",
    "LateSamples",
    "LostWeek",
    "NotArchived",
    "NotRetirable",
    "NotSpreadable",
    "NotVerified",
    "PackingAdministration",
    "PartitionState",
    "PostgresStore",
    "Rejected",
    "Retention",
    "SampleTrace",
    "SchemaUpgrade",
    "Selection",
    "SpreadingAdministration",
    "StoredRow",
    "TooManyTokens",
    "TracedFailure",
    "TracedInactivity",
    "UnexpectedCount",
    "UnexpectedLoss",
    "UnfinishedSpread",
    "UnknownToken",
    "Verification",
    "VoidedSamplesCheck",
    "Voiding",
    "WeekIsArchived",
    "WeekLoss",
    "Worker",
    "archive_parameters",
    "embedded_directory",
    "listed",
    "overdue",
    "retained_days",
    "sample_trace",
]
