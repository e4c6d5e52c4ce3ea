"""``meter-rate budgets``: how much of each budget was used, as it was evaluated last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from meter.commands.command import EXIT_OK
from meter.commands.rate.subcommand import Output
from meter.commands.rate.subcommand import RateContext
from meter.commands.rate.subcommand import RateOptions
from meter.rating.budgets.budget_state import BudgetState
from meter.sample import utc_text

MAX_BUDGETS = 100_000


class BudgetOptions(RateOptions):
    """The options of ``budgets``."""

    synopsis = "[BUDGET] [--project ID] [--period 2026-11] [--json]"
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["project", "p", None, "Only budgets of this project."],
        ["period", None, None, "The period, such as 2026-11. [default: the newest of each budget]"],
    ]

    def parseArgs(self, budget: str | None = None) -> None:
        """Take the id of a budget."""
        self["budget"] = budget


async def work(context: RateContext, options: Any) -> int:
    """Write the states of budgets, one a line; return the exit status."""
    async with context.store() as store:
        states = await store.rating.budgets.states(
            options["project"], options["budget"], options["period"], MAX_BUDGETS
        )
    lines = [line for state in states for line in state_lines(state)]
    Output(bool(options["json"])).write([state_json(each) for each in states], lines or [NOTHING])
    return EXIT_OK


NOTHING = "no such budget was evaluated: the collector does that while [rating] price_directory is set"


def state_json(state: BudgetState) -> dict[str, Any]:
    """Return a state for JSON."""
    return {
        **msgspec.to_builtins(state),
        "left": str(state.left),
        "used_percent": None if state.used_percent is None else str(state.used_percent),
        "forecast_percent": None if state.forecast_percent is None else str(state.forecast_percent),
    }


def state_lines(state: BudgetState) -> Iterator[str]:
    """Yield the lines of a state: its figures, its thresholds that were reached, and what is not known."""
    unit = state.currency or state.unit
    percent = "" if state.used_percent is None else f" ({state.used_percent} %)"
    forecast = "no forecast yet" if state.forecast is None else f"forecast {state.forecast}"
    yield (
        f"{state.budget_id} {state.period}: used {state.used} of {state.limit} {unit}{percent}, left {state.left}, {forecast};"
        f" evaluated {utc_text(state.evaluated_at)}"
    )
    for each in state.thresholds:
        if each.reached_at is not None:
            yield f"  {each.percent} % {each.basis}: reached {utc_text(each.reached_at)}"
    for gap in state.gaps:
        yield f"  not known: {gap.text}"
