"""``meter-rate webhooks``: webhooks that wait or have failed; sends them again, or discards them."""

from __future__ import annotations

from typing import Any

from twisted.python import usage

from meter.audit_record import Record
from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.operator import REASON
from meter.commands.operator import UNRECORDED
from meter.commands.operator import WHO
from meter.commands.rate.subcommand import Output
from meter.commands.rate.subcommand import RateContext
from meter.commands.rate.subcommand import RateOptions
from meter.rating.budgets.budget_store import IBudgetStore
from meter.rating.budgets.budget_store import WaitingWebhook
from meter.rating.budgets.webhook_delivery import RETRY_FOR
from meter.sample import utc_text

MAX_WEBHOOKS = 100_000

RECORDED_WEBHOOKS = 100
"""Webhooks that one entry of the audit log is about at most."""

ACTIONS = ("list", "retry", "discard")


class WebhookOptions(RateOptions):
    """The options of ``webhooks``."""

    synopsis = "list | retry ID... | discard ID... [--failed] [--target NAME] [--reason TEXT] [--json]"
    optParameters = [["target", "t", None, "Only webhooks to this target."], REASON, WHO]  # noqa: N815, RUF012  # Twisted reads it so
    optFlags = [  # noqa: N815, RUF012
        ["failed", None, "Only webhooks that have failed: without ids, all of them."],
        UNRECORDED,
    ]

    def parseArgs(self, action: str = "list", *ids: str) -> None:
        """Take an action, and the ids of webhooks."""
        if action not in ACTIONS:
            raise usage.UsageError(f"unknown action {action!r}: use {', '.join(ACTIONS)}")
        self["action"], self["ids"] = action, ids

    def postOptions(self) -> None:
        """Require that an action that changes something names what it changes."""
        if self["action"] != "list" and not (self["ids"] or self["failed"] or self["target"]):
            raise usage.UsageError(f"{self['action']} needs ids, --failed or --target")


async def work(context: RateContext, options: Any) -> int:
    """Do what the options say and write the webhooks concerned; return the exit status."""
    async with context.store() as store:
        budgets = store.rating.budgets
        chosen = [each for each in await budgets.webhooks(MAX_WEBHOOKS) if _is_chosen(each, options)]
        if options["action"] != "list" and chosen:
            async with context.recorder(options) as record:
                chosen = await _change(budgets, chosen, options["action"], context, record)
    Output(bool(options["json"])).write(
        [webhook_json(each) for each in chosen], [webhook_line(each) for each in chosen] or ["no webhooks"]
    )
    missing = set(options["ids"]) - {each.id for each in chosen}
    return EXIT_FOUND_PROBLEMS if missing else EXIT_OK


def _is_chosen(webhook: WaitingWebhook, options: Any) -> bool:
    return (
        (not options["ids"] or webhook.id in options["ids"])
        and (not options["failed"] or webhook.next_attempt_at is None)
        and options["target"] in (None, webhook.target)
    )


async def _change(
    budgets: IBudgetStore, chosen: list[WaitingWebhook], action: str, context: RateContext, record: Record
) -> list[WaitingWebhook]:
    """Send webhooks again or discard them, after that is recorded; return those that were still there."""
    changed: set[str] = set()
    for start in range(0, len(chosen), RECORDED_WEBHOOKS):
        some = chosen[start : start + RECORDED_WEBHOOKS]
        ids, now = [each.id for each in some], context.now()
        webhooks = [
            {"id": each.id, "target": each.target, "created_at": utc_text(each.created_at), "state": _state(each)}
            for each in some
        ]
        await record(f"webhook.{action}", {"webhooks": webhooks})
        if action == "discard":
            changed.update(await budgets.discard_webhooks(ids))
        else:
            changed.update(await budgets.retry_webhooks(ids, now, now + RETRY_FOR))
    return [each for each in chosen if each.id in changed]


def webhook_json(webhook: WaitingWebhook) -> dict[str, Any]:
    """Return a webhook for JSON; its body is the text that is sent."""
    return {
        "id": webhook.id,
        "target": webhook.target,
        "state": _state(webhook),
        "created_at": utc_text(webhook.created_at),
        "next_attempt_at": None if webhook.next_attempt_at is None else utc_text(webhook.next_attempt_at),
        "attempts": webhook.attempts,
        "last_error": webhook.last_error,
        "body": webhook.body.decode(errors="replace"),
    }


def webhook_line(webhook: WaitingWebhook) -> str:
    """Return a line about a webhook."""
    due = "" if webhook.next_attempt_at is None else f", next attempt {utc_text(webhook.next_attempt_at)}"
    error = f": {webhook.last_error}" if webhook.last_error else ""
    created = utc_text(webhook.created_at)
    return (
        f"{webhook.id} to {webhook.target}, {_state(webhook)} since {created}, {webhook.attempts} attempts{due}{error}"
    )


def _state(webhook: WaitingWebhook) -> str:
    return "failed" if webhook.next_attempt_at is None else "waiting"
