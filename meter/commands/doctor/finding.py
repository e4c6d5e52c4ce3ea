"""Findings: what a check found, what it means, and what to do; their text, JSON and exit status."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from typing import Literal
from typing import get_args

from meter.bus.masking import masked_text
from meter.commands.command import EXIT_OK
from meter.commands.command import escape_terminal
from meter.settings.masked import masked

Level = Literal["ok", "not checked", "warning", "fault"]

LEVELS: tuple[Level, ...] = get_args(Level)

EXIT_WARNING = 1
EXIT_FAULT = 2

MAX_TEXT = 1000
"""Maximum length of a text or advice, in characters."""

CHECK_WIDTH = 15


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the result. ``advice`` says what to do; it is empty where there is nothing to do."""

    check: str
    level: Level
    text: str
    advice: str = ""

    def shown(self) -> Finding:
        """Return the finding as it is shown: on one line, without secrets and with a limited length."""
        return Finding(self.check, self.level, _line(self.text), _line(self.advice))


def exit_status(findings: Sequence[Finding]) -> int:
    """Return 0, 1 if there is a warning, 2 if there is a fault. What was not checked changes nothing."""
    levels = {finding.level for finding in findings}
    return EXIT_FAULT if "fault" in levels else EXIT_WARNING if "warning" in levels else EXIT_OK


def as_text(findings: Sequence[Finding]) -> str:
    """Return a line for each finding, with a second one for its advice, and the counts."""
    lines = []
    for finding in (each.shown() for each in findings):
        level = finding.level.upper() if finding.level == "fault" else finding.level
        lines.append(f"{level:<11}  {finding.check:<{CHECK_WIDTH}}  {finding.text}")
        if finding.advice:
            lines.append(f"{'':<11}  {'':<{CHECK_WIDTH}}  → {finding.advice}")
    counts = Counter(finding.level for finding in findings)
    lines.append(
        f"{_counted(counts['fault'], 'fault')}, {_counted(counts['warning'], 'warning')}, {counts['ok']} ok,"
        f" {counts['not checked']} not checked"
    )
    return "\n".join(lines) + "\n"


def as_json(findings: Sequence[Finding]) -> str:
    """Return one JSON object: ``worst`` and the ``findings``."""
    shown = [each.shown() for each in findings]
    worst = max((each.level for each in shown), key=LEVELS.index, default="ok")
    return json.dumps({"worst": worst, "findings": [asdict(each) for each in shown]}, indent=2) + "\n"


@dataclass(frozen=True, slots=True)
class TraceStep:
    """One step on the way of samples. *stop*: they do not get beyond it. *unknown*: nothing shows whether they do."""

    name: str
    state: Literal["ok", "stop", "unknown", "not checked"]
    text: str
    advice: str = ""


def steps_as_text(verdict: str, steps: Sequence[TraceStep]) -> str:
    """Return the verdict, and a line for each step with a second one for its advice."""
    lines = [_line(verdict), ""]
    for step in steps:
        lines.append(f"{step.state:<11}  {step.name:<{CHECK_WIDTH}}  {_line(step.text)}")
        if step.advice:
            lines.append(f"{'':<11}  {'':<{CHECK_WIDTH}}  → {_line(step.advice)}")
    return "\n".join(lines) + "\n"


def steps_as_json(verdict: str, steps: Sequence[TraceStep]) -> str:
    """Return one JSON object: ``verdict`` and the ``steps``."""
    shown = [
        {"step": step.name, "state": step.state, "text": _line(step.text), "advice": _line(step.advice)}
        for step in steps
    ]
    return json.dumps({"verdict": _line(verdict), "steps": shown}, indent=2) + "\n"


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _line(text: str) -> str:
    safe = escape_terminal(" ".join(masked(masked_text(text[: 2 * MAX_TEXT])).split()))
    return safe if len(safe) <= MAX_TEXT else safe[: MAX_TEXT - 1] + "…"
