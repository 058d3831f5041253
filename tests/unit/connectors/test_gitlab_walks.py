"""Walks over a simulated GitLab that changes while it is read."""

import json
from collections.abc import Callable
from datetime import timedelta

import pytest

from local.trackers.service import Call, Fault
from local.trackers.world import World, seeded
from shared.connectors._protocol import Absence, Page, Part, PartKind
from shared.connectors.gitlab import GitLabConnector
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Stream, Worklog
from tests.support.gitlab import connected, shown, two_projects
from tests.support.walking import issues_of, walk


@pytest.fixture
def world() -> World:
    return two_projects()


MODES = pytest.mark.parametrize("keyset", [True, False], ids=["keyset", "offsets"])


@MODES
async def test_every_issue_is_shown_once_it_exists(keyset: bool, world: World) -> None:
    for _ in range(350):
        world.advance(7)
        world.create("HARBOR")
    async with connected(world) as (tracker, connector):
        tracker.keyset = keyset

        pages = await walk(connector, issues_of(world))

    assert shown(pages) == {issue.id for issue in world.all_current("HARBOR")}


@MODES
async def test_links_that_name_another_host_are_followed_where_the_server_is(keyset: bool, world: World) -> None:
    for _ in range(250):
        world.advance(7)
        world.create("HARBOR")
    for number in range(130):
        world.comment(world.all_current("HARBOR")[0].id, f"Remark {number}")
    async with connected(world) as (tracker, connector):
        tracker.keyset = keyset
        tracker.external_url = "http://gitlab.inside.example"

        pages = await walk(connector, issues_of(world))

    assert shown(pages) == {issue.id for issue in world.all_current("HARBOR")}
    assert len(shown(pages, Stream.COMMENTS)) == 130


async def test_a_server_that_refuses_keyset_pages_is_walked_by_time_of_change(world: World) -> None:
    for _ in range(150):
        world.advance(7)
        world.create("HARBOR")
    async with connected(world) as (tracker, connector):
        tracker.keyset = False
        said = '{"error": "Keyset pagination is not yet available for this type of request"}'
        tracker.faults.append(Fault("status", status=405, body=said, path="/issues"))

        pages = await walk(connector, issues_of(world))

    assert shown(pages) == {issue.id for issue in world.all_current("HARBOR")}


@MODES
async def test_twelve_hundred_issues_of_one_instant_are_all_shown(keyset: bool, world: World) -> None:
    for _ in range(1_200):
        world.create("HARBOR")
    async with connected(world) as (tracker, connector):
        tracker.keyset = keyset
        part = issues_of(world, since=world.now - timedelta(minutes=1))

        pages = await walk(connector, part)

    assert shown(pages) == {issue.id for issue in world.all_current("HARBOR")}


def rename(world: World) -> None:
    issues = world.all_current("HARBOR")
    world.edit(world.random.choice(issues).id, title="Renamed")


def delete(world: World) -> None:
    world.delete(world.random.choice(world.all_current("HARBOR")).id)


def create(world: World) -> None:
    world.create("HARBOR")


async def test_an_instant_that_fills_pages_hides_nothing_from_a_walk_by_offsets(world: World) -> None:
    """After a bulk change hundreds of rows share one time; deletions then move those behind them."""
    for _ in range(650):
        world.advance(1)
        world.create("HARBOR")
    for issue in world.all_current("HARBOR"):
        world.edit(issue.id, title="Touched by a script")
    async with connected(world, streams=["issues"]) as (tracker, connector):
        tracker.keyset = False

        def meddle(call: Call) -> None:
            if "order_by=created_at" in call.query:
                for issue in world.all_current("HARBOR")[:3]:
                    world.delete(issue.id)

        tracker.before_request = meddle
        pages = await walk(connector, issues_of(world, since=world.now - timedelta(minutes=1)))

    assert {issue.id for issue in world.all_current("HARBOR")} <= shown(pages)
    assert len(world.all_current("HARBOR")) < 640


@MODES
@pytest.mark.parametrize("change", [rename, delete, create], ids=["edits", "deletes", "inserts"])
async def test_nothing_that_stays_is_missed_while_the_list_changes(
    keyset: bool, change: Callable[[World], None], world: World
) -> None:
    for _ in range(450):
        world.advance(7)
        world.create("HARBOR")
    before = {issue.id for issue in world.all_current("HARBOR")}
    async with connected(world) as (tracker, connector):
        tracker.keyset = keyset

        def meddle(call: Call) -> None:
            if call.path.endswith("/issues"):
                world.advance(1)
                change(world)

        tracker.before_request = meddle
        pages = await walk(connector, issues_of(world))

    stayed = before & {issue.id for issue in world.all_current("HARBOR")}
    assert stayed <= shown(pages)


async def test_only_what_changed_is_asked_for_since_a_time(world: World) -> None:
    old = world.create("HARBOR")
    world.advance(3_600)
    new = world.create("HARBOR")
    async with connected(world) as (_, connector):
        pages = await walk(connector, issues_of(world, since=new.updated))

    assert shown(pages) == {new.id}
    assert old.id not in shown(pages)


async def test_pieces_of_a_large_project_cover_it(world: World) -> None:
    for _ in range(2_300):
        world.advance(60)
        world.create("HARBOR")
    async with connected(world, streams=["issues"]) as (tracker, connector):
        tracker.count_cap = 1_000
        pieces = await connector.split(issues_of(world))
        found = [await walk(connector, piece) for piece in pieces]

    assert len(pieces) > 1
    assert set().union(*(shown(pages) for pages in found)) == {issue.id for issue in world.all_current("HARBOR")}


async def test_notes_are_read_to_the_end_and_only_where_there_are_some(world: World) -> None:
    busy, quiet = world.create("HARBOR"), world.create("HARBOR")
    for number in range(130):
        world.comment(busy.id, f"Remark {number}")
    async with connected(world) as (tracker, connector):
        pages = await walk(connector, issues_of(world))
        notes = tracker.count("/notes")

    assert len(shown(pages, Stream.COMMENTS)) == 130
    assert notes == 2, "two pages for one issue, none for the other"
    complete = {(each.stream, each.issue_id): each.ids for page in pages for each in page.complete}
    assert len(complete[Stream.COMMENTS, str(busy.id)]) == 130
    assert complete[Stream.COMMENTS, str(quiet.id)] == frozenset()


def worklogs_of(connector: GitLabConnector, page: Page) -> dict[str, Worklog]:
    found = [connector.normalize(sent) for sent in page.records if sent.stream is Stream.WORKLOGS]
    return {each.external_id: each for each in found if isinstance(each, Worklog)}


async def test_time_spent_comes_entry_by_entry_and_vanishes_with_it(world: World) -> None:
    issue, idle = world.create("HARBOR"), world.create("HARBOR")
    first, second = world.log_work(issue.id, 5_400), world.log_work(issue.id, -600)
    async with connected(world) as (tracker, connector):
        (page,) = await walk(connector, issues_of(world))
        calls = tracker.count("/graphql")
        world.delete_worklog(issue.id, first.id)
        (after,) = await walk(connector, issues_of(world))

    entries = worklogs_of(connector, page)
    assert {each: entry.seconds for each, entry in entries.items()} == {str(first.id): 5_400, str(second.id): -600}
    entry = entries[str(first.id)]
    assert (entry.author, entry.started_at) == (first.author.name, first.started)
    assert (entry.issue_id, entry.issue_key) == (str(issue.id), f"tidewater/harbor#{issue.number}")
    assert calls == 1, "one call for a page of issues"
    complete = {each.issue_id: each.ids for each in after.complete if each.stream is Stream.WORKLOGS}
    assert complete == {str(issue.id): frozenset({str(second.id)}), str(idle.id): frozenset()}


async def test_more_entries_than_a_page_holds_come_whole(world: World) -> None:
    issue = world.create("HARBOR")
    for _ in range(250):
        world.log_work(issue.id, 60)
    async with connected(world) as (_, connector):
        (page,) = await walk(connector, issues_of(world))

    assert len(worklogs_of(connector, page)) == 250


@pytest.mark.parametrize("how", ["absent", "refuses", "too complex", "another shape", "not adding up"])
async def test_where_entries_are_not_known_the_sum_is_one_worklog(world: World, how: str) -> None:
    issue = world.create("HARBOR")
    work = world.log_work(issue.id, 5_400)
    async with connected(world) as (tracker, connector):
        tracker.graphql = how != "absent"
        if how == "refuses":
            tracker.faults.append(Fault("status", status=403, body="{}", path="graphql", times=9))
        if how == "another shape":
            body = '{"data": {"project": {"issues": {"nodes": [{"iid": "1"}]}}}}'
            tracker.faults.append(Fault("status", status=200, body=body, path="graphql", times=9))
        if how == "too complex":
            tracker.graphql_error = "Query has complexity of 300, which exceeds max complexity of 250"
        if how == "not adding up":
            # As when somebody logs time between the two calls.
            tracker.before_request = lambda call: (
                world.log_work(issue.id, 60) and None if "graphql" in call.path else None
            )
        (page,) = await walk(connector, issues_of(world))
        tracker.before_request = None
        for each in (world.current(issue.id) or issue).worklogs:
            world.delete_worklog(issue.id, each.id)
        (after,) = await walk(connector, issues_of(world))

    assert {each: entry.seconds for each, entry in worklogs_of(connector, page).items()} == {f"{issue.id}-total": 5_400}
    assert [each.ids for each in after.complete if each.stream is Stream.WORKLOGS] == [frozenset()]
    assert str(work.id) not in worklogs_of(connector, page)


async def test_a_limit_while_entries_are_read_is_a_limit(world: World) -> None:
    world.log_work(world.create("HARBOR").id)
    async with connected(world) as (tracker, connector):
        tracker.faults.append(Fault("limited", seconds=30, path="graphql"))

        with pytest.raises(SourceError) as refused:
            await connector.fetch(issues_of(world), None)

    assert refused.value.trouble is Trouble.RATE_LIMIT


async def test_a_preview_costs_one_call(world: World) -> None:
    issue = world.create("HARBOR")
    world.comment(issue.id)
    world.log_work(issue.id)
    async with connected(world) as (_, connector):
        page = await connector.fetch(issues_of(world), None, most=20)

        assert connector.requests == 1

    assert (shown([page]), page.complete) == ({issue.id}, [])


async def test_named_issues_come_with_their_notes_and_missing_ones_are_told(world: World) -> None:
    there, hidden, deleted = (world.create("HARBOR") for _ in range(3))
    world.comment(there.id)
    world.edit(hidden.id, hidden=True)
    world.delete(deleted.id)
    asked = [{"id": str(each.id), "key": f"tidewater/harbor#{each.number}"} for each in (there, hidden, deleted)]
    query = {"issues": asked, "ids": [each["id"] for each in asked], "keys": ["tidewater/nowhere#1"]}
    async with connected(world) as (_, connector):
        page = await connector.fetch(Part(kind=PartKind.KEYS, stream=Stream.ISSUES, scope="*", query=query), None)

    assert shown([page]) == {there.id}
    assert len(shown([page], Stream.COMMENTS)) == 1
    assert {(gone.external_id, gone.absence) for gone in page.gone} == {
        (str(hidden.id), Absence.DELETED_OR_HIDDEN),
        (str(deleted.id), Absence.DELETED_OR_HIDDEN),
        ("tidewater/nowhere#1", Absence.DELETED_OR_HIDDEN),
    }


async def test_the_census_shows_all_and_reads_no_notes(world: World) -> None:
    issue = world.create("HARBOR")
    world.comment(issue.id)
    async with connected(world) as (tracker, connector):
        (page,) = await walk(connector, issues_of(world, kind=PartKind.CENSUS))

        assert tracker.count("/notes") == 0

    assert [each for each, _ in page.seen] == [str(issue.id)]
    assert page.complete == [] or all(each.stream is not Stream.COMMENTS for each in page.complete)


async def test_projects_that_cannot_be_read_are_gaps(world: World) -> None:
    async with connected(world, projects=["tidewater/harbor", "tidewater/secret"]) as (_, connector):
        scopes, gaps = await connector.scopes()

    assert [scope.name for scope in scopes] == ["tidewater/harbor"]
    assert [(gap.scope, gap.trouble) for gap in gaps] == [("tidewater/secret", Trouble.NOT_FOUND)]


async def test_a_moved_project_is_found_under_its_former_path(world: World) -> None:
    async with connected(world, projects=["old/place"]) as (tracker, connector):
        tracker.moved["old/place"] = world.projects["HARBOR"].id

        scopes, gaps = await connector.scopes()

    assert ([scope.name for scope in scopes], gaps) == (["tidewater/harbor"], [])


async def test_known_issues_are_asked_for_by_the_number_of_their_project(world: World) -> None:
    """Paths change hands: under the old one there may be another project by now."""
    issue, other = world.create("HARBOR"), world.create("PETREL")
    asked = [{"id": str(issue.id), "key": f"tidewater/petrel#{issue.number}"}]
    query = {"issues": asked, "ids": [str(issue.id)], "keys": []}
    async with connected(world) as (_, connector):
        page = await connector.fetch(issues_of(world, kind=PartKind.KEYS, query=query), None)
        by_path = await connector.fetch(issues_of(world, kind=PartKind.KEYS, query=query, scope="*"), None)

    assert (shown([page]), page.gone) == ({issue.id}, [])
    assert shown([by_path]) == set(), f"{other.id} is not what was asked for"
    assert [gone.external_id for gone in by_path.gone] == [str(issue.id)]


@pytest.mark.parametrize("fault", [(404, Trouble.NOT_FOUND), (403, Trouble.PERMISSION_DENIED)])
async def test_a_project_that_is_hidden_now_says_nothing_of_its_issues(
    world: World, fault: tuple[int, Trouble]
) -> None:
    hidden, there = world.create("HARBOR"), world.create("PETREL")
    asked = [{"id": str(each.id), "key": f"tidewater/{each.project.lower()}#{each.number}"} for each in (hidden, there)]
    status, trouble = fault
    async with connected(world) as (tracker, connector):
        body = json.dumps({"message": f"{status} Project Not Found"})
        tracker.faults.append(Fault("status", status=status, body=body, path="harbor"))
        part = issues_of(world, kind=PartKind.KEYS, scope="*", query={"issues": asked})
        page = await connector.fetch(part, None)

    assert (shown([page]), page.gone) == ({there.id}, [])
    assert [(gap.scope, gap.trouble, gap.status) for gap in page.gaps] == [("tidewater/harbor", trouble, status)]


@pytest.mark.parametrize("key", ["HARBOR-1", "tidewater/harbor", "#1", "tidewater/harbor#one", "tidewater/harbor!1"])
async def test_what_is_no_key_is_told_and_not_asked_for(world: World, key: str) -> None:
    async with connected(world) as (tracker, connector):
        with pytest.raises(SourceError) as refused:
            await connector.fetch(issues_of(world, kind=PartKind.KEYS, scope="*", query={"keys": [key]}), None)

        assert tracker.count() == 0

    assert refused.value.trouble is Trouble.BAD_REQUEST
    assert "group/project#12" in refused.value.hint


async def test_an_issue_known_by_its_id_alone_is_a_gap_beside_the_others(world: World) -> None:
    """The store has no key for a record that was rejected."""
    there = world.create("HARBOR")
    asked = [{"id": "7", "key": None}, {"id": str(there.id), "key": f"tidewater/harbor#{there.number}"}]
    async with connected(world) as (_, connector):
        page = await connector.fetch(issues_of(world, kind=PartKind.KEYS, query={"issues": asked}), None)

    assert (shown([page]), page.gone) == ({there.id}, [])
    assert [gap.trouble for gap in page.gaps] == [Trouble.BAD_REQUEST]


async def test_merge_requests_are_read_by_key() -> None:
    world = seeded(40, projects=("HARBOR",))
    async with connected(world) as (tracker, connector):
        wanted = tracker.merge_requests[1]
        query = {"keys": [f"tidewater/harbor!{wanted.iid}", "tidewater/harbor!999"]}
        part = issues_of(world, stream=Stream.PULL_REQUESTS, kind=PartKind.KEYS, scope="*", query=query)
        page = await connector.fetch(part, None)

    assert shown([page], Stream.PULL_REQUESTS) == {wanted.id}
    assert [gone.external_id for gone in page.gone] == ["tidewater/harbor!999"]


async def test_the_census_of_merge_requests_shows_which_are_left() -> None:
    world = seeded(40, projects=("HARBOR",))
    async with connected(world) as (tracker, connector):
        part = issues_of(world, stream=Stream.PULL_REQUESTS, kind=PartKind.CENSUS)
        (before,) = await walk(connector, part)
        gone = tracker.merge_requests.pop()
        (after,) = await walk(connector, part)

    assert {each for each, _ in before.seen} - {each for each, _ in after.seen} == {str(gone.id)}


async def test_history_that_is_asked_for_by_name_comes_for_silent_issues_too(world: World) -> None:
    silent = world.create("HARBOR")
    world.edit(silent.id, title="Renamed")
    async with connected(world, streams=["issues", "history"]) as (_, named):
        (whole,) = await walk(named, issues_of(world))
    async with connected(world) as (tracker, all_streams):
        (few,) = await walk(all_streams, issues_of(world))

        assert tracker.count("/notes") == 0

    assert len(shown([whole], Stream.HISTORY)) == 1
    assert Stream.COMMENTS not in {each.stream for each in whole.complete}, "comments are not wanted there"
    assert shown([few], Stream.HISTORY) == set()


async def test_a_refusal_while_notes_are_read_calls_the_others_off(world: World) -> None:
    for _ in range(60):
        world.comment(world.create("HARBOR").id)
    async with connected(world, concurrency=2) as (tracker, connector):
        tracker.faults.append(Fault("limited", seconds=30, path="/notes"))

        with pytest.raises(SourceError) as refused:
            await connector.fetch(issues_of(world), None)

        assert tracker.count("/notes") < 10

    assert refused.value.trouble is Trouble.RATE_LIMIT
