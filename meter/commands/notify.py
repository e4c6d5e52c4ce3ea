"""``meter-notify``: publishes captured notifications, explains which samples they give, or replays archived ones."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.defer import maybeDeferred
from twisted.python import usage

from meter.agent.cycle import PluginContext
from meter.bus.amqp import AmqpBus
from meter.collector.conversion import NotificationConverter
from meter.collector.explain import ExplainedDefinition
from meter.collector.explain import Explanation
from meter.collector.explain import explain_notification
from meter.collector.explain import is_received
from meter.commands.captured_notifications import read_captured
from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.command import CommandOptions
from meter.commands.command import SubcommandOptions
from meter.commands.command import configuration
from meter.commands.command import escape_terminal
from meter.commands.command import run
from meter.commands.replay_archive import replay_archive
from meter.daemon.supervised import READY_SECONDS
from meter.daemon.supervised import wait_ready
from meter.declarative.notifications import load_user_definitions
from meter.declarative.notifications import without_redefined_meters
from meter.interfaces import Publication
from meter.interfaces import Topic
from meter.interfaces import Unavailable
from meter.plugins.registry import LISTENER
from meter.plugins.registry import Decision
from meter.plugins.registry import configure
from meter.plugins.registry import decide_now
from meter.plugins.registry import find
from meter.sample import utc_text
from meter.settings import Config
from meter.settings.config_file import keyring
from meter.settings.problems import ConfigError
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey


class PublishOptions(SubcommandOptions):
    """Which files to publish, and where to."""

    synopsis = "FILE …"
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["url", "u", None, "URL of the broker. [default: [bus] url of the configuration]"],
        ["exchange", "e", None, "Exchange to publish to. [default: the one in the file, else openstack]"],
        ["routing-key", "k", None, "Routing key. [default: the one in the file, else notifications.info]"],
    ]

    def parseArgs(self, *files: str) -> None:
        """Take the files."""
        if not files:
            raise usage.UsageError("publish: give at least one file")
        self["files"] = files


class ExplainOptions(SubcommandOptions):
    """Which files to explain."""

    synopsis = "FILE …"
    optFlags = [  # noqa: N815, RUF012
        ["json", None, "Print one JSON object per line: a sample and the definition that makes it, or a reason."]
    ]

    def parseArgs(self, *files: str) -> None:
        """Take the files."""
        if not files:
            raise usage.UsageError("explain: give at least one file")
        self["files"] = files


class ReplayArchiveOptions(SubcommandOptions):
    """Which archived notifications to replay."""

    optParameters = [  # noqa: N815, RUF012
        ["event-type", "t", "*", "Only this event type; * and ? are wildcards."],
        ["limit", "n", None, "Maximum number of notifications, oldest first.", int],
    ]
    optFlags = [["list", None, "List them without sending anything."]]  # noqa: N815, RUF012


class Options(CommandOptions):
    """The command line."""

    synopsis = "Usage: meter-notify [--config FILE] publish | explain FILE … | replay"
    longdesc = (
        "A FILE contains notifications as JSON: one, an array of them, or one per line; each without an envelope, in an "
        "oslo.messaging envelope, or as {exchange, routing_key, message}. - is the standard input."
    )
    subCommands = [  # noqa: N815, RUF012
        [
            "publish",
            None,
            PublishOptions,
            "Publish notifications, and print a line for each that the broker has confirmed.",
        ],
        [
            "explain",
            None,
            ExplainOptions,
            "Print the samples that the collector makes from them, and which definition makes each. Sends nothing.",
        ],
        [
            "replay",
            None,
            ReplayArchiveOptions,
            "Send archived notifications to the collector again; each is removed once the broker has confirmed it.",
        ],
    ]

    def postOptions(self) -> None:
        """Require a subcommand."""
        if self.subCommand is None:
            raise usage.UsageError("give a subcommand: publish, explain or replay")


def main() -> None:
    """Run ``meter-notify``."""
    run(Options(), sys.argv[1:], work)


async def work(reactor: Any, options: Any) -> int:
    """Run the subcommand; return the exit status."""
    config = configuration(options["config"])
    arguments = options.subOptions
    if options.subCommand == "replay":
        return await replay_archive(
            reactor,
            config.bus.url.get_secret_value(),
            event_type=arguments["event-type"],
            limit=arguments["limit"],
            only_list=bool(arguments["list"]),
        )
    captured = [(name, each) for name in arguments["files"] for each in read_captured(name)]
    if options.subCommand == "explain":
        return explain(captured, config, reactor, as_json=bool(arguments["json"]))
    url = arguments["url"] or config.bus.url.get_secret_value()
    if not url.startswith(("amqp://", "amqps://")):
        raise CommandError(
            f"--url, or [bus] url: should be the URL of a broker, such as amqp://user:password@host:5672/, not {url}"
        )
    return await publish(captured, reactor, url, exchange=arguments["exchange"], routing_key=arguments["routing-key"])


# --- publish -------------------------------------------------------------------------------------------------------


async def publish(
    captured: Sequence[tuple[str, Publication]],
    reactor: Any,
    url: str,
    *,
    exchange: str | None,
    routing_key: str | None,
) -> int:
    """Publish each and print a line for it; the status says whether all could be published.

    Raises :class:`Unavailable` at the first that the broker does not confirm.
    """
    status = EXIT_OK
    bus = AmqpBus(reactor, url, clock=reactor, name="meter-notify")
    bus.startService()
    try:
        await wait_ready(bus, reactor, seconds=READY_SECONDS, name="the broker")
        for name, each in captured:
            publication = Publication(
                exchange=exchange or each.exchange or "openstack",
                routing_key=routing_key or each.routing_key or "notifications.info",
                body=each.body,
            )
            try:
                await bus.publish(publication)
            except Unavailable as error:
                raise Unavailable(f"{name}: {error}") from error
            except ValueError as error:  # too large, or a header or routing key that AMQP does not allow
                status = EXIT_FOUND_PROBLEMS
                sys.stdout.write(escape_terminal(f"{name}: not published: {error}\n"))
                continue
            sys.stdout.write(
                escape_terminal(
                    f"{name}: published to exchange {publication.exchange} with routing key {publication.routing_key}\n"
                )
            )
    finally:
        await maybeDeferred(bus.stopService)
    return status


# --- explain -------------------------------------------------------------------------------------------------------


def explain(captured: Sequence[tuple[str, Publication]], config: Config, reactor: Any, *, as_json: bool) -> int:
    """Print the samples that the collector makes from each notification; the status says whether all give samples."""
    decisions = installed_listeners(config, reactor)
    active = [decision for decision in decisions if decision.state == "active"]
    topics = [*config.notifications.service_topics, *(topic for decision in active for topic in decision.plugin.topics)]
    try:
        keys = keyring(config, make=False)
    except ConfigError:
        # An operator who may not read the key can have notifications explained: what is signed here is not sent.
        keys = Keyring([SigningKey("default", os.urandom(32))])
    converter = NotificationConverter(
        active,
        keys,
        source=config.meter.source,
        unit_name=config.units.name_of,
        ignored_users=config.notifications.ignored_users,
    )
    status = EXIT_OK
    for name, publication in captured:
        explanation = explain_notification(publication.body, converter, decisions)
        if not any(result.messages for result in explanation.conversion.results):
            status = EXIT_FOUND_PROBLEMS
        lines = _json_lines(explanation) if as_json else _lines(name, publication, explanation, topics)
        sys.stdout.write("".join(escape_terminal(line) + "\n" for line in lines))
    return status


def installed_listeners(config: Config, reactor: Any) -> list[Decision]:
    """Return the decision about each installed listener, as the collector takes it; print problems of definitions."""
    user_defined, problems = load_user_definitions(config.notifications.definitions)
    for problem in problems:
        sys.stderr.write(escape_terminal(f"{problem}\n"))
    sections = {"pollsters": config.pollsters, "listeners": config.listeners}
    configured = configure([*find(), *user_defined], sections, config.plugins.disable)
    decisions = without_redefined_meters(configured.decisions, user_defined)
    context = PluginContext("meter-collector", config, reactor, {})
    return decide_now([decision for decision in decisions if decision.kind is LISTENER], context)


def _lines(name: str, publication: Publication, explanation: Explanation, topics: Sequence[Topic]) -> Iterator[str]:
    conversion = explanation.conversion
    notification = conversion.notification
    if notification is None:
        yield from (f"{name}: would be dead-lettered ({each.kind}): {each.reason}" for each in conversion.rejections)
        return
    yield f"{name}: {notification.event_type} from {notification.publisher_id}, {utc_text(notification.timestamp)}"
    if publication.exchange and not is_received(publication.exchange, publication.routing_key, topics):
        yield (
            f"  NOT RECEIVED: the collector's queue is not bound to exchange {publication.exchange} for"
            f" {publication.routing_key}; see [notifications] exchanges, topics and priorities"
        )
    if reason := _reason(explanation):
        yield f"  {reason}"
    for definition in explanation.definitions:
        for message in definition.messages:
            yield f"  {_sample_text(message)}  by {definition.origin}"
        if definition.reason:
            yield f"  {definition.listener}, {definition.origin}: {definition.reason}"
    for rejection in conversion.rejections:
        yield f"  would be dead-lettered ({rejection.kind}), because of {rejection.listener}: {rejection.reason}"
    for listener, why in explanation.inactive:
        yield f"  {listener} wants this event type but is not active: {why}"


def _reason(explanation: Explanation) -> str:
    """Return why no listener makes anything of the notification, or an empty text."""
    if explanation.conversion.outcome == "ignored":
        return "ignored: the request of one of [notifications] ignored_users"
    # A listener may match an event type that each of its definitions excludes.
    wanted = explanation.definitions or explanation.conversion.rejections
    return "" if wanted else "no listener wants this event type"


def _sample_text(message: Mapping[str, Any]) -> str:
    return (
        f"{message['counter_name']} = {message['counter_volume']} {message['counter_unit']} ({message['counter_type']})"
        f"  resource {message['resource_id']}  project {message['project_id'] or '-'}  user {message['user_id'] or '-'}"
    )


def _json_lines(explanation: Explanation) -> Iterator[str]:
    if reason := _reason(explanation):
        yield json.dumps({"reason": reason})
    for definition in explanation.definitions:
        for message in definition.messages:
            yield json.dumps(_sample_json(message, definition))
        if definition.reason:
            yield json.dumps(
                {"listener": definition.listener, "definition": definition.origin, "reason": definition.reason}
            )
    for rejection in explanation.conversion.rejections:
        yield json.dumps({"listener": rejection.listener, "dead_letter": rejection.kind, "reason": rejection.reason})


def _sample_json(message: Mapping[str, Any], definition: ExplainedDefinition) -> dict[str, Any]:
    return {
        "meter": message["counter_name"],
        "type": message["counter_type"],
        "volume": message["counter_volume"],
        "unit": message["counter_unit"],
        "resource_id": message["resource_id"],
        "project_id": message["project_id"],
        "user_id": message["user_id"],
        "timestamp": message["timestamp"],
        "metadata": msgspec.json.decode(message["resource_metadata"]),
        "message_id": message["message_id"],
        "listener": definition.listener,
        "definition": definition.origin,
    }


if __name__ == "__main__":
    main()
