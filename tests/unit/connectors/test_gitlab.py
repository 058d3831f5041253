"""GitLab: its records in our words, its refusals, and walks over a simulated GitLab that changes while it is read."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.trackers.gitlab import GitLabTracker
from local.trackers.service import Call, Fault
from local.trackers.world import World, seeded
from shared.connectors._protocol import Absence, Page, Part, PartKind, Sent
from shared.connectors.gitlab import GitLabConnector, GitLabCredentials, GitLabSettings
from shared.domain.errors import SourceError, Trouble
from shared.domain.issue import Severity, StatusCategory
from shared.domain.stream import Comment, HistoryEntry, Issue, Stream

FIXTURES = Path(__file__).parents[2] / "fixtures" / "gitlab"


def load(name: str) -> dict[str, Any]:
    return json.loads((FIXTURES / f"{name}.json").read_text())


def connector_for(client: httpx.AsyncClient, url: str, **settings: Any) -> GitLabConnector:
    credentials = GitLabCredentials(token="glpat-valid")
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


def normalized(stream: Stream, raw: dict[str, Any], **context: Any) -> Any:
    return connector_for(httpx.AsyncClient(), "https://gitlab.example").normalize(Sent(stream, raw, "5120", context))


@pytest.fixture
def world() -> World:
    made = World(note_throttle=timedelta(seconds=60))
    made.add_project("HARBOR")
    made.add_project("PETREL")
    return made


# Records


def test_an_issue_in_our_words() -> None:
    issue = normalized(Stream.ISSUES, load("issue"))

    assert isinstance(issue, Issue)
    assert (issue.external_id, issue.key, issue.project) == (
        "84213077",
        "tidewater/quay/harbor#412",
        "tidewater/quay/harbor",
    )
    assert (issue.status, issue.status_category) == ("in review", StatusCategory.IN_PROGRESS)
    assert (issue.priority, issue.severity) == ("high", Severity.HIGH)
    assert (issue.assignee, issue.reporter) == ("Rae Ellison", None)
    assert (issue.sprint, issue.sprint_ids, issue.parent) == ("Spring tide", ("991",), "55")
    assert (issue.due_on, issue.story_points, issue.estimate_seconds) == (date(2025, 3, 20), 3, 7_200)
    assert issue.stack_trace is not None
    assert "SlipError" in issue.stack_trace
    assert issue.source_updated_at == datetime(2025, 3, 2, 17, 45, 0, 120_000, tzinfo=UTC)
    assert issue.payload == load("issue")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"labels": [], "state": "closed"}, ("closed", StatusCategory.DONE), id="closed"),
        pytest.param({"labels": []}, ("opened", StatusCategory.OPEN), id="open"),
        pytest.param(
            {"labels": ["status::done"]}, ("done", StatusCategory.IN_PROGRESS), id="open with a label that says done"
        ),
        pytest.param(
            {"labels": [{"name": "workflow::blocked"}]},
            ("blocked", StatusCategory.IN_PROGRESS),
            id="label with details",
        ),
    ],
)
def test_the_status_of_an_issue(changes: dict[str, Any], expected: tuple[str, StatusCategory]) -> None:
    issue = normalized(Stream.ISSUES, {**load("issue"), **changes})

    assert (issue.status, issue.status_category) == expected


@pytest.mark.parametrize("field", ["milestone", "time_stats", "epic", "description", "weight", "labels", "assignees"])
def test_what_is_null_breaks_nothing(field: str) -> None:
    changes = {field: None, **({"assignee": None} if field == "assignees" else {})}

    assert normalized(Stream.ISSUES, {**load("issue"), **changes}).title


@pytest.mark.parametrize("broken", [{"title": None}, {"title": ""}, {"updated_at": "yesterday"}, {"labels": 7}])
def test_what_makes_no_sense_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        normalized(Stream.ISSUES, {**load("issue"), **broken})


def test_people_write_comments_and_gitlab_writes_history() -> None:
    note = {
        "id": 5,
        "body": "Look",
        "author": None,
        "created_at": "2025-03-02T17:45:00.120Z",
        "updated_at": "2025-03-02T17:45:00.120Z",
    }

    comment = normalized(Stream.COMMENTS, {**note, "system": False, "internal": True}, issue_id="9")
    change = normalized(Stream.HISTORY, {**note, "system": True}, issue_id="9")

    assert isinstance(comment, Comment)
    assert (comment.issue_id, comment.body, comment.internal, comment.author) == ("9", "Look", True, None)
    assert isinstance(change, HistoryEntry)
    assert change.changes == {"note": {"from": None, "to": "Look"}}


# Refusals


@pytest.mark.parametrize(
    ("fault", "trouble"),
    [
        pytest.param(
            Fault("status", status=401, body='{"message": "401 Unauthorized"}'), Trouble.AUTH_INVALID, id="401"
        ),
        pytest.param(
            Fault("status", status=401, body='{"error": "invalid_token", "error_description": "Token is expired."}'),
            Trouble.AUTH_EXPIRED,
            id="expired",
        ),
        pytest.param(
            Fault("status", status=401, body='{"error": "invalid_token", "error_description": "Token was revoked."}'),
            Trouble.AUTH_EXPIRED,
            id="revoked",
        ),
        pytest.param(
            Fault("status", status=403, body='{"error": "insufficient_scope", "scope": "api"}'),
            Trouble.PERMISSION_DENIED,
            id="scope",
        ),
        pytest.param(Fault("status", status=403, body="Forbidden"), Trouble.PERMISSION_DENIED, id="blocked address"),
        pytest.param(Fault("status", status=402, body="{}"), Trouble.SUSPENDED_PAYMENT, id="402"),
        pytest.param(
            Fault("status", status=404, body='{"message": "404 Project Not Found"}'), Trouble.NOT_FOUND, id="404"
        ),
        pytest.param(Fault("status", status=400, body='{"error": "sort is invalid"}'), Trouble.BAD_REQUEST, id="400"),
        pytest.param(
            Fault("status", status=422, body='{"message": {"title": ["can\'t be blank"]}}'),
            Trouble.BAD_REQUEST,
            id="message object",
        ),
        pytest.param(Fault("status", status=410, body="{}"), Trouble.SCHEMA_CHANGED, id="410"),
        pytest.param(Fault("limited", seconds=30), Trouble.RATE_LIMIT, id="429"),
        pytest.param(Fault("status", status=500, body="{}", times=9), Trouble.SERVER_ERROR, id="500"),
        pytest.param(Fault("maintenance", times=9), Trouble.SERVER_ERROR, id="502 page"),
        pytest.param(
            Fault("status", status=503, body="<html>", headers={"Content-Type": "text/html"}, times=9),
            Trouble.MAINTENANCE,
            id="503 page",
        ),
        pytest.param(Fault("reset", times=9), Trouble.NETWORK_GLITCH, id="reset"),
        pytest.param(Fault("truncated", times=9), Trouble.PAYLOAD_INVALID, id="truncated"),
    ],
)
async def test_every_refusal_has_its_class(world: World, fault: Fault, trouble: Trouble) -> None:
    world.create("HARBOR")
    async with connected(world) as (tracker, connector):
        tracker.faults.append(fault)

        with pytest.raises(SourceError) as refused:
            await connector.fetch(issues_of(world), None)

    assert refused.value.trouble is trouble
    assert refused.value.hint
    if trouble is Trouble.RATE_LIMIT:
        assert refused.value.retry_at is not None
        assert timedelta(seconds=20) < refused.value.retry_at - datetime.now(UTC) < timedelta(seconds=40)


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


async def test_time_spent_is_one_worklog_and_vanishes_with_it(world: World) -> None:
    issue = world.create("HARBOR")
    work = world.log_work(issue.id, 5_400)
    async with connected(world) as (_, connector):
        (page,) = await walk(connector, issues_of(world))
        world.delete_worklog(issue.id, work.id)
        (after,) = await walk(connector, issues_of(world))

    worklog = next(connector.normalize(sent) for sent in page.records if sent.stream is Stream.WORKLOGS)
    assert (worklog.external_id, worklog.seconds) == (f"{issue.id}-total", 5_400)  # type: ignore[attr-defined]
    assert [each.ids for each in after.complete if each.stream is Stream.WORKLOGS] == [frozenset()]


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


async def test_the_check_tells_who_and_what(world: World) -> None:
    async with connected(seeded(30, projects=("HARBOR", "PETREL"))) as (_, connector):
        probe = await connector.check()

    assert (probe.account, probe.deployment) == ("noor", "GitLab 18.5.1-ee")
    assert (list(probe.granted), list(probe.missing)) == (["read_api"], [])
    assert sum(probe.counts.values()) == 30
    assert probe.expires_at == datetime(2027, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize("stream", [Stream.PULL_REQUESTS, Stream.SPRINTS, Stream.USERS, Stream.PROJECTS])
async def test_the_other_streams_are_read_whole(stream: Stream) -> None:
    world = seeded(40, projects=("HARBOR",))
    async with connected(world) as (_, connector):
        kind = PartKind.WINDOW if stream is Stream.PULL_REQUESTS else PartKind.SNAPSHOT
        pages = await walk(connector, issues_of(world, stream=stream, kind=kind))

        records = [connector.normalize(sent) for page in pages for sent in page.records]

    expected = {Stream.PULL_REQUESTS: 4, Stream.SPRINTS: 2, Stream.USERS: len(world.users), Stream.PROJECTS: 1}
    assert len({record.external_id for record in records}) == expected[stream]
