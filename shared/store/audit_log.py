"""The audit log; entries are appended in the transaction of the change they tell of, and never altered."""

from collections.abc import Mapping
from typing import Any

from psycopg.types.json import Jsonb

from shared.domain.audit import AuditEntry
from shared.store.database import Connection


async def append(
    connection: Connection,
    *,
    actor: str,
    action: str,
    subject: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
) -> None:
    """Record a change. `before` and `after` hold plain JSON and no secrets."""
    await connection.execute(
        """
        insert into audit_log (actor, action, subject, before, after)
        values (%(actor)s, %(action)s, %(subject)s, %(before)s, %(after)s)
        """,
        {
            "actor": actor,
            "action": action,
            "subject": subject,
            "before": None if before is None else Jsonb(dict(before)),
            "after": None if after is None else Jsonb(dict(after)),
        },
    )


async def list_entries(
    connection: Connection, *, subject: str | None = None, before_id: int | None = None, limit: int = 50
) -> list[AuditEntry]:
    """Entries, newest first; the next page starts before the last id of this one."""
    cursor = await connection.execute(
        """
        select id, actor, action, subject, before, after, created_at
          from audit_log
         where (%(subject)s::text is null or subject = %(subject)s)
           and (%(before_id)s::bigint is null or id < %(before_id)s)
         order by id desc
         limit %(limit)s
        """,
        {"subject": subject, "before_id": before_id, "limit": limit},
    )
    return [AuditEntry.model_validate(row) for row in await cursor.fetchall()]
