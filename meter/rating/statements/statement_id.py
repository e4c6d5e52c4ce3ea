"""The id of a statement: its period and its account, ``2026-11.acme``; of an account's name any character may be part."""

from __future__ import annotations

from urllib.parse import quote


def statement_id(period: str, account_id: str) -> str:
    """Return the id of the statement of an account; all but ``A-Z a-z 0-9 . _ ~ -`` of the account's id is percent-encoded."""
    return f"{period}.{quote(account_id, safe='')}"
