"""Bring a database to the newest schema: plain SQL files applied in order by yoyo.

Run as `python -m shared.store.migrate`; safe to run from several places at once. It holds a session lock, so behind
PgBouncer give it the server's own port.
"""
# yoyo ships no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI
from yoyo.migrations import MigrationList, default_migration_table

MIGRATIONS = Path(__file__).with_name("migrations")
# One number for all processes that migrate; nothing else in the database takes a session lock of this value.
_LOCK = 7_421_190_533
_CONNECT_SECONDS = 10


class _Backend(PostgresqlPsycopgBackend):
    """Connects with the URL as libpq reads it: yoyo's own parser knows neither several hosts nor quoted parts."""

    def connect(self, dburi: DatabaseURI) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(dburi.args["conninfo"], autocommit=True, connect_timeout=_CONNECT_SECONDS)


def migrate(url: str, *, password: str | None = None) -> int:
    """Apply what is missing to the database at a libpq URL and return how many migrations that was.

    `password` replaces the one in the URL, for logins by token.
    """
    conninfo = make_conninfo(url, password=password) if password else url
    migrations = read_migrations(str(MIGRATIONS))
    with psycopg.connect(conninfo, autocommit=True, connect_timeout=_CONNECT_SECONDS) as guard:
        guard.execute("select pg_advisory_lock(%s)", (_LOCK,))
        name = conninfo_to_dict(conninfo).get("dbname")
        uri = DatabaseURI("postgresql", None, None, None, None, name, {"conninfo": conninfo})
        backend = _Backend(uri, default_migration_table)
        try:
            return _apply(backend, migrations)
        finally:
            backend.connection.close()


def _apply(backend: _Backend, migrations: MigrationList) -> int:
    backend.init_database()
    # yoyo's lock is a row that a killed process leaves behind. Whoever holds ours knows that such a row is stale.
    backend.break_lock()
    with backend.lock():
        outstanding = backend.to_apply(migrations)
        backend.apply_migrations(outstanding)
        return len(outstanding)


if __name__ == "__main__":
    from shared.settings import settings

    migrate(settings().database_url.get_secret_value())
