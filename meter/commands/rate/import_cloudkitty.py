"""``meter-rate import-cloudkitty``: a price book that costs what the rules of CloudKitty's HashMap cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.python import usage

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.rate.cloudkitty_rules import cloudkitty_client
from meter.commands.rate.cloudkitty_rules import read_api
from meter.commands.rate.cloudkitty_rules import read_file
from meter.commands.rate.subcommand import Output
from meter.commands.rate.subcommand import RateContext
from meter.commands.rate.subcommand import RateOptions
from meter.http.client import without_userinfo
from meter.rating.book.price_directory import check_directory
from meter.rating.hashmap.book_file import BookFile
from meter.rating.hashmap.book_file import BookSettings
from meter.rating.hashmap.book_file import book_file
from meter.rating.hashmap.metered_services import BadServices
from meter.rating.hashmap.metered_services import metered_services
from meter.rating.hashmap.rules import BadRules
from meter.rating.hashmap.rules import rule_groups

CATALOGUE = "CloudKitty's API"
MAX_PERIOD_SECONDS = 31 * 86400
MAX_TIMEOUT_SECONDS = 3600


class ImportCloudkittyOptions(RateOptions):
    """The options of ``import-cloudkitty``."""

    synopsis = "--currency CODE [--url URL | --rules FILE] [options] OUTPUT.toml"
    longdesc = (
        "OUTPUT.toml is the new file of a price directory. The rules are read from CloudKitty's API, with a token of Keystone as"
        " clouds.yaml (OS_CLOUD) or the other OS_* variables say. Exit status 1 if a rule is left out."
    )
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["currency", None, None, "Currency of CloudKitty's costs, such as EUR."],
        ["timezone", None, "UTC", "Time zone of the book."],
        ["book", None, "cloudkitty", "Name of the book."],
        ["issuer", None, "", "Issuer of the statements."],
        ["url", None, "", "URL of CloudKitty's API. [default: as Keystone's catalogue says]"],
        ["rules", None, None, "File with the answers of CloudKitty's API, which --save has written."],
        ["save", None, None, "Write the answers of the API to this new file."],
        ["services", None, None, "File that says how services are measured that Meter does not know."],
        ["period", None, "3600", "CloudKitty's [collect] period, in seconds."],
        ["timeout", None, "60", "Seconds that CloudKitty may take for an answer."],
    ]
    optFlags = [["no-auth", None, "Ask a CloudKitty with auth_strategy = noauth; needs --url."]]  # noqa: N815, RUF012

    def parseArgs(self, *outputs: str) -> None:
        """Take the file to write."""
        if len(outputs) != 1 or not outputs[0].endswith(".toml"):
            raise usage.UsageError("import-cloudkitty: give the new file of the price directory, OUTPUT.toml")
        self["output"] = outputs[0]

    def postOptions(self) -> None:
        """Require a currency, and one source."""
        if self["currency"] is None:
            raise usage.UsageError("import-cloudkitty: give --currency: CloudKitty's costs have none")
        if self["rules"] is not None and (self["url"] or self["save"] or self["no-auth"]):
            raise usage.UsageError(
                "import-cloudkitty: --rules reads a file; --url, --no-auth and --save are for the API"
            )
        if self["url"] and not self["url"].startswith(("http://", "https://")):
            raise usage.UsageError("import-cloudkitty: --url must begin with http:// or https://")
        if self["no-auth"] and not self["url"]:
            raise usage.UsageError("import-cloudkitty: --no-auth needs --url")
        for name, most in (("period", MAX_PERIOD_SECONDS), ("timeout", MAX_TIMEOUT_SECONDS)):
            text = self[name]
            if not (text.isascii() and text.isdecimal() and len(text) < 10 and 0 < int(text) <= most):
                raise usage.UsageError(
                    f"import-cloudkitty: --{name} must be a whole number from 1 to {most}, in seconds"
                )
            self[name] = int(text)
        self["url"] = self["url"].rstrip("/").removesuffix("/v1").removesuffix("/v2")


async def work(context: RateContext, options: Any) -> int:
    """Write the file, and what it has and lacks; return the exit status."""
    output = _new_file(options["output"])
    document = read_file(Path(options["rules"])) if options["rules"] else await _asked(context, options)
    now = context.now().astimezone(UTC).replace(tzinfo=None)
    settings = BookSettings(
        name=options["book"],
        currency=options["currency"],
        timezone=options["timezone"],
        issuer=options["issuer"],
        period_seconds=options["period"],
    )
    source = options["rules"] or without_userinfo(options["url"]) or CATALOGUE
    try:
        services = metered_services(Path(options["services"]) if options["services"] else None)
        made = book_file(rule_groups(document, now), services, settings, source=source, at=now)
    except BadRules as error:
        raise CommandError(f"{source}: these are not the rules of HashMap: {error}") from error
    except BadServices as error:
        raise CommandError(str(error)) from error
    _check(made.text)
    _write_new(output, made.text)
    Output(bool(options["json"])).write(_objects(made), _lines(made, output))
    return EXIT_FOUND_PROBLEMS if made.left_out else EXIT_OK


def _new_file(name: str) -> Path:
    if Path(name).exists():
        raise CommandError(f"{name} exists already: give a new file")
    return Path(name)


async def _asked(context: RateContext, options: Any) -> Any:
    client = cloudkitty_client(
        context.reactor,
        context.config,
        url=options["url"],
        authenticate=not options["no-auth"],
        timeout=options["timeout"],
    )
    document = await read_api(client)
    if options["save"]:
        _write_new(Path(options["save"]), json.dumps(document, indent=1, sort_keys=True) + "\n")
    return document


def _check(text: str) -> None:
    """Raise :class:`CommandError` if the file would not be accepted, as with a currency that does not exist."""
    with TemporaryDirectory() as directory:
        (Path(directory) / "book.toml").write_text(text, encoding="utf-8")
        problems = [str(each) for each in check_directory(Path(directory)).problems if not each.warning]
    if problems:
        raise CommandError("the price book would be wrong:\n" + "\n".join(problems[:20]))


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from error


def _objects(made: BookFile) -> Iterator[dict[str, Any]]:
    for sku, prices in made.prices.items():
        yield {"sku": sku, "prices": prices}
    for each in made.left_out:
        yield {"left_out": each.service, "group": each.group, "reasons": each.reasons}


def _lines(made: BookFile, output: Path) -> Iterator[str]:
    for sku, prices in made.prices.items():
        yield f"SKU {sku}: {prices} price{'s' if prices != 1 else ''}"
    yield from map(str, made.left_out)
    yield f"{output} has {len(made.prices)} SKUs; {len(made.left_out)} services or groups are left out"
