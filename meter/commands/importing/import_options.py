"""The command line of ``meter-import``."""

from __future__ import annotations

from typing import Any
from typing import get_args

from twisted.python import usage

from meter.commands.command import CommandOptions
from meter.commands.command import SubcommandOptions
from meter.commands.importing.gnocchi_points import AGGREGATIONS
from meter.commands.importing.gnocchi_points import MAX_GRANULARITY_SECONDS
from meter.commands.importing.import_source import ImportSelection
from meter.commands.importing.meter_types import BadMeterTypes
from meter.commands.importing.meter_types import parse_types
from meter.commands.operator import REASON
from meter.commands.operator import UNRECORDED
from meter.commands.operator import WHO
from meter.counter_runs import MAX_INTERVAL
from meter.message import BadMessage
from meter.message import parse_timestamp
from meter.sample import SampleType

DEFAULT_RATE = 2000.0


class _ImportOptions(SubcommandOptions):
    """What the sources have in common."""

    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        [
            "until",
            None,
            None,
            "Import samples with an earlier timestamp, such as 2026-11-22T17:00 (UTC): when Meter's own agents began.",
        ],
        ["since", None, None, "Import samples with this timestamp or a later one. [default: all]"],
        ["meter", "m", None, "Only meters that match this pattern (* and ?); several are separated by commas."],
        ["rate", None, DEFAULT_RATE, "Samples that are sent in a second, at most; 0 does not limit it.", float],
        ["state", None, "meter-import.state", "File that keeps how far the import is."],
        [
            "rejected",
            None,
            "meter-import.rejected",
            "File to which records that are not imported are added, with the reason.",
        ],
        REASON,
        WHO,
    ]
    optFlags = [  # noqa: N815, RUF012
        ["dry-run", "n", "Say what would be imported, and what cannot be; send nothing."],
        [
            "restart",
            None,
            "Begin at the beginning, whatever the state says; samples that are stored already stay as they are.",
        ],
        ["json", None, "Write one JSON object."],
        UNRECORDED,
    ]

    def postOptions(self) -> None:
        """Parse times and patterns."""
        if self["until"] is None:
            raise usage.UsageError("give --until: the time at which Meter's own agents began to measure")
        try:
            until = parse_timestamp(self["until"], "--until")
            since = parse_timestamp(self["since"], "--since") if self["since"] else None
        except BadMessage as error:
            raise usage.UsageError(str(error)) from error
        if since is not None and since >= until:
            raise usage.UsageError("--since must be before --until")
        if self["rate"] < 0:
            raise usage.UsageError("--rate must not be negative")
        self["selection"] = ImportSelection(since, until, _listed(self["meter"]))


class CeilometerOptions(_ImportOptions):
    """The options of ``ceilometer``."""

    synopsis = "--until TIME [options] URL"
    longdesc = (
        "URL is that of the database, as in [database] connection of ceilometer.conf: mysql+pymysql://user@host/ceilometer,"
        " postgresql://user@host/ceilometer or sqlite:////path/of/ceilometer.sqlite."
    )
    optParameters = [  # noqa: N815, RUF012
        ["password-file", None, None, "File with the password of the database's user, if the URL has none."],
        ["interval", None, None, "Polling interval of the imported samples in seconds, if it was one for all.", float],
    ]

    def parseArgs(self, *urls: str) -> None:
        """Take the URL of the database."""
        if len(urls) != 1:
            raise usage.UsageError("ceilometer: give the URL of one database, after all options")
        [self["url"]] = urls

    def postOptions(self) -> None:
        """Parse the interval, too."""
        super().postOptions()
        if self["interval"] is not None and not 0 < self["interval"] <= MAX_INTERVAL:
            raise usage.UsageError(f"--interval must be more than 0 and at most {MAX_INTERVAL} seconds")


GRANULARITY = [
    "granularity",
    None,
    None,
    "Import points of this granularity in seconds. [default: the coarsest]",
    float,
]


class GnocchiOptions(_ImportOptions):
    """The options of ``gnocchi``."""

    synopsis = "--until TIME [options] [URL]"
    longdesc = (
        "URL is that of Gnocchi's API, by default its endpoint in Keystone's catalogue. A token is requested from Keystone as"
        " clouds.yaml (OS_CLOUD) or the other OS_* variables say; with --user Gnocchi is asked by basic authentication."
    )
    optParameters = [  # noqa: N815, RUF012
        GRANULARITY,
        [
            "creator",
            None,
            None,
            "Import only what this user has made, as Gnocchi names it, USER:PROJECT; several are separated by commas. [default: all, if it is one]",
        ],
        ["types", None, None, "Types of meters that no plugin declares: cpu_util=gauge,requests=delta"],
        ["user", None, None, "User of a Gnocchi with [api] auth_mode = basic; admin may read everything."],
        ["password-file", None, None, "File with the password of --user, if there is one."],
        ["timeout", None, 120.0, "Seconds that Gnocchi may take for an answer.", float],
    ]

    def parseArgs(self, *urls: str) -> None:
        """Take the URL of Gnocchi."""
        if len(urls) > 1:
            raise usage.UsageError("gnocchi: give at most one URL, after all options")
        self["url"] = urls[0].rstrip("/").removesuffix("/v1") if urls else ""
        if urls and not urls[0].startswith(("http://", "https://")):
            raise usage.UsageError("gnocchi: the URL must begin with http:// or https://")

    def postOptions(self) -> None:
        """Parse the types and creators, too."""
        super().postOptions()
        self["creators"] = _listed(self["creator"])
        _check_granularity(self)
        if self["user"] is not None and not self["url"]:
            raise usage.UsageError("gnocchi: --user needs the URL of Gnocchi")
        try:
            self["types"] = parse_types(self["types"])
        except BadMeterTypes as error:
            raise usage.UsageError(str(error)) from error


class GnocchiCsvOptions(_ImportOptions):
    """The options of ``gnocchi-csv``."""

    synopsis = "--until TIME --meter NAME --resource ID [options] FILE"
    longdesc = (
        "FILE was written by gnocchi measures show -f csv, of one metric. What the file does not say has to be given: what its"
        " points are about, with --meter as a name and not a pattern, and with which --aggregation they were asked for."
    )
    optParameters = [  # noqa: N815, RUF012
        GRANULARITY,
        ["resource", None, None, "The id of the resource, as Ceilometer had it."],
        ["project", None, None, "The id of the project that owned the resource."],
        ["user", None, None, "The id of the user of the resource."],
        ["unit", None, "", "The unit of the meter."],
        ["type", None, None, "The type of the meter: gauge, delta or cumulative. [default: as the plugins declare]"],
        ["aggregation", None, "mean", "The aggregation of the points."],
    ]

    def parseArgs(self, *files: str) -> None:
        """Take the file."""
        if len(files) != 1:
            raise usage.UsageError("gnocchi-csv: give one file, after all options")
        [self["file"]] = files

    def postOptions(self) -> None:
        """Require what the file does not say."""
        name = self["meter"]
        super().postOptions()
        _check_granularity(self)
        if not name or not self["resource"]:
            raise usage.UsageError("gnocchi-csv: give --meter and --resource")
        if self["type"] is not None and self["type"] not in get_args(SampleType):
            raise usage.UsageError("--type must be gauge, delta or cumulative")
        selection = self["selection"]
        self["selection"] = ImportSelection(selection.since, selection.until)


def check_aggregation(kind: SampleType, aggregation: str) -> None:
    """Raise ``UsageError`` if a meter of type ``kind`` cannot be imported from this aggregation."""
    if aggregation not in AGGREGATIONS[kind]:
        allowed = " or ".join(AGGREGATIONS[kind])
        raise usage.UsageError(f"a {kind} meter is imported from the aggregation {allowed}, not from {aggregation}")


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (each.strip() for each in (text or "").split(","))))


def _check_granularity(options: Any) -> None:
    if options["granularity"] is not None and not 0 < options["granularity"] <= MAX_GRANULARITY_SECONDS:
        raise usage.UsageError("--granularity must be more than 0 seconds, and less than a century")


class Options(CommandOptions):
    """The command line."""

    synopsis = "Usage: meter-import [--config FILE] ceilometer | gnocchi | gnocchi-csv"
    subCommands = [  # noqa: N815, RUF012
        ["ceilometer", None, CeilometerOptions, "Import the samples of Ceilometer's SQL storage, Juno to Ocata."],
        ["gnocchi", None, GnocchiOptions, "Import what Gnocchi keeps of all metrics, over its API."],
        ["gnocchi-csv", None, GnocchiCsvOptions, "Import points that gnocchi measures show -f csv has written."],
    ]

    def postOptions(self) -> None:
        """Require a subcommand."""
        if self.subCommand is None:
            raise usage.UsageError("give a subcommand: ceilometer, gnocchi or gnocchi-csv")
