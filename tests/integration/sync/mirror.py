"""Compare a tracker's world with what is stored of it."""

from typing import Any

from local.trackers.world import World
from tests.support.sources import SOURCES, Source
from tests.support.sync import SyncRunner


def expected_issues(source: Source, world: World) -> dict[str, dict[str, Any]]:
    """Every visible issue as it should be stored: id → title, status category, key, comments, worked seconds."""
    return {
        source.external_id(issue): {
            "title": source.title(issue),
            "category": source.category(issue),
            "comments": sorted(comment.body for comment in issue.comments) if source.comments else [],
            "seconds": sum(worklog.seconds for worklog in issue.worklogs) if source.worklogs else 0,
            "key": issue.key if source.moves else "",
        }
        for issue in world.all_current()
        if not issue.hidden
    }


async def stored_issues(runner: SyncRunner) -> dict[str, dict[str, Any]]:
    """Every issue that is stored and not gone, in the same form."""
    rows = await runner.fetch(
        """
        select external_id, title, status_category as category,
               array(select body from comments c
                      where c.import_source = i.import_source and c.deleted_at is null
                        and (c.issue_id = i.external_id or c.issue_key = i.key) order by body collate "C") as comments,
               (select coalesce(sum(seconds), 0)::bigint from worklogs w
                 where w.import_source = i.import_source and w.issue_id = i.external_id and w.deleted_at is null)
                   as seconds,
               case when %s then key else '' end as key
          from issues i
         where import_source = %s and deleted_at is null
        """,
        any(each.moves for each in SOURCES.values() if each.name == runner.tracker.source),
        runner.slug,
    )
    return {row.pop("external_id"): row for row in rows}


async def left_behind(runner: SyncRunner) -> list[dict[str, Any]]:
    """Comments, worklogs and history that are there though their issue is gone."""
    return await runner.fetch(
        """
        with children as (
            select 'comment' as kind, external_id, issue_id, issue_key, import_source, deleted_at from comments
             union all
            select 'worklog', external_id, issue_id, issue_key, import_source, deleted_at from worklogs
             union all
            select 'history', external_id, issue_id, issue_key, import_source, deleted_at from issue_history
        )
        select kind, children.external_id, key from children
          join issues on issues.import_source = children.import_source
                     and (issues.external_id = issue_id or issue_id is null and issues.key = issue_key)
         where issues.import_source = %s and issues.deleted_at is not null
           and children.deleted_at is null
        """,
        runner.slug,
    )
