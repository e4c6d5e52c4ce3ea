"""``meter-notify``: publishes captured notifications, or explains which samples they make, and what makes them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.python import usage

from meter.agent.cycle import PluginContext
from meter.bus.amqp import AmqpBus
from meter.collector.explain import Explanation
from meter.collector.explain import Maker
from meter.collector.explain import explained
from meter.collector.explain import is_heard
from meter.commands.captured_notifications import captures
from meter.commands.command import DONE
from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import CommandError
from meter.commands.command import CommandOptions
from meter.commands.command import configuration
from meter.commands.command import escape_terminal
from meter.commands.command import run
from meter.commands.replay_archive import replay_archive
from meter.daemon.services import sleep
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
from meter.sample import Sample
from meter.sample import utc_text
from meter.settings import Config

READY_SECONDS = 20.0
"""How long the broker may take to be ready."""


class PublishOptions(usage.Options):
    """What to publish, and where."""

    synopsis = "FILE …"
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["url", "u", None, "The broker. [default: [bus] url of the configuration]"],
        ["exchange", "e", None, "The exchange. [default: the one the file names, else openstack]"],
        ["routing-key", "k", None, "The routing key. [default: the one the file names, else notifications.info]"],
    ]

    def parseArgs(self, *files: str) -> None:
        """Take the files."""
        if not files:
            raise usage.UsageError("publish: name at least one file")
        self["files"] = files


class ExplainOptions(usage.Options):
    """What to explain."""

    synopsis = "FILE …"
    optFlags = [["json", None, "One JSON object a line: each sample, with the definition that makes it."]]  # noqa: N815, RUF012

    def parseArgs(self, *files: str) -> None:
        """Take the files."""
        if not files:
            raise usage.UsageError("explain: name at least one file")
        self["files"] = files


class ReplayOptions(usage.Options):
    """Which notifications of the archive to replay."""

    optParameters = [  # noqa: N815, RUF012
        ["event-type", "t", "*", "Only these: an event type with * and ?."],
        ["limit", "n", None, "At most so many, the oldest first.", int],
    ]
    optFlags = [["list", None, "Only list them; nothing is sent."]]  # noqa: N815, RUF012


class Options(CommandOptions):
    """What to do."""

    synopsis = "Usage: meter-notify [--config FILE] publish | explain FILE … | replay"
    longdesc = (
        "A FILE holds notifications as JSON: one, an array of them, or one a line; each bare, in its envelope, "
        "or as {exchange, routing_key, message}. - is the standard input."
    )
    subCommands = [  # noqa: N815, RUF012
        ["publish", None, PublishOptions, "Publish notifications; each is told when the broker has it in a queue."],
        [
            "explain",
            None,
            ExplainOptions,
            "Show which samples they make and which definition makes them. Sends nothing.",
        ],
        [
            "replay",
            None,
            ReplayOptions,
            "Send archived notifications that nobody wanted to the collector again; each is removed when it is safe there.",
        ],
    ]

    def postOptions(self) -> None:
        """Ask for a command."""
        if self.subCommand is None:
            raise usage.UsageError("say what to do: publish, explain or replay")


def main() -> None:
    """Run ``meter-notify``."""
    run(Options(), sys.argv[1:], work)


async def work(reactor: Any, options: Any) -> int:
    """Do what is asked."""
    config = configuration(options["config"])
    asked = options.subOptions
    if options.subCommand == "replay":
        return await replay_archive(
            reactor,
            config.bus.url.get_secret_value(),
            event_type=asked["event-type"],
            limit=asked["limit"],
            only_list=bool(asked["list"]),
        )
    captured = [(name, each) for name in asked["files"] for each in captures(name)]
    if options.subCommand == "explain":
        return explain(captured, config, reactor, as_json=bool(asked["json"]))
    url = asked["url"] or config.bus.url.get_secret_value()
    if not url.startswith(("amqp://", "amqps://")):
        raise CommandError(f"--url: {url} is no broker; name one, as amqp://user:password@host:5672/")
    return await publish(captured, reactor, url, exchange=asked["exchange"], routing_key=asked["routing-key"])


# --- publish -------------------------------------------------------------------------------------------------------


async def publish(
    captured: Sequence[tuple[str, Publication]],
    reactor: Any,
    url: str,
    *,
    exchange: str | None,
    routing_key: str | None,
) -> int:
    """Publish each and write a line for it; raises :class:`Unavailable` for the first that the broker does not take."""
    bus = AmqpBus(reactor, url, clock=reactor, name="meter-notify")
    bus.startService()
    try:
        deadline = reactor.seconds() + READY_SECONDS
        while not bus.readiness().ready:
            if reactor.seconds() > deadline:
                raise Unavailable(f"the broker: {bus.readiness().reason}")
            await sleep(reactor, 0.05)
        for name, each in captured:
            to = Publication(
                exchange=exchange or each.exchange or "openstack",
                routing_key=routing_key or each.routing_key or "notifications.info",
                body=each.body,
            )
            try:
                await bus.publish(to)
            except Unavailable as error:
                raise Unavailable(f"{name}: {error}") from error
            sys.stdout.write(escape_terminal(f"{name}: published on {to.exchange}, {to.routing_key}\n"))
    finally:
        await maybeDeferred(bus.stopService)
    return DONE


# --- explain -------------------------------------------------------------------------------------------------------


def explain(captured: Sequence[tuple[str, Publication]], config: Config, reactor: Any, *, as_json: bool) -> int:
    """Write what becomes of each; the status says whether all make samples."""
    decisions = installed(config, reactor)
    topics = [
        *config.notifications.service_topics,
        *(topic for each in decisions if each.state == "active" for topic in each.plugin.topics),
    ]
    status = DONE
    for name, each in captured:
        explanation = explained(each.body, decisions)
        if not any(maker.samples for maker in explanation.makers):
            status = EXIT_FOUND_PROBLEMS
        lines = _json_lines(explanation) if as_json else _lines(name, each, explanation, topics)
        sys.stdout.write("".join(escape_terminal(line) + "\n" for line in lines))
    return status


def installed(config: Config, reactor: Any) -> list[Decision]:
    """Return what is decided of every listener, as the collector would decide; tells what is wrong with definitions."""
    own, problems = load_user_definitions(config.notifications.definitions)
    for problem in problems:
        sys.stderr.write(escape_terminal(f"{problem}\n"))
    sections = {"pollsters": config.pollsters, "listeners": config.listeners}
    configured = configure([*find(), *own], sections, config.plugins.disable)
    decisions = [each for each in without_redefined_meters(configured.decisions, own) if each.kind is LISTENER]
    return decide_now(decisions, PluginContext("meter-collector", config, reactor, {}))


def _lines(name: str, published: Publication, explanation: Explanation, topics: Sequence[Topic]) -> Iterator[str]:
    said = explanation.notification
    if said is None:
        yield f"{name}: {explanation.reason}"
        return
    yield f"{name}: {said.event_type} from {said.publisher_id}, {utc_text(said.timestamp)}"
    if published.exchange and not is_heard(published.exchange, published.routing_key, topics):
        yield (
            f"  NOT HEARD: nothing is bound to exchange {published.exchange} for {published.routing_key}; "
            "see [notifications] exchanges, topics and priorities"
        )
    if not explanation.makers:
        yield "  no listener wants this event type"
    for maker in explanation.makers:
        for sample in maker.samples:
            yield f"  {_shown(sample)}  by {maker.origin}"
        if maker.reason:
            yield f"  {maker.listener}, {maker.origin}: {maker.reason}"
    for listener, reason in explanation.silent:
        yield f"  {listener} would want it: {reason}"


def _shown(sample: Sample) -> str:
    return (
        f"{sample.name} = {sample.volume} {sample.unit} ({sample.type})  resource {sample.resource_id}"
        f"  project {sample.project_id or '-'}  user {sample.user_id or '-'}"
    )


def _json_lines(explanation: Explanation) -> Iterator[str]:
    if explanation.notification is None or not explanation.makers:
        yield json.dumps({"reason": explanation.reason or "no listener wants this event type"})
    for maker in explanation.makers:
        for sample in maker.samples:
            yield json.dumps(_as_json(sample, maker))
        if maker.reason:
            yield json.dumps({"listener": maker.listener, "definition": maker.origin, "reason": maker.reason})


def _as_json(sample: Sample, maker: Maker) -> dict[str, Any]:
    return {
        "meter": sample.name,
        "type": sample.type,
        "volume": sample.volume,
        "unit": sample.unit,
        "resource_id": sample.resource_id,
        "project_id": sample.project_id,
        "user_id": sample.user_id,
        "timestamp": utc_text(sample.timestamp),
        "metadata": sample.resource_metadata,
        "message_id": sample.message_id,
        "listener": maker.listener,
        "definition": maker.origin,
    }


if __name__ == "__main__":
    main()
