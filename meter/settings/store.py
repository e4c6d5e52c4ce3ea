"""Settings of the data store."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic import SecretStr

from meter.settings.section import Count
from meter.settings.section import Seconds
from meter.settings.section import Section

Days = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class StoreSection(Section):
    """The data store, PostgreSQL 14 or newer."""

    dsn: SecretStr = Field(
        default=SecretStr("postgresql://meter@127.0.0.1/meter"),
        description='PostgreSQL URL, or "embedded:DIRECTORY". The default of twistd meter is an embedded server in state_dir.',
    )
    dsn_file: str = Field(default="", description="File that contains the DSN, instead of dsn.")
    readers: Count = Field(default=4, description="Number of connections for queries.")
    max_wait_seconds: Seconds = Field(
        default=10.0,
        description="How long a query waits for a free connection, or for one of its share, before it fails with 503.",
    )
    writers: Count = Field(default=2, description="Number of connections that write samples.")
    maintain: bool = Field(
        default=True,
        description="Daemons that write samples also create and upgrade the schema, and maintain it: partitions, rollups, packing, retention. PostgreSQL permits that to the owner of the tables only. With false, a user that may read and write rows suffices; at least one collector has to maintain the schema (see docs/install.rst).",
    )
    statement_timeout_seconds: Seconds = Field(
        default=30.0,
        description="How long a query may run before it is cancelled and answered with an error, and how long a process that hangs keeps the locks of a transaction before PostgreSQL ends it.",
    )
    replica_dsn: SecretStr = Field(
        default=SecretStr(""), description="DSN of a read replica that answers the queries of the API, instead of dsn."
    )
    retention_days: Days = Field(
        default=0.0,
        description="Days for which samples are retained, in whole weeks; 0 retains them for ever. Rollups are retained longer, see rollup_retention_days.",
    )
    retention_days_by_meter: dict[str, Days] = Field(
        default_factory=dict,
        description='Shorter retention of single meters, by name pattern (* and ?); the first match applies: { "disk.*" = 30.0 }.',
    )
    rollup_retention_days: Days = Field(
        default=0.0,
        description="Days for which rollups (statistics of hours and days) are retained, but at least as long as their samples; 0 retains them for ever.",
    )
    pack_after_days: Days = Field(
        default=14.0,
        description="Days after the end of a week until its samples are packed, which takes less than a third of the space; 0 never packs.",
    )
    finalize_after_seconds: Seconds = Field(
        default=900.0,
        description="Delay after the end of an hour until its rollups are computed. After a late sample they are computed again.",
    )
