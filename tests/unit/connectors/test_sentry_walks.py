"""Walks over a simulated Sentry that changes while it is read."""

import json
from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest

from local.trackers import sentry as sentry_tracker
from local.trackers.sentry import SentryTracker
from local.trackers.service import Call, Fault
from local.trackers.world import World, seeded
from shared.connectors._protocol import Part, PartKind
from shared.connectors._sentry_walk import OVERLAP, Place, step
from shared.connectors.sentry import PARTIAL_PAYLOAD_KEY
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Issue, Stream
from tests.support.sentry import NEVER, connected, connector_for, shown, two_projects
from tests.support.walking import issues_of, walk


@pytest.fixture
def world() -> World:
    return two_projects()


# Walks


async def test_a_first_walk_brings_every_issue_with_event_and_comments() -> None:
    world = seeded(130, note_throttle=NEVER)
    expected = world.all_current("HARBOR")
    async with connected(world) as (tracker, connector):
        pages = await walk(connector, issues_of(world))

        assert shown(pages) == {str(issue.id) for issue in expected}
        assert shown(pages, Stream.COMMENTS) == {str(each.id) for issue in expected for each in issue.comments}
        assert tracker.count("/notes/") == sum(bool(issue.comments) for issue in expected)
        assert tracker.count("/events/latest/") == len(expected)
    records = [connector.normalize(sent) for page in pages for sent in page.records if sent.stream is Stream.ISSUES]
    assert {record.status for record in records if isinstance(record, Issue)} == {"resolved", "unresolved"}
    assert any(isinstance(record, Issue) and record.stack_trace for record in records)
    assert {child.issue_id for page in pages for child in page.complete} == {str(issue.id) for issue in expected}


async def test_the_query_is_always_sent_because_the_default_hides_resolved_issues(world: World) -> None:
    done = world.edit(world.create("HARBOR").id, status="done")
    async with connected(world, query="level:[error]", environments=["production"]) as (tracker, connector):
        tracker.faults.append(Fault("status", status=200, body="[]", path="issues/"))
        await connector.fetch(issues_of(world, since=done.updated), None)
        sent = httpx.QueryParams(tracker.calls[-1].query)
        plain = await walk(connector_for(connector._api.http._client, tracker.url), issues_of(world))

    assert sent["query"] == "level:[error] lastSeen:>=2025-03-03T09:00:00"
    assert (sent["sort"], sent.get_list("environment")) == ("new", ["production"])
    assert shown(plain) == {str(done.id)}
    assert "query=&" in tracker.calls[-2].query


async def test_a_window_walk_brings_what_had_an_event_since(world: World) -> None:
    old, new, boundary = (world.create("HARBOR") for _ in range(3))
    world.advance(3_600)
    since = world.now
    world.edit(boundary.id, body="again")
    world.advance(0.4)
    world.edit(new.id, body="again")
    async with connected(world) as (_, connector):
        pages = await walk(connector, issues_of(world, since=since + timedelta(seconds=0.3)))

    assert shown(pages) == {str(new.id), str(boundary.id)}
    assert str(old.id) not in shown(pages)


async def test_1200_issues_first_seen_in_the_same_second(world: World) -> None:
    world.create("HARBOR")
    world.advance(60)
    for _ in range(1_200):
        world.create("HARBOR")
    world.advance(60)
    world.create("HARBOR")
    async with connected(world, latest_event=False) as (_, connector):
        pages = await walk(connector, issues_of(world))

    assert len(shown(pages)) == 1_202
    assert len(pages) < 1_202 / (100 - OVERLAP) + 3
    assert not [gap for page in pages for gap in page.gaps]


Change = Callable[[World, list[int]], None]


def _delete_newest(world: World, read: list[int]) -> None:
    existing = sorted((issue.id for issue in world.all_current("HARBOR")), reverse=True)
    for issue_id in existing[:7]:
        world.delete(issue_id)


def _delete_what_was_read(world: World, read: list[int]) -> None:
    for issue_id in [each for each in read if world.current(each)][-30:]:
        world.delete(issue_id)


def _edit_all_over(world: World, read: list[int]) -> None:
    for issue in world.random.sample(world.all_current("HARBOR"), 30):
        world.edit(issue.id, body="again", status=world.random.choice(("open", "done")))


def _create(world: World, read: list[int]) -> None:
    for _ in range(15):
        world.create("HARBOR")


def _all_of_it(world: World, read: list[int]) -> None:
    for change in world.random.sample([_delete_newest, _delete_what_was_read, _edit_all_over, _create], 2):
        change(world, read)


@pytest.mark.parametrize("change", [_delete_newest, _delete_what_was_read, _edit_all_over, _create, _all_of_it])
@pytest.mark.parametrize("seconds", [0, 0.02, 40], ids=["one second", "crowded", "spread"])
async def test_nothing_is_missed_while_issues_come_change_and_go(world: World, change: Change, seconds: float) -> None:
    for _ in range(420):
        world.create("HARBOR")
        world.advance(seconds)
    existing = {issue.id for issue in world.all_current("HARBOR")}
    read: list[int] = []

    def disturb(call: Call) -> None:
        if "cursor=" in call.query:
            change(world, read)
            world.advance(0.3)

    async with connected(world, latest_event=False) as (tracker, connector):
        tracker.before_request = disturb
        pages, position = [], None
        while True:
            pages.append(await connector.fetch(issues_of(world), position))
            read += [int(sent.raw["id"]) for sent in pages[-1].records]
            position = pages[-1].next
            if position is None:
                break
            assert len(pages) < 100

    survivors = {str(issue_id) for issue_id in existing if world.current(issue_id)}
    assert survivors
    assert survivors <= shown(pages)
    assert not [gap for page in pages for gap in page.gaps]


async def test_merging_while_paging_loses_nothing(world: World) -> None:
    created = [world.create("HARBOR").id for _ in range(350)]
    async with connected(world, latest_event=False) as (tracker, connector):
        tracker.before_request = lambda call: (
            tracker.merge(created.pop(), created[0]) if "cursor=" in call.query else None
        )
        pages = await walk(connector, issues_of(world))

    assert {str(issue_id) for issue_id in created} <= shown(pages)


async def test_a_run_that_never_holds_still_ends_and_says_so(world: World) -> None:
    for _ in range(900):
        world.create("HARBOR")

    def disturb(call: Call) -> None:
        newest = sorted((issue.id for issue in world.all_current("HARBOR")), reverse=True)
        for issue_id in newest[:130]:
            world.delete(issue_id)
        for _ in range(30):
            world.create("HARBOR")

    async with connected(world, latest_event=False) as (tracker, connector):
        first = await connector.fetch(issues_of(world), None)
        tracker.before_request = disturb
        pages = [first]
        while pages[-1].next is not None:
            pages.append(await connector.fetch(issues_of(world), pages[-1].next))
            assert len(pages) < 60

    assert {gap.trouble for page in pages for gap in page.gaps} == {Trouble.SERVER_ERROR}


def test_a_run_is_begun_again_when_no_issue_of_the_last_page_is_left() -> None:
    place = Place("1000:80:0", ("a", "b"))

    again = step(place, ["x", "y"], "1000:180:0")
    given_up = step(Place("1000:80:0", ("a", "b"), restarts=3), [str(each) for each in range(100)], "1000:180:0")

    assert again.place == Place("1000:0:0", restarts=1)
    assert not again.torn
    assert given_up.torn
    assert given_up.place is not None
    assert given_up.place.cursor == "1000:130:0"


async def test_every_page_can_be_resumed_with_a_new_connector() -> None:
    world = seeded(460, projects=("HARBOR",), comments=0, note_throttle=NEVER)
    for _ in range(250):
        world.create("HARBOR")
    async with SentryTracker(world) as tracker, httpx.AsyncClient() as client:
        found, position = [], None
        while True:
            connector = connector_for(client, tracker.url, latest_event=False)
            twice = [await connector.fetch(issues_of(world), position) for _ in range(2)]
            assert twice[0].next == twice[1].next
            found.append(twice[0])
            if twice[0].next is None:
                break
            position = json.loads(json.dumps(twice[0].next))

    assert len(shown(found)) == 710


@pytest.mark.parametrize(
    "following",
    [["5000:0:0", "5000:0:0"], ["5000:0:0", "4000:0:0", "5000:0:0"], ["opaque", "opaque"], ["0:100:0", "0:80:0"]],
    ids=["itself", "circle", "opaque", "backwards"],
)
async def test_a_cursor_loop_is_never_endless(following: list[str]) -> None:
    cursors = iter(following)

    def answer(request: httpx.Request) -> httpx.Response:
        link = f'<https://sentry.io/x?cursor=1>; rel="next"; results="true"; cursor="{next(cursors)}"'
        return httpx.Response(200, json=[{"id": "1"}, {"id": "2"}], headers={"Link": link})

    part = Part(kind=PartKind.WINDOW, stream=Stream.ISSUES, scope="1")
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        connector = connector_for(client, "https://sentry.io", latest_event=False, streams=["issues"])
        with pytest.raises(SourceError) as caught:
            await walk(connector, part, most_pages=10)

    assert caught.value.trouble is Trouble.SERVER_ERROR


async def test_a_next_link_without_results_is_the_end_though_it_is_there(world: World) -> None:
    world.create("HARBOR")
    async with connected(world) as (tracker, connector):
        pages = await walk(connector, issues_of(world))

        assert len(pages) == 1
        assert tracker.count("/issues/") == 2  # the list and one event


async def test_a_list_of_members_that_leads_in_a_circle_is_an_error() -> None:
    link = '<https://sentry.io/x>; rel="next"; results="true"; cursor="100:1:0"'
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=[{"id": "1"}], headers={"Link": link}))
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(SourceError):
            await connector_for(client, "https://sentry.io").discover("users")


async def test_a_preview_is_one_small_page_newest_first(world: World) -> None:
    newest = [world.create("HARBOR").id for _ in range(30)][-5:]
    world.comment(newest[0])
    async with connected(world) as (tracker, connector):
        page = await connector.fetch(issues_of(world), None, most=5)

        assert shown([page]) == {str(issue_id) for issue_id in newest}
        assert tracker.count() == 1, "the list, without threads and events"
    assert not page.complete
    assert not page.gaps


# The latest event, comments


async def test_events_that_leave_the_range_of_a_list_are_no_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue = world.create("HARBOR")
    census = issues_of(world, kind=PartKind.CENSUS)
    async with connected(world) as (_, connector):
        (before,) = await walk(connector, census)
        plain = sentry_tracker.to_listed
        fewer = {"count": "0", "userCount": 0, "firstSeen": "2025-03-03T09:00:00Z"}
        monkeypatch.setattr(sentry_tracker, "to_listed", lambda *args: {**plain(*args), **fewer})
        (after,) = await walk(connector, census)

    assert [sent.raw for sent in after.records] == [sent.raw for sent in before.records]
    assert before.records[0].raw["id"] == str(issue.id)


async def test_an_expired_event_keeps_what_an_earlier_one_told(world: World) -> None:
    issue = world.create("HARBOR")
    async with connected(world) as (tracker, connector):
        fresh = await connector.fetch(issues_of(world), None)
        world.advance(40 * 86_400)
        tracker.retention = timedelta(days=30)
        part = issues_of(world, kind=PartKind.KEYS, query={"ids": [str(issue.id)]})
        expired = await connector.fetch(part, None)
        listed = await walk(connector, issues_of(world))

    assert PARTIAL_PAYLOAD_KEY in fresh.records[0].raw
    assert not fresh.records[0].context
    assert PARTIAL_PAYLOAD_KEY not in expired.records[0].raw
    assert expired.records[0].context == {"keep": ["stack_trace", "environment"], "keep_payload": ["latest_event"]}
    assert not shown(listed)
    assert not expired.gone


async def test_without_the_setting_no_event_is_asked_for_and_none_is_kept(world: World) -> None:
    world.create("HARBOR")
    async with connected(world, latest_event=False) as (tracker, connector):
        page = await connector.fetch(issues_of(world), None)

        assert not tracker.count("/events/")
    assert not page.records[0].context


async def test_refused_events_and_comments_are_gaps_and_the_rest_goes_on(world: World) -> None:
    for _ in range(3):
        world.comment(world.create("HARBOR").id)
    async with connected(world) as (tracker, connector):
        tracker.faults += [
            Fault("status", status=403, times=3, path="/events/", body="{}"),
            Fault("status", status=403, times=2, path="/notes/", body="{}"),
        ]
        page = await connector.fetch(issues_of(world), None)

    assert len(shown([page])) == 3
    assert len(shown([page], Stream.COMMENTS)) == 1
    assert [(gap.stream, gap.trouble) for gap in page.gaps] == [
        (Stream.ISSUES, Trouble.PERMISSION_DENIED),
        (Stream.COMMENTS, Trouble.PERMISSION_DENIED),
    ]
    assert len(page.complete) == 1


async def test_a_bad_request_for_an_event_is_not_passed_over(world: World) -> None:
    world.create("HARBOR")
    async with connected(world) as (tracker, connector):
        tracker.faults.append(Fault("status", status=400, path="/events/", body='{"detail": "odd"}'))
        with pytest.raises(SourceError) as caught:
            await connector.fetch(issues_of(world), None)

    assert caught.value.trouble is Trouble.BAD_REQUEST


async def test_long_threads_come_whole_and_deleted_comments_are_noticed(world: World) -> None:
    issue = world.create("HARBOR")
    comments = [world.comment(issue.id, f"note {number}") for number in range(230)]
    async with connected(world) as (tracker, connector):
        page = await connector.fetch(issues_of(world), None)
        world.delete_comment(issue.id, comments[3].id)
        later = await connector.fetch(issues_of(world), None)
        for each in world.current(issue.id).comments:  # type: ignore[union-attr]
            world.delete_comment(issue.id, each.id)
        before = tracker.count("/notes/")
        emptied = await connector.fetch(issues_of(world), None)

        assert tracker.count("/notes/") == before
    ids = frozenset(str(each.id) for each in comments)
    assert shown([page], Stream.COMMENTS) == ids
    assert [child.ids for child in page.complete] == [ids]
    assert [child.ids for child in later.complete] == [ids - {str(comments[3].id)}]
    assert [child.ids for child in emptied.complete] == [frozenset()]


async def test_comments_are_left_out_where_they_are_not_wanted(world: World) -> None:
    world.comment(world.create("HARBOR").id)
    async with connected(world, streams=["issues"]) as (tracker, connector):
        page = await connector.fetch(issues_of(world), None)

        assert not tracker.count("/notes/")
    assert not page.complete
