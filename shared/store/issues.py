"""Reading normalized issues: lists by keyset, one with all that belongs to it."""

import re
from collections.abc import Collection
from datetime import datetime
from typing import Any, LiteralString

from psycopg.rows import DictRow

from shared.store.database import Connection

_SHOWN = """import_source, external_id, key, title, type, status, status_category, priority, severity, assignee,
            reporter, labels, components, project, parent, sprint, url, due_on, resolution, story_points,
            estimate_seconds, source_created_at, source_updated_at, resolved_at, updated_at, deleted_at, absence"""


async def list_issues(
    connection: Connection,
    *,
    filters: dict[str, Any],
    before: tuple[datetime, str, str] | None,
    limit: int,
) -> list[DictRow]:
    """Issues by time of change at the source, newest first, those without one last.

    `filters` may hold import_source, status, status_category, assignee, project, label, text, updated_since, deleted.
    """
    cursor = await connection.execute(
        f"""
        select {_SHOWN} from issues
         where (%(import_source)s::text is null or import_source = %(import_source)s)
           and (%(status)s::text is null or lower(status) = lower(%(status)s))
           and (%(status_category)s::text is null or status_category = %(status_category)s)
           and (%(assignee)s::text is null or assignee = %(assignee)s)
           and (%(project)s::text is null or project = %(project)s)
           and (%(label)s::text is null or labels ? %(label)s)
           and (%(text)s::text is null or title ilike '%%' || %(text)s || '%%' or key ilike %(text)s)
           and (%(updated_since)s::timestamptz is null or source_updated_at >= %(updated_since)s)
           and (deleted_at is not null) = %(deleted)s
           and (%(before_at)s::timestamptz is null
                or (coalesce(source_updated_at, '-infinity'), import_source, external_id)
                   < (%(before_at)s, %(before_source)s, %(before_id)s))
         order by coalesce(source_updated_at, '-infinity') desc, import_source desc, external_id desc
         limit %(limit)s
        """,
        {
            **dict.fromkeys(
                (
                    *("import_source", "status", "status_category", "assignee", "project", "label", "text"),
                    "updated_since",
                )
            ),
            "deleted": False,
            **filters,
            "text": _escaped(filters.get("text")),
            "before_at": before[0] if before else None,
            "before_source": before[1] if before else None,
            "before_id": before[2] if before else None,
            "limit": limit,
        },
    )
    return await cursor.fetchall()


def _escaped(text: str | None) -> str | None:
    """A text that LIKE takes as it is."""
    return re.sub(r"([\\%_])", r"\\\1", text) if text else text


async def has_label(connection: Connection, import_source: str) -> bool:
    """Whether there are issues or projects of a label."""
    cursor = await connection.execute(
        """
        select exists (select from issues where import_source = %(label)s)
            or exists (select from projects where import_source = %(label)s) as found
        """,
        {"label": import_source},
    )
    return bool((await cursor.fetchone() or {"found": False})["found"])


async def find_keys(connection: Connection, import_source: str, ids: Collection[str]) -> dict[str, str | None]:
    """Keys of stored issues by external id; what is not stored is not there."""
    cursor = await connection.execute(
        "select external_id, key from issues where import_source = %s and external_id = any(%s)",
        (import_source, list(ids)),
    )
    return {row["external_id"]: row["key"] for row in await cursor.fetchall()}


async def find_issue(connection: Connection, import_source: str, external_id: str) -> DictRow | None:
    """One issue with its long texts and the record as it came."""
    cursor = await connection.execute(
        f"""
        select {_SHOWN}, description, environment, stack_trace, payload from issues
         where import_source = %s and external_id = %s
        """,
        (import_source, external_id),
    )
    return await cursor.fetchone()


async def list_comments(
    connection: Connection, import_source: str, external_id: str, key: str | None, deleted_at: datetime | None
) -> list[DictRow]:
    """Comments of an issue, oldest first; of one that is gone, those that went with it."""
    cursor = await connection.execute(
        """
        select external_id, author, body, internal, url, source_created_at, source_updated_at from comments
         where import_source = %s and (issue_id = %s or issue_key = %s) and deleted_at is not distinct from %s
         order by source_created_at, external_id limit 1000
        """,
        (import_source, external_id, key, deleted_at),
    )
    return await cursor.fetchall()


async def list_worklogs(
    connection: Connection, import_source: str, external_id: str, deleted_at: datetime | None
) -> list[DictRow]:
    """Worklogs of an issue, oldest first; of one that is gone, those that went with it."""
    cursor = await connection.execute(
        """
        select external_id, author, started_at, seconds, comment from worklogs
         where import_source = %s and issue_id = %s and deleted_at is not distinct from %s
         order by started_at, external_id limit 1000
        """,
        (import_source, external_id, deleted_at),
    )
    return await cursor.fetchall()


async def list_history(
    connection: Connection, import_source: str, external_id: str, deleted_at: datetime | None
) -> list[DictRow]:
    """What the source says was changed, oldest first; of an issue that is gone, what went with it."""
    cursor = await connection.execute(
        """
        select external_id, author, changed_at, changes from issue_history
         where import_source = %s and issue_id = %s and deleted_at is not distinct from %s
         order by changed_at, external_id limit 1000
        """,
        (import_source, external_id, deleted_at),
    )
    return await cursor.fetchall()


async def list_changes(connection: Connection, import_source: str, external_id: str) -> list[DictRow]:
    """What our jobs saw changing, oldest first."""
    cursor = await connection.execute(
        """
        select job_id, changes, changed_at from issue_changes
         where import_source = %s and external_id = %s order by id limit 1000
        """,
        (import_source, external_id),
    )
    return await cursor.fetchall()


async def list_sprints(connection: Connection, import_source: str, external_id: str) -> list[DictRow]:
    """Sprints of an issue."""
    cursor = await connection.execute(
        """
        select sprints.external_id, name, state, starts_at, ends_at
          from issue_sprints join sprints on sprints.import_source = issue_sprints.import_source
                                         and sprints.external_id = issue_sprints.sprint_id
         where issue_sprints.import_source = %s and issue_id = %s order by starts_at, sprints.external_id
        """,
        (import_source, external_id),
    )
    return await cursor.fetchall()


async def list_repository_rows(
    connection: Connection, table: str, import_source: str, project: str, *, limit: int
) -> list[DictRow]:
    """Commits or pull requests of a repository, newest first."""
    statements: dict[str, LiteralString] = {
        "commits": """
            select sha, message, author, author_email, url, committed_at from commits
             where import_source = %s and project = %s and deleted_at is null
             order by committed_at desc nulls last, external_id limit %s
            """,
        "pull_requests": """
            select external_id, key, title, state, draft, author, source_branch, target_branch, url, merged_at,
                   closed_at, source_created_at, source_updated_at
              from pull_requests
             where import_source = %s and project = %s and deleted_at is null
             order by source_updated_at desc nulls last, external_id limit %s
            """,
    }
    cursor = await connection.execute(statements[table], (import_source, project, limit))
    return await cursor.fetchall()


async def find_repository(connection: Connection, import_source: str, name: str) -> DictRow | None:
    """A synced project or repository with the record as it came."""
    cursor = await connection.execute(
        """
        select external_id, key, name, repository_url, description, owner, source_created_at, source_updated_at, payload
          from projects
         where import_source = %s and (name = %s or key = %s) and deleted_at is null limit 1
        """,
        (import_source, name, name),
    )
    return await cursor.fetchone()


async def summarize_activity(connection: Connection, import_source: str, project: str) -> DictRow:
    """Numbers on a repository's commits and pull requests over the last 90 days."""
    cursor = await connection.execute(
        """
        select (select count(*) from commits where import_source = %(source)s and project = %(project)s
                   and deleted_at is null and committed_at > now() - interval '90 days') as commits,
               (select count(distinct author) from commits where import_source = %(source)s and project = %(project)s
                   and deleted_at is null and committed_at > now() - interval '90 days') as authors,
               (select count(*) from pull_requests where import_source = %(source)s and project = %(project)s
                   and deleted_at is null and state = 'open') as open_pull_requests,
               (select count(*) from pull_requests where import_source = %(source)s and project = %(project)s
                   and deleted_at is null and merged_at > now() - interval '90 days') as merged_pull_requests,
               (select extract(epoch from percentile_cont(0.5) within group (order by merged_at - source_created_at))
                  from pull_requests where import_source = %(source)s and project = %(project)s and deleted_at is null
                   and merged_at > now() - interval '90 days')::float as median_seconds_to_merge
        """,
        {"source": import_source, "project": project},
    )
    return await cursor.fetchone() or {}
