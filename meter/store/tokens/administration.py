"""Administration of the tokens of the API, for ``meter-token``: create, list, revoke, purge."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from typing import Any
from typing import TypeVar

from twisted.internet.interfaces import IReactorTime

from meter.api_token import ApiToken
from meter.store.audit.log import append
from meter.store.maintenance.administered_database import AdministeredDatabase
from meter.store.maintenance.voiding import Act

T = TypeVar("T")

CHANNEL = "meter_tokens"
"""Every change of the tokens notifies the readers on it."""

MAX_VALID_TOKENS = 10_000
"""Maximum number of valid tokens: every API has them in memory."""

VALID = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"

LOCK = "LOCK TABLE api_token IN SHARE ROW EXCLUSIVE MODE"
"""Changes are made one after another; readers are not delayed."""

INSERT = """
INSERT INTO api_token (id, sha256, is_admin, project_id, user_id, expires_at, created_by)
VALUES (%s, %s, %s, %s, %s, %s, %s)
"""

LIST = f"""
SELECT id, CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN {VALID} THEN 'valid' ELSE 'expired' END,
    is_admin, project_id, user_id, created_at, created_by, expires_at, revoked_at, revoked_by
FROM api_token ORDER BY created_at, id
"""

REVOKE = """
UPDATE api_token SET revoked_at = now(), revoked_by = %s WHERE id = ANY(%s) AND revoked_at IS NULL RETURNING id
"""

PURGE = "DELETE FROM api_token WHERE least(revoked_at, expires_at) < %s RETURNING id"


class TooManyTokens(Exception):
    """There are :data:`MAX_VALID_TOKENS` valid tokens."""


class UnknownToken(Exception):
    """There is no token with an id; the text is that id."""


class ApiTokenAdministration(AdministeredDatabase):
    """One connection to the database at ``dsn``. Open it before any other method, and close it.

    ``act`` says who changes tokens and why. Each change is recorded in the audit log, in one transaction with it, unless
    ``act`` has no keys; ``act`` can be ``None`` for a list.
    """

    def __init__(
        self, reactor: Any, dsn: str, *, clock: IReactorTime, act: Act | None, statement_timeout_seconds: float = 30.0
    ) -> None:
        super().__init__(
            reactor,
            dsn,
            clock=clock,
            application_name="meter-token",
            statement_timeout_seconds=statement_timeout_seconds,
        )
        self._act = act

    async def create(self, token: ApiToken) -> None:
        """Store ``token``; :class:`TooManyTokens` if there are too many valid ones."""

        async def insert(act: Act) -> tuple[None, Mapping[str, Any]]:
            [[valid]] = await self._connection.rows(f"SELECT count(*) FROM api_token WHERE {VALID}")
            if valid >= MAX_VALID_TOKENS:
                raise TooManyTokens
            values = [token.id, token.sha256, token.is_admin, token.project_id, token.user_id, token.expires_at]
            await self._connection.count(INSERT, [*values, act.who])
            access = {"admin": token.is_admin, "project_id": token.project_id, "user_id": token.user_id}
            return None, {"id": token.id, **access, "expires_at": _text(token.expires_at)}

        await self._change("token.create", insert)

    async def all(self) -> Sequence[dict[str, Any]]:
        """Return all tokens, the oldest first, as JSON objects."""
        await self._schema.check(self._connection)
        return [
            {
                "id": id,
                "state": state,
                "admin": is_admin,
                "project_id": project_id,
                "user_id": user_id,
                "created_at": _text(created_at),
                "created_by": created_by,
                "expires_at": _text(expires_at),
                "revoked_at": _text(revoked_at),
                "revoked_by": revoked_by,
            }
            for (
                id,
                state,
                is_admin,
                project_id,
                user_id,
                created_at,
                created_by,
                expires_at,
                revoked_at,
                revoked_by,
            ) in await self._connection.rows(LIST)
        ]

    async def revoke(self, ids: Sequence[str]) -> Sequence[str]:
        """Revoke the tokens with ``ids``, all or none; return the ids of those that were not revoked before.

        :class:`UnknownToken` if one does not exist.
        """

        async def update(act: Act) -> tuple[Sequence[str], Mapping[str, Any]]:
            known = {id for (id,) in await self._connection.rows("SELECT id FROM api_token WHERE id = ANY(%s)", [ids])}
            for id in ids:
                if id not in known:
                    raise UnknownToken(id)
            revoked = [id for (id,) in await self._connection.rows(REVOKE, [act.who, list(ids)])]
            return revoked, {"ids": revoked} if revoked else {}

        return await self._change("token.revoke", update)

    async def purge(self, before: datetime) -> Sequence[str]:
        """Delete the tokens that expired or were revoked before this time; return their ids."""

        async def delete(_: Act) -> tuple[Sequence[str], Mapping[str, Any]]:
            purged = [id for (id,) in await self._connection.rows(PURGE, [before])]
            return purged, {"before": _text(before), "tokens": len(purged)} if purged else {}

        return await self._change("token.purge", delete)

    async def _change(self, action: str, work: Callable[[Act], Awaitable[tuple[T, Mapping[str, Any]]]]) -> T:
        """Return the result of ``work`` in a transaction, which records it with its details and notifies the readers.

        Without details nothing was changed.
        """
        act = self._act
        if act is None:
            raise ValueError("who acts is missing")
        session = self._connection
        await self._schema.check(session)
        await session.count("BEGIN")
        try:
            await session.count(LOCK)
            result, details = await work(act)
            if details and act.keys:
                details = {**act.details, **details}
                await append(session, act.keys, who=act.who, action=action, reason=act.reason, details=details)
            await session.rows(f"SELECT pg_notify('{CHANNEL}', '')")
        except BaseException:
            if not session.closed:
                await session.count("ROLLBACK")
            raise
        await session.count("COMMIT")
        return result


def _text(timestamp: datetime | None) -> str | None:
    return None if timestamp is None else timestamp.astimezone(UTC).isoformat(timespec="seconds")
