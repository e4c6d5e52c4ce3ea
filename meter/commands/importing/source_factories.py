"""A factory of the source for each subcommand of ``meter-import``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.python import usage

from meter.commands.command import CommandError
from meter.commands.importing.ceilometer_tables import CeilometerTables
from meter.commands.importing.gnocchi_client import BasicAuthentication
from meter.commands.importing.gnocchi_client import GnocchiClient
from meter.commands.importing.gnocchi_client import KeystoneAuthentication
from meter.commands.importing.gnocchi_csv import GnocchiCsv
from meter.commands.importing.gnocchi_metrics import GnocchiMetrics
from meter.commands.importing.import_options import check_aggregation
from meter.commands.importing.import_source import ImportSource
from meter.commands.importing.meter_types import MeterTypes
from meter.commands.importing.meter_types import UnknownMeter
from meter.http import BadTlsFile
from meter.http import TlsOptions
from meter.http.client import without_userinfo
from meter.http.factory import create_client
from meter.openstack import Keystone
from meter.openstack.credentials import BadCredentials
from meter.openstack.credentials import clouds_files
from meter.openstack.credentials import from_clouds
from meter.openstack.credentials import from_variables
from meter.settings import Config

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


def _gnocchi_client(reactor: Any, config: Config, options: Any) -> GnocchiClient:
    settings = config.openstack
    tls = TlsOptions(
        ca_file=settings.ca_file, cert_file=settings.cert_file, key_file=settings.key_file, insecure=settings.insecure
    )
    limits = {"timeout_seconds": options["timeout"], "max_body_bytes": settings.max_body_bytes}
    try:
        if options["user"] is not None:
            basic = BasicAuthentication(options["url"], options["user"], _password(options["password-file"]))
            return GnocchiClient(create_client(reactor, tls, **limits), basic)
        name = settings.cloud or os.environ.get("OS_CLOUD", "")
        found = (
            from_clouds(name, clouds_files(os.environ, settings.clouds_file)) if name else from_variables(os.environ)
        )
        if found is None:
            raise CommandError(
                "gnocchi: set OS_CLOUD, or the other OS_* variables of OpenStack's clients, or give --user"
            )
        http = create_client(reactor, found.tls if tls == TlsOptions() else tls, **limits)
    except (BadCredentials, BadTlsFile) as error:
        raise CommandError(f"gnocchi: {error}") from error
    keystone = Keystone(http.send, found.credentials, reactor)
    return GnocchiClient(
        http,
        KeystoneAuthentication(
            keystone,
            options["url"],
            interface=settings.interface or found.interface,
            region=settings.region or found.region,
        ),
    )


def _password(path: str | None) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n") if path else ""
    except (OSError, ValueError) as error:
        raise CommandError(f"--password-file {path} cannot be read: {error}") from error
