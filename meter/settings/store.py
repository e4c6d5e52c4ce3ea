"""The settings of the data store."""

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
        description='A PostgreSQL URL, or "embedded:DIRECTORY"; twistd meter embeds one under state_dir by default.',
    )
    dsn_file: str = Field(default="", description="A file that holds the DSN, instead of dsn.")
    readers: Count = Field(default=4, description="Connections that answer questions.")
    longest_wait_seconds: Seconds = Field(
        default=10.0, description="While all readers are busy a question waits so long, then it is to be asked again."
    )
    writers: Count = Field(default=2, description="Connections that write samples.")
    statement_timeout_seconds: Seconds = Field(
        default=30.0, description="A question that takes longer is given up and answered with an error."
    )
    replica_dsn: SecretStr = Field(
        default=SecretStr(""), description="A read replica that answers the questions of the API, instead of dsn."
    )
    retention_days: Days = Field(
        default=0.0, description="Samples are kept so long, in whole weeks; 0 is for ever. Rollups stay."
    )
    retention_days_by_meter: dict[str, Days] = Field(
        default_factory=dict,
        description='Meters that are kept less long, by shell pattern, the first that fits: { "disk.*" = 30.0 }.',
    )
    rollup_retention_days: Days = Field(
        default=0.0,
        description="What hours and days amounted to is kept so long, and as long as their samples; 0 is for ever.",
    )
    finalize_after_seconds: Seconds = Field(
        default=900.0, description="An hour is added up so long after its end, and again whenever a sample comes late."
    )
