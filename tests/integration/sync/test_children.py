"""What belongs to an issue goes with it and comes back with it, at every source."""

from collections.abc import Awaitable, Callable

import pytest

from local.trackers.service import Fault
from local.trackers.world import World
from shared.connectors._protocol import Page, Sent
from shared.connectors.github import GitHubConnector
from shared.domain.job import JobState
from shared.domain.stream import Record, Stream
from shared.domain.sync import SyncMode
from shared.services.normalize_page import Normalize, Normalized, normalize_page
from shared.services.read_issues import find_issue
from tests.integration.sync.conftest import Connect
from tests.integration.sync.mirror import expected_issues, left_behind, stored_issues
from tests.support.sources import SOURCES, Source, new_world
from tests.support.sync import SyncRunner

HOUR = 3_600
SOME = [name for name, source in SOURCES.items() if not source.variant]


def talkative(source: Source) -> World:
    """A world of three issues with comments, and with worklogs where the source has them."""
    world = new_world(source)
    for _ in range(3):
        world.advance(HOUR)
        issue = world.create("HARBOR")
        for number in range(3):
            world.comment(issue.id, f"Remark {number} about {issue.key}.")
        if source.worklogs:
            world.log_work(issue.id)
    world.advance(HOUR)
    return world


async def comments(runner: SyncRunner) -> list[str]:
    rows = await runner.fetch(
        "select body from comments where import_source = %s and deleted_at is null order by body", runner.slug
    )
    return [row["body"] for row in rows]


@pytest.mark.parametrize("name", SOME)
async def test_what_belongs_to_an_issue_goes_and_comes_back_with_it(name: str, connected: Connect) -> None:
    source = SOURCES[name]
    world = talkative(source)
    issue, *_ = world.all_current()
    async with connected(name, world) as runner:
        assert await runner.sync() is JobState.COMPLETED
        if source.comment_edits:
            world.delete_comment(issue.id, issue.comments[0].id)
            world.advance(HOUR)
            assert await runner.sync(SyncMode.CENSUS) is JobState.COMPLETED
            assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
        world.edit(issue.id, bump=False, hidden=True)
        world.advance(HOUR)
        assert await runner.sync(SyncMode.CENSUS) is JobState.COMPLETED

        hidden = await comments(runner), await left_behind(runner)
        world.edit(issue.id, hidden=False)
        world.advance(HOUR)
        assert await runner.sync() is JobState.COMPLETED

        others = [remark.body for each in world.all_current() if each.id != issue.id for remark in each.comments]
        assert hidden == (sorted(others), [])
        assert await stored_issues(runner) == expected_issues(source, world)


async def test_an_issue_that_is_gone_still_shows_what_it_had(connected: Connect) -> None:
    world = talkative(SOURCES["jira"])
    issue, *_ = world.all_current()
    async with connected("jira", world) as runner:
        assert await runner.sync() is JobState.COMPLETED
        world.delete_comment(issue.id, issue.comments[0].id)
        world.advance(HOUR)
        assert await runner.sync() is JobState.COMPLETED
        world.delete(issue.id)
        world.advance(HOUR)
        assert await runner.sync(SyncMode.CENSUS) is JobState.COMPLETED

        shown = await find_issue(runner.database, runner.slug, str(issue.id))

        assert shown.deleted_at is not None
        assert [comment.body for comment in shown.comments] == [each.body for each in issue.comments[1:]]
        assert [worklog.seconds for worklog in shown.worklogs] == [each.seconds for each in issue.worklogs]


async def test_a_comment_that_is_still_listed_is_no_more_there_than_its_issue(connected: Connect) -> None:
    world = talkative(SOURCES["github"])
    issue, *_ = world.all_current()
    async with connected("github", world) as runner:
        assert await runner.sync() is JobState.COMPLETED
        # As a webhook may have found it, before lists know.
        await runner.execute(
            "update issues set deleted_at = now(), absence = 'deleted', read_at = now() where external_id = %s",
            str(issue.id),
        )
        world.comment(issue.id, "Is anybody there?")
        world.advance(HOUR)

        assert await runner.sync(streams=("comments",)) is JobState.COMPLETED

        assert "Is anybody there?" not in await comments(runner)
        assert await left_behind(runner) == []
        assert await runner.sync(SyncMode.FULL, streams=("comments",)) is JobState.COMPLETED
        parts = await runner.fetch("select counts from sync_parts where job_id = %s", runner.last_job)
        counts = [part["counts"]["comments"] for part in parts if "comments" in part["counts"]]
        assert {word for count in counts for word, number in count.items() if number} == {"unchanged"}
        assert await left_behind(runner) == []
        assert await runner.sync() is JobState.COMPLETED
        assert await stored_issues(runner) == expected_issues(SOURCES["github"], world)


async def test_a_comment_that_an_issue_lost_is_gone_when_the_issue_is_read_again(connected: Connect) -> None:
    world = talkative(SOURCES["github"])
    issue, *_ = world.all_current()
    async with connected("github", world) as runner:
        assert await runner.sync() is JobState.COMPLETED
        world.delete_comment(issue.id, issue.comments[1].id)

        assert await runner.sync(SyncMode.KEYS, keys=(f"tidewater/harbor#{issue.number}",)) is JobState.COMPLETED

        assert await stored_issues(runner) == expected_issues(SOURCES["github"], world)


async def test_a_comment_whose_new_version_makes_no_sense_keeps_the_old_one(
    connected: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = talkative(SOURCES["github"])
    issue, *_ = world.all_current()
    plain = GitHubConnector.normalize

    def picky(connector: GitHubConnector, sent: Sent) -> Record:
        if sent.raw.get("body") == "Beyond reading":
            raise ValueError("The record is not as GitHub describes it")
        return plain(connector, sent)

    monkeypatch.setattr(GitHubConnector, "normalize", picky)
    async with connected("github", world) as runner:
        assert await runner.sync() is JobState.COMPLETED
        before = await comments(runner)
        world.edit_comment(issue.id, issue.comments[0].id, "Beyond reading")
        world.advance(HOUR)

        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED

        assert await comments(runner) == before
        assert await runner.fetch("select state from rejections") == [{"state": "open"}]


async def test_comments_that_a_broken_reading_did_not_reach_stay(connected: Connect) -> None:
    source = SOURCES["github"]
    with source.small_pages():
        async with connected("github", talkative(source), streams=["issues", "comments"]) as runner:
            assert await runner.sync() is JobState.COMPLETED
            before = await comments(runner)
            runner.tracker.faults.append(
                Fault(kind="status", status=500, body="{}", path="/issues/comments", after=2, times=99)
            )

            assert await runner.sync(SyncMode.FULL) is JobState.FAILED

            pages = await runner.fetch("select pages from sync_parts where state = 'failed' and stream = 'comments'")
            assert [row["pages"] > 0 for row in pages] == [True]
            assert len(before) == 9
            assert await comments(runner) == before


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Stream, Callable[[], Awaitable[object]]], None]:
    """Let something happen once between a page with records of a stream being read and being stored."""

    def arrange(stream: Stream, happen: Callable[[], Awaitable[object]]) -> None:
        pending = [happen]

        async def normalize(plain: Normalize, page: Page, *, first_row: int) -> Normalized:
            if pending and any(sent.stream is stream for sent in page.records):
                await pending.pop()()
            return await normalize_page(plain, page, first_row=first_row)

        monkeypatch.setattr("shared.services.walk_parts.normalize_page", normalize)

    return arrange


async def test_a_comment_is_not_brought_back_by_a_page_that_was_read_before(
    connected: Connect, meanwhile: Callable[..., None]
) -> None:
    source = SOURCES["github"]
    world = talkative(source)
    issue, *_ = world.all_current()
    async with connected("github", world, streams=["issues", "comments"]) as runner:
        assert await runner.sync() is JobState.COMPLETED
        [row] = await runner.fetch("select key from issues where external_id = %s", str(issue.id))

        async def delete() -> None:
            world.delete_comment(issue.id, issue.comments[0].id)
            assert await runner.sync(SyncMode.KEYS, keys=(row["key"],)) is JobState.COMPLETED

        meanwhile(Stream.COMMENTS, delete)
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED

        assert issue.comments[0].body not in await comments(runner)
        assert await stored_issues(runner) == expected_issues(source, world)


async def test_a_comment_is_not_taken_away_by_a_thread_that_was_read_before(
    connected: Connect, meanwhile: Callable[..., None]
) -> None:
    source = SOURCES["gitlab"]
    world = talkative(source)
    issue, *_ = world.all_current()
    async with connected("gitlab", world, streams=["issues", "comments"]) as runner:
        assert await runner.sync() is JobState.COMPLETED
        [row] = await runner.fetch("select key from issues where external_id = %s", source.external_id(issue))
        world.edit(issue.id, title="A moment ago")
        assert await runner.sync(SyncMode.KEYS, keys=(row["key"],)) is JobState.COMPLETED

        async def write() -> None:
            # So soon after a change a note does not change the issue, which looks the same before and after.
            world.comment(issue.id, "Meanwhile.")
            assert await runner.sync(SyncMode.KEYS, keys=(row["key"],)) is JobState.COMPLETED

        meanwhile(Stream.ISSUES, write)
        assert await runner.sync(SyncMode.KEYS, keys=(row["key"],)) is JobState.COMPLETED

        assert "Meanwhile." in await comments(runner)
