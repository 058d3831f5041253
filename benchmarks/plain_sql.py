"""The yardstick: the same import as a competent engineer writes it in SQL, with nothing around it.

The file is copied as it is into an unlogged staging table of text columns; one statement then validates, settles
duplicates (the last valid row wins), hashes, converts and upserts what differs and is not older. The target has the
columns, constraints and indexes of `issues`.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from benchmarks.issues_csv import COLUMNS

IMPORT_SOURCE = "bench"
_BLOCK_BYTES = 1 << 20

_PREPARE = """
drop schema if exists bench cascade;
create schema bench;
create table bench.issues (like public.issues including all);
"""

_UPSERT = """
insert into bench.issues (
    import_source, external_id, key, title, description, type, status, status_category, priority, severity, assignee,
    reporter, labels, components, project, sprint, environment, stack_trace, url, story_points, source_created_at,
    source_updated_at, payload, content_hash, job_id
)
select 'bench', external_id, key, title, description, type, status,
       case when lower(status) in ('done', 'closed', 'resolved', 'fixed', 'cancelled', 'rejected', 'duplicate')
            then 'done'
            when lower(status) in ('in progress', 'in review', 'testing', 'blocked', 'on hold', 'pending', 'reopened')
            then 'in_progress'
            else 'open' end,
       priority,
       case lower(priority) when 'critical' then 'critical' when 'high' then 'high' when 'medium' then 'medium'
                            when 'low' then 'low' end,
       assignee, reporter,
       coalesce(to_jsonb(string_to_array(labels, ',')), '[]'),
       coalesce(to_jsonb(string_to_array(components, ',')), '[]'),
       project, sprint, environment::jsonb, stack_trace, url, story_points::numeric, source_created_at::timestamptz,
       source_updated_at::timestamptz, jsonb_strip_nulls(to_jsonb(valid) - 'line'),
       decode(md5(row(key, title, description, type, status, priority, assignee, reporter, labels, components, project,
                      sprint, environment, stack_trace, url, story_points, source_created_at, source_updated_at,
                      customer)::text), 'hex'),
       '00000000-0000-0000-0000-000000000000'
  from (select distinct on (external_id) *
          from bench.staging
         where external_id <> '' and trim(title) <> ''
           and pg_input_is_valid(source_created_at, 'timestamptz')
           and pg_input_is_valid(source_updated_at, 'timestamptz')
           and (story_points is null or pg_input_is_valid(story_points, 'numeric'))
           and (environment is null or pg_input_is_valid(environment, 'jsonb'))
         order by external_id, line desc) as valid
    on conflict (import_source, external_id) do update
   set key = excluded.key, title = excluded.title, description = excluded.description, type = excluded.type,
       status = excluded.status, status_category = excluded.status_category, priority = excluded.priority,
       severity = excluded.severity, assignee = excluded.assignee, reporter = excluded.reporter,
       labels = excluded.labels, components = excluded.components, project = excluded.project,
       sprint = excluded.sprint, environment = excluded.environment, stack_trace = excluded.stack_trace,
       url = excluded.url, story_points = excluded.story_points, source_created_at = excluded.source_created_at,
       source_updated_at = excluded.source_updated_at, payload = excluded.payload,
       content_hash = excluded.content_hash, job_id = excluded.job_id, updated_at = now()
 where bench.issues.content_hash <> excluded.content_hash
   and (bench.issues.source_updated_at is null or excluded.source_updated_at >= bench.issues.source_updated_at)
"""


@dataclass(frozen=True)
class Load:
    """How long one load took, and how many rows it wrote."""

    seconds: float
    copy_seconds: float
    written: int


def prepare(url: str) -> None:
    """Create the empty target; needs the migrated `public.issues` to be like."""
    with psycopg.connect(url) as connection:
        connection.execute(_PREPARE)


def load(url: str, path: Path) -> Load:
    """Import one file; the staging table is made anew, as a script run from cron would do it."""
    started = time.perf_counter()
    with psycopg.connect(url) as connection:
        # That much memory keeps what can be kept of the sort out of temporary files.
        connection.execute("set work_mem = '256MB'")
        _stage(connection, path)
        copied = time.perf_counter()
        written = connection.execute(_UPSERT).rowcount
        connection.execute("drop table bench.staging")
    ended = time.perf_counter()
    return Load(seconds=ended - started, copy_seconds=copied - started, written=written)


def _stage(connection: psycopg.Connection, path: Path) -> None:
    columns = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    definitions = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(name)) for name in COLUMNS)
    connection.execute(
        sql.SQL("create unlogged table bench.staging (line bigint generated always as identity, {})").format(
            definitions
        )
    )
    statement = sql.SQL("copy bench.staging ({}) from stdin (format csv, header true)").format(columns)
    with path.open("rb") as file, connection.cursor().copy(statement) as copy:
        while block := file.read(_BLOCK_BYTES):
            copy.write(block)
