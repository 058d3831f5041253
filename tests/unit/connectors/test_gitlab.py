"""GitLab: its refusals, who a token is, and walks over a simulated GitLab that changes while it is read."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from local.trackers.gitlab import GitLabTracker
from local.trackers.service import Call, Fault
from local.trackers.world import START, World, seeded
from shared.connectors._gitlab_settings import GitLabCredentials, GitLabSettings
from shared.connectors._protocol import Absence, Page, Part, PartKind
from shared.connectors.gitlab import GitLabConnector
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Sprint, Stream, Worklog
from tests.support.renewing import KeptInMemory

FIXTURES = Path(__file__).parents[2] / "fixtures" / "gitlab"


def connector_for(client: httpx.AsyncClient, url: str, **settings: Any) -> GitLabConnector:
    credentials = GitLabCredentials(token="glpat-valid", kind=settings.pop("kind", "access_token"))
    return GitLabConnector(client, url, GitLabSettings(**{"concurrency": 8, **settings}), credentials)


@asynccontextmanager
async def connected(world: World, **settings: Any) -> AsyncIterator[tuple[GitLabTracker, GitLabConnector]]:
    async with GitLabTracker(world) as tracker, httpx.AsyncClient() as client:
        yield tracker, connector_for(client, tracker.url, **settings)


async def walk(connector: GitLabConnector, part: Part, *, most_pages: int = 400) -> list[Page]:
    """Every page, each from a position that went through JSON."""
    pages: list[Page] = []
    position = None
    for _ in range(most_pages):
        pages.append(await connector.fetch(part, position))
        if pages[-1].next is None:
            return pages
        position = json.loads(json.dumps(pages[-1].next))
    raise AssertionError("the walk does not end")


def issues_of(world: World, key: str = "HARBOR", **values: Any) -> Part:
    return Part(**{"kind": PartKind.WINDOW, "stream": Stream.ISSUES, "scope": str(world.projects[key].id), **values})


def shown(pages: Sequence[Page], stream: Stream = Stream.ISSUES) -> set[int]:
    return {sent.raw["id"] for page in pages for sent in page.records if sent.stream is stream}


@pytest.fixture
def world() -> World:
    made = World(note_throttle=timedelta(seconds=60))
    made.add_project("HARBOR")
    made.add_project("PETREL")
    return made


# Refusals

ERRORS: list[dict[str, Any]] = json.loads((FIXTURES / "errors.json").read_text())


@pytest.mark.parametrize("told", ERRORS, ids=[each["case"] for each in ERRORS])
async def test_every_refusal_has_its_class(world: World, told: dict[str, Any]) -> None:
    world.create("HARBOR")
    async with connected(world) as (tracker, connector):
        body, kind = told.get("text"), "text/plain"
        if body is None:
            body, kind = json.dumps(told["body"]), "application/json"
        elif body.startswith("<"):
            kind = "text/html"
        fault = Fault("status", status=told["status"], body=body, headers={"Content-Type": kind}, times=9)
        tracker.faults.append(fault)

        with pytest.raises(SourceError) as refused:
            await connector.fetch(issues_of(world), None)

    assert refused.value.trouble == told["trouble"]
    assert told.get("says", "") in refused.value.detail
    assert told.get("hint", "") in refused.value.hint
    assert refused.value.hint


@pytest.mark.parametrize(
    ("fault", "trouble"),
    [
        pytest.param(Fault("reset", times=9), Trouble.NETWORK_GLITCH, id="reset"),
        pytest.param(Fault("truncated", times=9), Trouble.PAYLOAD_INVALID, id="truncated"),
        pytest.param(Fault("maintenance", times=9), Trouble.SERVER_ERROR, id="502 page"),
    ],
)
async def test_a_failure_that_stays_has_its_class(world: World, fault: Fault, trouble: Trouble) -> None:
    async with connected(world) as (tracker, connector):
        tracker.faults.append(fault)

        with pytest.raises(SourceError) as failed:
            await connector.fetch(issues_of(world), None)

    assert failed.value.trouble is trouble


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({"Retry-After": "30", "RateLimit-Reset": "1"}, 30, id="Retry-After"),
        pytest.param({"RateLimit-Reset": str(int(START.timestamp()) + 45)}, 45, id="reset by GitLab's clock"),
        pytest.param({"RateLimit-Reset": str(int(START.timestamp()) - 45)}, 1, id="reset is past"),
        pytest.param({"RateLimit-Reset": "9" * 30}, None, id="reset makes no sense"),
        pytest.param({}, None, id="self-managed without headers"),
    ],
)
async def test_a_limit_says_when_to_go_on(world: World, headers: dict[str, str], seconds: int | None) -> None:
    plain = {"Content-Type": "text/plain", **headers}
    async with connected(world) as (tracker, connector):
        tracker.tells_quota = False
        tracker.faults.append(Fault("status", status=429, body="Retry later\n", headers=plain))

        with pytest.raises(SourceError) as refused:
            await connector.fetch(issues_of(world), None)

    assert refused.value.trouble is Trouble.RATE_LIMIT
    if seconds is None:
        assert refused.value.retry_at is None
    else:
        assert refused.value.retry_at is not None
        assert abs((refused.value.retry_at - datetime.now(UTC)).total_seconds() - seconds) < 5


async def test_the_limit_is_read_from_its_headers(world: World) -> None:
    async with connected(world) as (_, connector):
        await connector.now()

        assert connector.quota is not None
        assert connector.quota.limit == 2_000
        assert connector.quota.remaining is not None


# Walks

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


# Sprints


def group_milestone() -> dict[str, Any]:
    return json.loads((FIXTURES / "milestone.json").read_text())


def iteration() -> dict[str, Any]:
    return json.loads((FIXTURES / "iteration.json").read_text())


async def sprints_of(connector: GitLabConnector, world: World) -> tuple[Page, dict[str, Sprint]]:
    (page,) = await walk(connector, issues_of(world, stream=Stream.SPRINTS, kind=PartKind.SNAPSHOT))
    found = [connector.normalize(sent) for sent in page.records]
    return page, {each.external_id: each for each in found if isinstance(each, Sprint)}


async def test_sprints_are_milestones_of_project_and_group_and_iterations(world: World) -> None:
    own = world.add_sprint("HARBOR", "Ebb")
    async with connected(world) as (tracker, connector):
        tracker.group_milestones = [group_milestone()]
        tracker.iterations = [iteration()]
        page, sprints = await sprints_of(connector, world)

    assert set(sprints) == {str(own.id), "6021", "iteration-6021"}, "milestones and iterations count by themselves"
    assert (sprints["6021"].name, sprints["iteration-6021"].name) == ("High water", "2025-05-05 - 2025-05-18")
    assert (sprints["iteration-6021"].state, page.gaps) == ("active", [])


async def test_a_gitlab_without_iterations_has_milestones_and_no_gap(world: World) -> None:
    own = world.add_sprint("HARBOR", "Ebb")
    async with connected(world) as (_, connector):
        page, sprints = await sprints_of(connector, world)
        probe = await connector.check()

    assert (set(sprints), page.gaps) == ({str(own.id)}, [])
    assert any("no iterations" in warning for warning in probe.warnings)


async def test_refused_milestones_are_no_empty_list(world: World) -> None:
    async with connected(world) as (tracker, connector):
        tracker.faults.append(Fault("status", status=403, body='{"message": "403 Forbidden"}', path="/milestones"))

        with pytest.raises(SourceError) as refused:
            await sprints_of(connector, world)

    assert refused.value.trouble is Trouble.PERMISSION_DENIED


async def test_a_quiet_project_costs_a_call_for_each_list() -> None:
    world = seeded(0, projects=("HARBOR",))
    calls: dict[Stream, int] = {}
    async with connected(world) as (_, connector):
        for stream in (Stream.ISSUES, Stream.PULL_REQUESTS, Stream.SPRINTS, Stream.USERS):
            kind = PartKind.SNAPSHOT if stream in {Stream.SPRINTS, Stream.USERS} else PartKind.WINDOW
            before = connector.requests
            await walk(connector, issues_of(world, stream=stream, kind=kind))
            calls[stream] = connector.requests - before

    assert list(calls.values()) == [1, 1, 2, 1], "sprints are milestones and iterations"


@pytest.mark.parametrize("counted", [True, False], ids=["totals", "no totals"])
async def test_a_list_that_changed_under_its_pages_is_read_again_or_told(
    world: World, counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a member leaves, the first row of the next page slides onto the one just read."""
    monkeypatch.setattr("shared.connectors._gitlab_walk.PAGE_SIZE", 4)
    async with connected(world) as (tracker, connector):
        tracker.count_cap = 100 if counted else 1

        def leave(call: Call) -> None:
            if "page=2" in call.query and len(world.users) == 8:
                del world.users[0]

        tracker.before_request = leave
        (page,) = await walk(connector, issues_of(world, stream=Stream.USERS, kind=PartKind.SNAPSHOT))

    there = {user.id for user in world.users}
    if counted:
        assert (shown([page], Stream.USERS), page.gaps) == (there, [])
    else:
        assert [gap.stream for gap in page.gaps] == [Stream.USERS]


# Who the token is


async def test_the_check_tells_who_and_what(world: World) -> None:
    async with connected(seeded(30, projects=("HARBOR", "PETREL"))) as (tracker, connector):
        tracker.iterations = []
        probe = await connector.check()

    assert (probe.account, probe.deployment) == ("noor", "GitLab 18.5.1-ee")
    assert (list(probe.granted), list(probe.missing), probe.warnings) == (["read_api"], [], [])
    assert sum(probe.counts.values()) == 30
    assert (probe.expires_at, probe.server_time) == (datetime(2027, 1, 31, tzinfo=UTC), START)
    assert probe.quota is not None


async def test_an_application_tells_its_scopes_and_no_end(world: World) -> None:
    async with GitLabTracker(world) as tracker, httpx.AsyncClient() as client:
        held = GitLabCredentials.model_validate(tracker.authorize())
        connector = GitLabConnector(client, tracker.url, GitLabSettings(), held, KeptInMemory(held).renew)
        probe = await connector.check()

        assert (list(probe.granted), probe.expires_at) == (["read_api"], None)
        assert not any("not renewed" in warning for warning in probe.warnings)
        assert connector.requests == len(tracker.calls)


async def test_a_server_that_forgets_an_application_says_what_to_check(world: World) -> None:
    async with GitLabTracker(world) as tracker, httpx.AsyncClient() as client:
        held = GitLabCredentials.model_validate({**tracker.authorize(), "client_secret": "wrong-secret"})
        connector = GitLabConnector(client, tracker.url, GitLabSettings(), held, KeptInMemory(held).renew)
        with pytest.raises(SourceError, match="gets no token") as refused:
            await connector.check()

    assert (refused.value.trouble, tracker.count("/oauth/token")) == (Trouble.AUTH_INVALID, 1)
    assert "wrong-secret" not in refused.value.detail


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"token": " "},
        {"kind": "oauth"},
        {"client_id": "a", "client_secret": "b"},
        {"refresh_token": "c"},
        {"token": "t", "client_id": "a", "client_secret": "b", "refresh_token": "c"},
    ],
)
def test_half_of_an_application_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="Give a token"):
        GitLabCredentials.model_validate(values)


async def test_an_oauth_token_is_sent_as_such_and_tells_its_end(world: World) -> None:
    async with connected(world, kind="oauth") as (tracker, connector):
        tracker.oauth = True
        tracker.scopes = ["api"]
        probe = await connector.check()

    assert (list(probe.granted), probe.expires_at) == (["api"], START + timedelta(hours=2))
    assert "This token may write as well; one with read_api is enough" in probe.warnings
    assert any("not renewed" in warning for warning in probe.warnings)


async def test_a_token_without_the_scope_is_refused_with_its_name(world: World) -> None:
    async with connected(world) as (tracker, connector):
        tracker.scopes = ["read_repository"]

        with pytest.raises(SourceError) as refused:
            await connector.check()

    assert refused.value.trouble is Trouble.PERMISSION_DENIED
    assert "read_api" in refused.value.hint


async def test_a_role_that_hides_confidential_issues_is_told(world: World) -> None:
    async with connected(world) as (tracker, connector):
        tracker.role = 10
        probe = await connector.check()

    assert probe.missing == ["role Reporter (for confidential issues) in tidewater/harbor, tidewater/petrel"]


async def test_a_project_whose_issues_are_refused_does_not_fail_the_check(world: World) -> None:
    world.create("PETREL")
    async with connected(world) as (tracker, connector):
        body = '{"message": "403 Forbidden"}'
        tracker.faults.append(Fault("status", status=403, body=body, path=f"/{world.projects['HARBOR'].id}/issues"))
        probe = await connector.check()

    assert dict(probe.counts) == {str(world.projects["PETREL"].id): 1}


async def test_issues_that_are_too_many_to_be_counted_are_estimated(world: World) -> None:
    for _ in range(12):
        world.create("HARBOR")
    async with connected(world) as (tracker, connector):
        tracker.count_cap = 10
        probe = await connector.check()

    assert probe.counts[str(world.projects["HARBOR"].id)] == 12


@pytest.mark.parametrize(
    "pasted",
    [
        "tidewater/harbor",
        " https://gitlab.example/tidewater/harbor/ ",
        "https://gitlab.example/tidewater/harbor.git",
        "https://gitlab.example/tidewater/harbor/-/issues/?state=opened",
    ],
)
def test_a_pasted_address_names_a_project(pasted: str) -> None:
    assert GitLabSettings(projects=[pasted]).projects == ("tidewater/harbor",)


def test_a_pasted_address_names_a_group_and_an_id_a_project() -> None:
    settings = GitLabSettings(groups=["https://gitlab.example/groups/tidewater/quay"], projects=["5120"])

    assert (settings.groups, settings.projects) == (("tidewater/quay",), ("5120",))


@pytest.mark.parametrize("name", ["", "  ", "a b", "tidewater//harbor", "../etc"])
def test_what_is_no_path_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="projects"):
        GitLabSettings(projects=[name])


async def test_groups_bring_all_their_projects(world: World) -> None:
    async with connected(world, groups=["tidewater", "nobody"], projects=["tidewater/harbor"]) as (_, connector):
        scopes, gaps = await connector.scopes()

    assert [scope.name for scope in scopes] == ["tidewater/harbor", "tidewater/petrel"]
    assert [(gap.scope, gap.trouble) for gap in gaps] == [("nobody", Trouble.NOT_FOUND)]


async def test_there_are_projects_and_people_to_choose_from(world: World) -> None:
    async with connected(world) as (_, connector):
        projects = await connector.discover("projects")
        people = await connector.discover("users")

        assert await connector.discover("boards") == []

    assert [choice.id for choice in projects] == ["tidewater/harbor", "tidewater/petrel"]
    assert "iva" in {choice.id for choice in people}


@pytest.mark.parametrize("stream", [Stream.PULL_REQUESTS, Stream.SPRINTS, Stream.USERS, Stream.PROJECTS])
async def test_the_other_streams_are_read_whole(stream: Stream) -> None:
    world = seeded(40, projects=("HARBOR",))
    async with connected(world) as (_, connector):
        kind = PartKind.WINDOW if stream is Stream.PULL_REQUESTS else PartKind.SNAPSHOT
        pages = await walk(connector, issues_of(world, stream=stream, kind=kind))

        records = [connector.normalize(sent) for page in pages for sent in page.records]

    expected = {Stream.PULL_REQUESTS: 4, Stream.SPRINTS: 2, Stream.USERS: len(world.users), Stream.PROJECTS: 1}
    assert len({record.external_id for record in records}) == expected[stream]
