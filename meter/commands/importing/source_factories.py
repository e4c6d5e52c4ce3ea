"""A factory of the source for each subcommand of ``meter-import``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.python import usage

from meter.commands.command import CommandError
from meter.commands.command import unreadable
from meter.commands.importing.ceilometer_tables import CeilometerTables
from meter.commands.importing.gnocchi_csv import GnocchiCsv
from meter.commands.importing.gnocchi_metrics import GnocchiMetrics
from meter.commands.importing.import_options import check_aggregation
from meter.commands.importing.import_source import ImportSource
from meter.commands.importing.meter_types import MeterTypes
from meter.commands.importing.meter_types import UnknownMeter
from meter.commands.importing.service_access import keystone_access
from meter.commands.importing.service_access import plain_client
from meter.commands.importing.service_client import BasicAuthentication
from meter.commands.importing.service_client import ServiceClient
from meter.http.client import without_userinfo
from meter.settings import Config

SERVICE = "metric"
"""The type of Gnocchi in Keystone's catalogue."""

REFUSAL = "Gnocchi does not let this user read all metrics; an administrator may"

CATALOGUE = "Keystone's catalogue"
"""What stands for the URL of a Gnocchi that the catalogue names."""


def ceilometer_source(reactor: Any, config: Config, options: Any) -> CeilometerTables:
    """Return the source of the subcommand ``ceilometer``."""
    return CeilometerTables(
        reactor,
        options["url"],
        options["selection"],
        interval_seconds=options["interval"],
        password=_password(options["password-file"]),
    )


def gnocchi_source(reactor: Any, config: Config, options: Any) -> GnocchiMetrics:
    """Return the source of the subcommand ``gnocchi``."""
    return GnocchiMetrics(
        _gnocchi_client(reactor, config, options),
        options["selection"],
        MeterTypes(options["types"]),
        url=without_userinfo(options["url"]) or CATALOGUE,
        creators=options["creators"],
        granularity_seconds=options["granularity"],
    )


def gnocchi_csv_source(reactor: Any, config: Config, options: Any) -> GnocchiCsv:
    """Return the source of the subcommand ``gnocchi-csv``."""
    try:
        kind = MeterTypes({}).of(options["meter"]) if options["type"] is None else options["type"]
        check_aggregation(kind, options["aggregation"])
    except UnknownMeter as error:
        raise CommandError(f"no plugin declares the type of {options['meter']}: give --type") from error
    except usage.UsageError as error:
        raise CommandError(str(error)) from error
    return GnocchiCsv(
        Path(options["file"]),
        options["selection"],
        name=options["meter"],
        type=kind,
        unit=options["unit"],
        resource_id=options["resource"],
        project_id=options["project"],
        user_id=options["user"],
        aggregation=options["aggregation"],
        granularity_seconds=options["granularity"],
    )


SOURCE_FACTORIES: dict[str, Callable[[Any, Config, Any], ImportSource]] = {
    "ceilometer": ceilometer_source,
    "gnocchi": gnocchi_source,
    "gnocchi-csv": gnocchi_csv_source,
}
"""By the name of the subcommand."""


def _gnocchi_client(reactor: Any, config: Config, options: Any) -> ServiceClient:
    if options["user"] is not None:
        http = plain_client(reactor, config, command="gnocchi", timeout_seconds=options["timeout"])
        basic = BasicAuthentication(options["url"], options["user"], _password(options["password-file"]))
        return ServiceClient(http, basic, refusal=REFUSAL)
    return ServiceClient(
        *keystone_access(
            reactor,
            config,
            command="gnocchi",
            service=SERVICE,
            url=options["url"],
            timeout_seconds=options["timeout"],
            instead="--user",
        ),
        refusal=REFUSAL,
    )


def _password(path: str | None) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n") if path else ""
    except (OSError, ValueError) as error:
        raise CommandError(f"--password-file {path} cannot be read: {unreadable(error)}") from error
