"""What the check prints, and how it fails."""

from __future__ import annotations

import sys
import time


class StepFailed(Exception):
    """A block of the page, a command of the README, or what is checked after it, failed; the text is the report."""


def say(text: str) -> None:
    """Print what was done, with the time."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()
