"""Look at the audit log."""

from shared.domain.audit import AuditEntry
from shared.store import audit_log
from shared.store.database import Database


async def read_audit(database: Database, *, subject: str | None, before_id: int | None, limit: int) -> list[AuditEntry]:
    """Entries, newest first, of one subject or of all."""
    async with database.connection() as connection:
        return await audit_log.list_entries(connection, subject=subject, before_id=before_id, limit=limit)
