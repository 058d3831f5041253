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
