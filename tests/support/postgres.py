"""A PostgreSQL for the tests: the one TEST_DATABASE_URL names, or an embedded one that lives as long as the session.

The schema is migrated once into a template; a test's database is a copy of it, made in some tens of milliseconds.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
from psycopg import sql

from local.postgres import start_postgres
from shared.store.migrate import migrate
from tests.support.ports import free_ports

# Nothing here has to outlive a crash, so no test waits for a disk.
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "4GB",
    "jit": "off",
}


@contextmanager
def embedded_server() -> Iterator[str]:
    """Start a throw-away server and yield its URL; stopped and deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="tributary-pg-", ignore_cleanup_errors=True) as directory:
        server = start_postgres(Path(directory), *free_ports(1), settings=_SETTINGS)
        try:
            yield server.url
        finally:
            server.stop()


class TestDatabases:
    """Hands out freshly migrated databases on one server; close it to remove the template."""

    __test__ = False

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._admin = psycopg.connect(server_url, autocommit=True)
        self._template = f"tributary_template_{uuid4().hex[:12]}"
        self._admin.execute(sql.SQL("create database {}").format(sql.Identifier(self._template)))
        migrate(self._url_of(self._template))

    @contextmanager
    def database(self) -> Iterator[str]:
        """Yield the URL of a new database with the newest schema and nothing in it; dropped at the end."""
        name = f"tributary_test_{uuid4().hex[:12]}"
        self._admin.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(self._template))
        )
        try:
            yield self._url_of(name)
        finally:
            self._drop(name)

    @contextmanager
    def empty_database(self) -> Iterator[str]:
        """Yield the URL of a database without any schema, for the tests of migrations; dropped at the end."""
        name = f"tributary_empty_{uuid4().hex[:12]}"
        self._admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        try:
            yield self._url_of(name)
        finally:
            self._drop(name)

    def close(self) -> None:
        self._drop(self._template)
        self._admin.close()

    def _drop(self, name: str) -> None:
        self._admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def _url_of(self, name: str) -> str:
        return urlunsplit(urlsplit(self._server_url)._replace(path=f"/{name}"))
