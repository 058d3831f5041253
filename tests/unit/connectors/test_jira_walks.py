"""Walks over a simulated Jira that changes while it is read: nothing that exists is missed."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

import shared.connectors._jira_walk as walking
from local.trackers.jira import JiraTracker
from local.trackers.service import Call, Fault
from local.trackers.world import World, seeded
from shared.connectors._jira_settings import JiraCredentials, JiraSettings
from shared.connectors._protocol import Absence, Page, PartKind
from shared.connectors.jira import JiraConnector
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Stream
from tests.support.walking import issues_of, walk

KINDS = pytest.mark.parametrize("cloud", [True, False], ids=["cloud", "data-center"])


@asynccontextmanager
async def connected(
    world: World, *, cloud: bool = True, time_zone: str = "UTC", **settings: Any
) -> AsyncIterator[tuple[JiraTracker, JiraConnector]]:
    async with JiraTracker(world, cloud=cloud, time_zone=time_zone) as tracker, httpx.AsyncClient() as client:
        yield tracker, connector_for(client, tracker, **settings)


def connector_for(client: httpx.AsyncClient, tracker: JiraTracker, **settings: Any) -> JiraConnector:
    credentials = JiraCredentials(email=tracker.email, token=tracker.token)
    return JiraConnector(client, tracker.url, JiraSettings(**{"concurrency": 8, **settings}), credentials)


def shown(pages: Sequence[Page], stream: Stream = Stream.ISSUES) -> set[int]:
    return {int(sent.raw["id"]) for page in pages for sent in page.records if sent.stream is stream}


def existing(world: World, key: str = "HARBOR") -> set[int]:
    return {issue.id for issue in world.all_current(key) if not issue.hidden}


def numbered(world: World, number: int) -> int:
    issue = world.find("HARBOR", number)
    assert issue is not None
    return issue.id


def at_search(times: int, act: Callable[[], None]) -> Callable[[Call], None]:
    """Do something just before the search is asked for the nth time."""
    searches = 0

    def before(call: Call) -> None:
        nonlocal searches
        searches += call.path.endswith(("/search/jql", "/search"))
        if searches == times and call.path.endswith(("/search/jql", "/search")):
            act()

    return before


def plain_world(issues: int, **values: Any) -> World:
    world = World(**values)
    for key in ("HARBOR", "PETREL"):
        world.add_project(key)
    for _ in range(issues):
        world.create("HARBOR")
    return world


@KINDS
async def test_a_walk_brings_every_issue_with_all_that_belongs_to_it(cloud: bool) -> None:
    world = seeded(500)
    async with connected(world, cloud=cloud) as (_, jira):
        pages = await walk(jira, issues_of(world))

    issues = world.all_current("HARBOR")
    assert len(pages) == 3
    assert shown(pages) == existing(world)
    assert shown(pages, Stream.COMMENTS) == {each.id for issue in issues for each in issue.comments}
    assert shown(pages, Stream.WORKLOGS) == {each.id for issue in issues for each in issue.worklogs}
    assert shown(pages, Stream.HISTORY) == {each.id for issue in issues for each in issue.changes}
    assert sum(len(page.complete) for page in pages) == 3 * len(issues)


@KINDS
async def test_many_issues_of_one_second_are_all_there(cloud: bool) -> None:
    world = plain_world(1_200)
    async with connected(world, cloud=cloud) as (_, jira):
        pages = await walk(jira, issues_of(world, since=world.now))

    assert shown(pages) == existing(world)


async def test_short_pages_are_not_the_last() -> None:
    world = plain_world(300)
    async with connected(world) as (tracker, jira):
        tracker.short_pages = True
        pages = await walk(jira, issues_of(world))

    assert len(pages) > 3
    assert shown(pages) == existing(world)


async def test_the_limit_of_an_administrator_ends_no_walk() -> None:
    world = plain_world(130)
    async with connected(world, cloud=False) as (tracker, jira):
        tracker.most_results = 50
        pages = await walk(jira, issues_of(world))

    assert shown(pages) == existing(world)


@KINDS
@pytest.mark.parametrize(
    "vanish",
    [
        lambda world, issue: world.delete(issue),
        lambda world, issue: world.move(issue, "PETREL"),
        lambda world, issue: world.move(world.move(issue, "PETREL").id, "HARBOR"),
    ],
    ids=["deleted", "moved", "moved there and back"],
)
async def test_the_boundary_may_vanish_mid_walk(cloud: bool, vanish: Callable[[World, int], object]) -> None:
    world = plain_world(350)
    # The next number over there is the one the boundary has here.
    for _ in range(99):
        world.create("PETREL")
    async with connected(world, cloud=cloud) as (tracker, jira):
        tracker.before_request = at_search(2, lambda: vanish(world, numbered(world, 100)))
        pages = await walk(jira, issues_of(world))

    assert existing(world) <= shown(pages)


async def test_a_key_that_is_followed_to_another_project_ends_no_walk() -> None:
    world = plain_world(350)
    async with connected(world) as (tracker, jira):
        tracker.follows_moved_keys = True
        tracker.before_request = at_search(2, lambda: world.move(numbered(world, 100), "PETREL") and None)
        pages = await walk(jira, issues_of(world))

    assert existing(world) <= shown(pages)


async def test_issues_the_database_has_lost_end_no_walk() -> None:
    world = plain_world(260)
    async with connected(world, cloud=False) as (tracker, jira):
        tracker.ghosts = {numbered(world, number) for number in (1, 50, 100, 101, 150, 259, 260)}
        pages = await walk(jira, issues_of(world))

        assert shown(pages) == existing(world) - tracker.ghosts


@KINDS
async def test_a_whole_stretch_up_to_the_boundary_may_vanish(cloud: bool) -> None:
    world = plain_world(450)
    async with connected(world, cloud=cloud) as (tracker, jira):
        gone = [numbered(world, number) for number in range(60, 301)]
        tracker.before_request = at_search(4, lambda: [world.delete(each) for each in gone] and None)
        pages = await walk(jira, issues_of(world))

    assert existing(world) <= shown(pages)


async def test_the_boundary_may_become_hidden() -> None:
    world = plain_world(250)
    async with connected(world) as (tracker, jira):
        tracker.before_request = at_search(2, lambda: world.edit(numbered(world, 100), hidden=True) and None)
        pages = await walk(jira, issues_of(world))

    assert existing(world) <= shown(pages)


async def test_a_walk_of_which_nothing_is_left_begins_anew() -> None:
    world = plain_world(150)
    async with connected(world) as (tracker, jira):
        gone = [numbered(world, number) for number in range(1, 101)]
        tracker.before_request = at_search(2, lambda: [world.delete(each) for each in gone] and None)
        pages = await walk(jira, issues_of(world))

    assert existing(world) <= shown(pages)


@KINDS
async def test_nothing_is_missed_while_everything_changes(cloud: bool) -> None:
    world = plain_world(600)
    throughout = existing(world)

    def disturb(call: Call) -> None:
        if "/search" in call.path:
            for _ in range(10):
                issue = world.random.choice(world.all_current("HARBOR")).id
                act = world.random.randrange(4)
                if act == 0:
                    world.delete(issue)
                elif act == 1:
                    world.move(issue, "PETREL")
                else:
                    world.edit(issue, status="done")
            world.create("HARBOR")

    async with connected(world, cloud=cloud) as (tracker, jira):
        tracker.before_request = disturb
        pages = await walk(jira, issues_of(world))

    assert throughout & existing(world) <= shown(pages)


async def test_a_moved_issue_is_seen_by_the_next_window_of_its_new_project() -> None:
    world = plain_world(120)
    world.advance(3_600)
    since, petrel = world.now, str(world.projects["PETREL"].id)
    async with connected(world) as (tracker, jira):
        moved = numbered(world, 110)
        tracker.before_request = at_search(2, lambda: world.move(moved, "PETREL") and None)
        first = await walk(jira, issues_of(world))
        tracker.before_request = None
        second = await walk(jira, issues_of(world, scope=petrel, since=since))

    assert moved not in shown(first)
    assert {
        (sent.raw["id"], sent.scope) for page in second for sent in page.records if sent.stream is Stream.ISSUES
    } == {(str(moved), petrel)}


@pytest.mark.parametrize(
    ("time_zone", "changed"),
    [
        ("America/Los_Angeles", datetime(2025, 6, 2, 17, 30, 45, tzinfo=UTC)),
        ("Asia/Tokyo", datetime(2025, 6, 2, 17, 30, 45, tzinfo=UTC)),
        # This hour comes twice on the clocks of Berlin.
        ("Europe/Berlin", datetime(2025, 10, 26, 0, 30, 45, tzinfo=UTC)),
        ("Europe/Berlin", datetime(2025, 10, 26, 1, 30, 45, tzinfo=UTC)),
    ],
    ids=["UTC-8", "UTC+9", "first 2:30", "second 2:30"],
)
async def test_a_window_means_the_same_minute_in_every_time_zone(time_zone: str, changed: datetime) -> None:
    world = plain_world(0)
    moments = [changed + timedelta(minutes=minutes) for minutes in (-600, -61, -1, 0, 1, 61, 600)]
    made = [world.create("HARBOR", created=at, updated=at, at=at).id for at in moments]
    world.now = moments[-1]
    async with connected(world, time_zone=time_zone) as (_, jira):
        pages = await walk(jira, issues_of(world, since=changed))
        records = [jira.normalize(sent) for page in pages for sent in page.records]

    assert shown(pages) == set(made[3:])
    assert {record.source_updated_at for record in records} == set(moments[3:])


async def test_a_window_is_walked_down_to_its_minute() -> None:
    world = plain_world(0)
    since = world.now + timedelta(seconds=59.9)
    in_minute = world.create("HARBOR")
    async with connected(world) as (_, jira):
        pages = await walk(jira, issues_of(world, since=since))

    assert shown(pages) == {in_minute.id}


async def test_a_token_that_repeats_is_no_end_and_no_circle() -> None:
    world = plain_world(150)
    async with connected(world) as (tracker, jira):
        tracker.stuck_token = True
        first = await jira.fetch(issues_of(world), None)
        second = await jira.fetch(issues_of(world), first.next)
        with pytest.raises(SourceError, match="again and again") as refused:
            await jira.fetch(issues_of(world), second.next)

    assert refused.value.trouble is Trouble.SERVER_ERROR
    assert shown([first, second]) == existing(world)


@KINDS
async def test_long_lists_are_read_to_their_end(cloud: bool) -> None:
    world = plain_world(3)
    long = numbered(world, 2)
    for number in range(130):
        world.comment(long)
        world.log_work(long)
        world.edit(long, title=f"Title {number}")
    async with connected(world, cloud=cloud) as (_, jira):
        pages = await walk(jira, issues_of(world))

    issue = world.current(long)
    assert issue is not None
    assert shown(pages, Stream.COMMENTS) == {each.id for each in issue.comments}
    assert shown(pages, Stream.WORKLOGS) == {each.id for each in issue.worklogs}
    assert shown(pages, Stream.HISTORY) == {each.id for each in issue.changes}
    sizes = {each.stream: len(each.ids) for each in pages[0].complete if each.issue_id == str(long)}
    assert sizes == {Stream.COMMENTS: 130, Stream.WORKLOGS: 130, Stream.HISTORY: 130}


async def test_a_comment_deleted_between_pages_of_comments_hides_no_other() -> None:
    world = plain_world(1)
    long = numbered(world, 1)
    comments = [world.comment(long).id for _ in range(150)]
    async with connected(world) as (tracker, jira):

        def delete_first(call: Call) -> None:
            if "startAt=99" in call.query and world.current(long).comments[0].id == comments[0]:  # type: ignore[union-attr]
                world.delete_comment(long, comments[0])
                world.comment(long)

        tracker.before_request = delete_first
        pages = await walk(jira, issues_of(world))

    issue = world.current(long)
    assert issue is not None
    assert shown(pages, Stream.COMMENTS) == {each.id for each in issue.comments}


async def test_a_count_of_comments_nobody_may_see_ends_in_what_is_seen() -> None:
    world = plain_world(1)
    long = numbered(world, 1)
    seen = {world.comment(long).id for _ in range(30)}
    async with connected(world) as (tracker, jira):
        tracker.overcounted = 2
        page = await jira.fetch(issues_of(world), None)

    assert shown([page], Stream.COMMENTS) == seen
    assert {len(each.ids) for each in page.complete if each.stream is Stream.COMMENTS} == {30}


async def test_an_issue_deleted_while_its_comments_are_read_is_gone() -> None:
    world = plain_world(3)
    doomed = numbered(world, 2)
    for _ in range(30):
        world.comment(doomed)
    async with connected(world) as (tracker, jira):
        tracker.before_request = lambda call: world.delete(doomed) if call.path.endswith("/comment") else None
        page = await jira.fetch(issues_of(world), None)

    assert shown([page]) == existing(world)
    assert [(each.external_id, each.absence) for each in page.gone] == [(str(doomed), Absence.DELETED_OR_HIDDEN)]


async def test_a_refused_list_is_a_gap_and_the_rest_goes_on() -> None:
    world = plain_world(3)
    for issue in existing(world):
        world.comment(issue)
        for _ in range(25):
            world.log_work(issue)
    async with connected(world) as (tracker, jira):
        tracker.refusing_lists["worklog"] = (403, "Time tracking is not for you.")
        page = await jira.fetch(issues_of(world), None)

    assert [(gap.stream, gap.scope, gap.trouble) for gap in page.gaps] == [
        (Stream.WORKLOGS, str(world.projects["HARBOR"].id), Trouble.PERMISSION_DENIED)
    ]
    assert shown([page]) == existing(world)
    assert {each.stream for each in page.complete} == {Stream.COMMENTS, Stream.HISTORY}


async def test_a_preview_asks_for_little_and_claims_nothing() -> None:
    world = seeded(40)
    long = numbered(world, 1)
    for _ in range(30):
        world.comment(long)
    async with connected(world) as (tracker, jira):
        page = await jira.fetch(issues_of(world), None, most=5)

        assert tracker.count("/comment") == 0
    assert len(shown([page])) == 5
    assert page.complete == []


async def test_streams_that_are_not_wanted_are_not_asked_for() -> None:
    world = seeded(40)
    async with connected(world, streams=[Stream.ISSUES, Stream.HISTORY]) as (_, jira):
        page = await jira.fetch(issues_of(world), None)

    assert {sent.stream for sent in page.records} == {Stream.ISSUES, Stream.HISTORY}
    assert {each.stream for each in page.complete} == {Stream.HISTORY}


@KINDS
async def test_pieces_cover_all_keys_side_by_side(cloud: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "_PIECE", 100)
    world = plain_world(460)
    for number in [*range(95, 101), *range(185, 225)]:
        world.delete(numbered(world, number))
    async with connected(world, cloud=cloud) as (tracker, jira):
        pieces = await jira.split(issues_of(world))
        calls = tracker.count()
        pages = [await walk(jira, piece) for piece in pieces]

    assert [piece.query.get("until") for piece in pieces] == [94, 300, 400, None]
    assert calls <= 3
    assert all(len(each) <= 2 for each in pages)
    found = [shown(each) for each in pages]
    assert set.union(*found) == existing(world)
    assert sum(map(len, found)) == len(existing(world))


async def test_a_seam_may_vanish_before_its_piece_is_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "_PIECE", 100)
    world = plain_world(320)
    async with connected(world) as (_, jira):
        pieces = await jira.split(issues_of(world))
        world.delete(numbered(world, 100))
        world.move(numbered(world, 200), "PETREL")
        moved_in = world.move(world.create("PETREL").id, "HARBOR").id
        pages = [page for piece in pieces for page in await walk(jira, piece)]

    assert moved_in in shown(pages)
    assert existing(world) <= shown(pages)


async def test_only_walks_from_the_beginning_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "_PIECE", 100)
    world = plain_world(320)
    async with connected(world) as (tracker, jira):
        part = issues_of(world, since=world.now)

        assert await jira.split(part) == [part]
        assert tracker.count() == 0
        assert len(await jira.split(issues_of(world, kind=PartKind.CENSUS))) == 3


@KINDS
async def test_a_census_names_everything_in_few_calls(cloud: bool) -> None:
    world = seeded(2_400)
    hidden = numbered(world, 7)
    world.edit(hidden, hidden=True)
    async with connected(world, cloud=cloud) as (tracker, jira):
        pages = await walk(jira, issues_of(world, kind=PartKind.CENSUS))

        assert tracker.count("search") <= 2
    seen = {int(name): updated for page in pages for name, updated in page.seen}
    assert seen.keys() == existing(world)
    assert all(updated == _in_milliseconds(world, issue) for issue, updated in seen.items())


def _in_milliseconds(world: World, issue_id: int) -> datetime:
    issue = world.current(issue_id)
    assert issue is not None
    return issue.updated.replace(microsecond=issue.updated.microsecond // 1_000 * 1_000)


async def test_a_late_index_hides_nothing_from_a_held_back_window() -> None:
    world = plain_world(20, index_lag=timedelta(seconds=90))
    world.advance(600)
    edited = numbered(world, 3)
    before = world.now
    world.edit(edited, title="Late")
    async with connected(world) as (_, jira):
        first = await walk(jira, issues_of(world, since=before))
        world.advance(120)
        second = await walk(jira, issues_of(world, since=before - jira.index_lag))

    assert shown(first) == set()
    assert shown(second) == {edited}


@KINDS
async def test_named_issues_come_as_they_are_and_absent_ones_are_told(cloud: bool) -> None:
    world = plain_world(12, index_lag=timedelta(minutes=5))
    world.advance(3_600)
    first, second, hidden, deleted = (numbered(world, number) for number in (1, 2, 3, 4))
    world.edit(first, title="Just now")
    world.edit(hidden, hidden=True)
    world.delete(deleted)
    world.move(second, "PETREL")
    query = {"ids": [str(each) for each in (first, hidden, deleted)], "keys": ["HARBOR-2", "harbor-5", "no key/../x"]}
    async with connected(world, cloud=cloud) as (_, jira):
        page = await jira.fetch(issues_of(world, kind=PartKind.KEYS, query=query), None)

    issues = {sent.raw["id"]: sent for sent in page.records if sent.stream is Stream.ISSUES}
    assert issues.keys() == {str(first), str(second), str(numbered(world, 5))}
    assert issues[str(first)].raw["fields"]["summary"] == "Just now"
    assert issues[str(second)].scope == str(world.projects["PETREL"].id)
    assert {each.external_id for each in page.gone} == {str(hidden), str(deleted), "no key/../x"}
    assert {each.absence for each in page.gone} == {Absence.DELETED_OR_HIDDEN}


async def test_an_issue_moved_to_where_nobody_looks_is_told_so() -> None:
    world = plain_world(2)
    moved = numbered(world, 1)
    world.move(moved, "PETREL")
    async with connected(world, projects=["harbor"]) as (_, jira):
        page = await jira.fetch(issues_of(world, kind=PartKind.KEYS, query={"ids": [str(moved)]}), None)

    assert [(each.external_id, each.absence) for each in page.gone] == [(str(moved), Absence.MOVED)]
    assert page.records == []


async def test_an_issue_that_is_not_served_this_time_is_not_gone() -> None:
    world = plain_world(2)
    unserved = numbered(world, 1)
    async with connected(world) as (tracker, jira):
        tracker.unserved.add(unserved)
        page = await jira.fetch(issues_of(world, kind=PartKind.KEYS, query={"ids": [str(unserved)]}), None)

    assert shown([page]) == {unserved}
    assert page.gone == []


async def test_a_new_connector_goes_on_where_a_dead_one_stopped() -> None:
    world = plain_world(250)
    async with connected(world) as (tracker, jira), httpx.AsyncClient() as client:
        first = await jira.fetch(issues_of(world), None)
        position = json.loads(json.dumps(first.next))
        second = await connector_for(client, tracker).fetch(issues_of(world), position)
        third = await connector_for(client, tracker).fetch(issues_of(world), json.loads(json.dumps(second.next)))

    assert third.next is None
    assert shown([first, second, third]) == existing(world)


@KINDS
async def test_a_site_without_time_tracking_is_asked_for_worklogs_once(cloud: bool) -> None:
    world = seeded(200)
    async with connected(world, cloud=cloud) as (tracker, jira):
        tracker.time_tracking = False
        pages = await walk(jira, issues_of(world))

        assert (tracker.count("/configuration"), tracker.count("/worklog")) == (1, 0)
    assert shown(pages) == existing(world)
    assert {(gap.stream, gap.trouble) for page in pages for gap in page.gaps} == {(Stream.WORKLOGS, Trouble.NOT_FOUND)}
    assert not [each for page in pages for each in page.complete if each.stream is Stream.WORKLOGS]


async def test_worklogs_are_asked_for_singly_where_nobody_says_whether_there_are_any() -> None:
    world = seeded(10)
    async with connected(world) as (tracker, jira):
        tracker.time_tracking = False
        tracker.faults.append(Fault("status", status=403, path="/configuration", body="{}"))
        pages = await walk(jira, issues_of(world))

        assert tracker.count("/worklog") == len(existing(world))
    assert {gap.stream for page in pages for gap in page.gaps} == {Stream.WORKLOGS}


async def test_what_a_site_once_was_is_not_believed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.connectors._jira_site._SECONDS_KEPT", 0)
    world = seeded(10)
    async with connected(world) as (tracker, jira):
        tracker.time_tracking = False
        before = await jira.fetch(issues_of(world), None)
        tracker.time_tracking = True
        after = await jira.fetch(issues_of(world), None)

    assert [bool(page.gaps) for page in (before, after)] == [True, False]


@KINDS
async def test_what_a_search_warns_of_is_shown_as_a_gap(cloud: bool) -> None:
    world = seeded(10)
    async with connected(world, cloud=cloud) as (tracker, jira):
        tracker.search_warnings = ["The value 'zed' does not exist for the field 'labels'."]
        pages = [
            await jira.fetch(issues_of(world), None),
            await jira.fetch(issues_of(world, kind=PartKind.CENSUS), None),
        ]

    for page in pages:
        assert [(gap.stream, gap.scope, gap.detail) for gap in page.gaps] == [
            (Stream.ISSUES, str(world.projects["HARBOR"].id), tracker.search_warnings[0])
        ]
