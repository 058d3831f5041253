"""Migrations against a real server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from shared.store.migrate import MIGRATIONS, migrate
from tests.support.postgres import TestDatabases


@pytest.fixture
def empty_url(databases: TestDatabases) -> Iterator[str]:
    with databases.empty_database() as url:
        yield url


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("select tablename from pg_tables where schemaname = 'public'")
        return {name for (name,) in rows}


def test_an_empty_database_gets_every_migration_once(empty_url: str) -> None:
    applied = migrate(empty_url)

    assert applied == len(list(MIGRATIONS.glob("*.sql")))
    assert {"jobs", "job_batches", "issues", "audit_log", "api_keys", "request_counts"} <= tables(empty_url)
    assert migrate(empty_url) == 0


def test_several_processes_may_migrate_at_once(empty_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(migrate, [empty_url] * 4))

    assert sorted(applied) == [0, 0, 0, len(list(MIGRATIONS.glob("*.sql")))]


def test_a_lock_left_by_a_killed_process_does_not_block(empty_url: str) -> None:
    migrate(empty_url)
    with psycopg.connect(empty_url) as connection:
        connection.execute("insert into yoyo_lock (locked, ctime, pid) values (1, now(), 4711)")

    assert migrate(empty_url) == 0


@pytest.fixture
def awkward_password(empty_url: str) -> Iterator[str]:
    """The password of a role `migrator`, full of what has a meaning in URLs."""
    password = "p@ss/w:o?r#d%20"
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create role migrator superuser login password {}").format(password))
        yield password
        connection.execute("reassign owned by migrator to current_user")
        connection.execute("drop role migrator")


def url_as_migrator(url: str, password: str) -> str:
    parts = urlsplit(url)
    netloc = f"migrator:{quote(password, safe='')}@{parts.netloc.rpartition('@')[2]}"
    query = "&".join(filter(None, [parts.query, "sslmode=prefer", "options=-c%20lock_timeout%3D4s"]))
    return urlunsplit(parts._replace(netloc=netloc, query=query))


def test_url_with_escaped_password_and_options_is_understood(empty_url: str, awkward_password: str) -> None:
    assert migrate(url_as_migrator(empty_url, awkward_password)) > 0


def test_a_token_replaces_the_password_of_the_url(empty_url: str, awkward_password: str) -> None:
    assert migrate(url_as_migrator(empty_url, "yesterday's token"), password=awkward_password) > 0
