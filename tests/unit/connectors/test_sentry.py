"""Sentry: its records in our words, its refusals, and walks over a simulated Sentry that changes while it is read."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.trackers import sentry as sentry_tracker
from local.trackers.sentry import Cursor, SentryTracker
from local.trackers.service import Call, Fault
from local.trackers.world import Comment, User, World, seeded
from shared.connectors._protocol import Absence, Page, Part, PartKind, Sent
from shared.connectors._sentry_walk import OVERLAP, Place, step
from shared.connectors.sentry import PARTIAL_PAYLOAD_KEY, SentryConnector, SentryCredentials, SentrySettings
from shared.domain.errors import SourceError, Trouble
from shared.domain.issue import Severity, StatusCategory
from shared.domain.stream import Issue, Stream

FIXTURES = Path(__file__).parents[2] / "fixtures" / "sentry"
NEVER = timedelta.max


def load(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_text())


def connector_for(client: httpx.AsyncClient, url: str, **settings: Any) -> SentryConnector:
    values = {"organization": "tidewater", "concurrency": 8, **settings}
    return SentryConnector(client, url, SentrySettings(**values), SentryCredentials(token="valid-token"))


@asynccontextmanager
async def connected(world: World, **settings: Any) -> AsyncIterator[tuple[SentryTracker, SentryConnector]]:
    async with SentryTracker(world) as tracker, httpx.AsyncClient() as client:
        yield tracker, connector_for(client, tracker.url, **settings)


async def walk(connector: SentryConnector, part: Part, *, most_pages: int = 200) -> list[Page]:
    pages, position = [], None
    for _ in range(most_pages):
        pages.append(await connector.fetch(part, position))
        if pages[-1].next is None:
            return pages
        position = json.loads(json.dumps(pages[-1].next))
    raise AssertionError("the walk does not end")


def issues_of(world: World, key: str = "HARBOR", **values: Any) -> Part:
    return Part(**{"kind": PartKind.WINDOW, "stream": Stream.ISSUES, "scope": str(world.projects[key].id), **values})


def shown(pages: Sequence[Page], stream: Stream = Stream.ISSUES) -> set[str]:
    return {sent.raw["id"] for page in pages for sent in page.records if sent.stream is stream}


def normalized(raw: dict[str, Any], **context: Any) -> Issue:
    connector = SentryConnector(
        httpx.AsyncClient(), "https://sentry.io", SentrySettings(organization="tidewater"), SentryCredentials(token="t")
    )
    record = connector.normalize(Sent(Stream.ISSUES, raw, "4507", context))
    assert isinstance(record, Issue)
    return record


@pytest.fixture
def world() -> World:
    made = World(note_throttle=NEVER)
    made.add_project("HARBOR")
    made.add_project("PETREL")
    return made


# Records


def test_a_listed_issue_with_its_latest_event_in_our_words() -> None:
    issue = normalized({**load("issue_listed"), PARTIAL_PAYLOAD_KEY: load("event_chained")})

    assert (issue.external_id, issue.key, issue.title) == (
        "88120045",
        "LEDGER-4F",
        "BookingError: total does not match",
    )
    assert (issue.description, issue.type, issue.project) == ("total does not match", "error", "ledger")
    assert (issue.status, issue.status_category, issue.resolution) == ("unresolved", StatusCategory.OPEN, None)
    assert (issue.severity, issue.priority, issue.assignee) == (Severity.CRITICAL, "medium", "Uma Gatti")
    assert (issue.labels, issue.components) == (("escalating", "unhandled"), ("python",))
    assert issue.source_created_at == datetime(2024, 6, 11, 5, 41, 9, 120000, UTC)
    assert issue.source_updated_at == datetime(2025, 3, 1, 7, 30, 12, tzinfo=UTC)
    assert issue.url == "https://tidewater.sentry.example/issues/88120045/"
    assert issue.payload["futureField"] == {"anything": [1, 2]}
    assert issue.payload["culprit"] == "ledger.post in book"
    assert issue.environment == {
        "environment": "production",
        "server_name": "quay-2",
        "os": "Linux 6.1",
        "runtime": "CPython 3.13.1",
        "device": "m7i",
        "release": "ledger@2025.3.1",
        "dist": "b7",
    }


def test_a_stack_trace_reads_like_python_with_the_root_cause_first() -> None:
    issue = normalized({**load("issue_listed"), PARTIAL_PAYLOAD_KEY: load("event_chained")})

    assert issue.stack_trace == (
        "Traceback (most recent call last):\n"
        '  File "ledger/rates.py", line 21, in rate  # in app\n'
        "    return TABLE[code]\n"
        "KeyError: 'EUR'\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        "Traceback (most recent call last):\n"
        "  [frames [2, 5] omitted]\n"
        '  File "wsgi/serve.py", line 300, in call\n'
        '  File "ledger.post", in ?  # in app\n'
        "BookingError: total does not match\n\n"
        "During handling of the above exception, another exception occurred:\n\n"
        "RetryError"
    )


def test_of_threads_the_crashed_one_is_told() -> None:
    issue = normalized({**load("issue_listed"), PARTIAL_PAYLOAD_KEY: load("event_threads")})

    assert issue.stack_trace == 'Traceback (most recent call last):\n  File "/usr/lib/libquay.so", in 0x1f3c'
    assert issue.environment == {"os": "Android 14"}


def test_unknown_entries_of_an_event_are_kept_and_break_nothing() -> None:
    event = load("event_unknown")

    issue = normalized({**load("issue_listed"), PARTIAL_PAYLOAD_KEY: event})

    assert issue.stack_trace is None
    assert issue.environment == {"server_name": "quay-9"}
    assert issue.payload[PARTIAL_PAYLOAD_KEY] == event


@pytest.mark.parametrize("event", [None, [], "odd", {}, {"entries": {}}, {"entries": None, "tags": {}, "contexts": []}])
def test_an_event_of_any_shape_leaves_the_issue_whole(event: object) -> None:
    issue = normalized({**load("issue_listed"), PARTIAL_PAYLOAD_KEY: event})

    assert (issue.stack_trace, issue.environment) == (None, None)


def test_a_single_issue_archived_and_given_to_a_team() -> None:
    issue = normalized(load("issue_single"))

    assert (issue.status, issue.status_category) == ("ignored", StatusCategory.DONE)
    assert issue.resolution == "archived_until_escalating"
    assert (issue.assignee, issue.type) == ("#bookkeeping", "performance_slow_db_query")
    # Lists know seconds only: the same issue must have the same time from both.
    assert issue.source_updated_at == datetime(2025, 2, 18, 6, 1, 20, tzinfo=UTC)


def test_a_regressed_issue_is_open_again_and_says_so() -> None:
    issue = normalized(load("issue_regressed"))

    assert (issue.status, issue.status_category) == ("unresolved", StatusCategory.OPEN)
    assert issue.labels == ("regressed",)
    assert issue.description == "From 310 ms to 905 ms (P95)"


def test_an_issue_without_anything_but_its_id() -> None:
    issue = normalized(load("issue_bare"))

    assert (issue.title, issue.status_category, issue.severity) == ("Untitled", StatusCategory.OPEN, None)
    assert (issue.key, issue.description, issue.source_updated_at, issue.labels) == (None, None, None, ())


@pytest.mark.parametrize(
    ("title", "kept"),
    [
        ("خطأ في الدفع 💥", "خطأ في الدفع 💥"),
        ("x" * 9_000, "x" * 4_000),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
    ],
    ids=["right to left", "long", "markup"],
)
def test_odd_titles_survive(title: str, kept: str) -> None:
    assert normalized({**load("issue_listed"), "title": title}).title == kept


@pytest.mark.parametrize(
    ("status", "details", "category", "resolution"),
    [
        ("unresolved", {}, StatusCategory.OPEN, None),
        ("resolved", {}, StatusCategory.DONE, None),
        ("resolved", {"inRelease": "ledger@2"}, StatusCategory.DONE, "in release ledger@2"),
        ("resolved", {"inNextRelease": True}, StatusCategory.DONE, "in the next release"),
        ("resolved", {"inCommit": {"id": "c0ffee"}}, StatusCategory.DONE, "in commit c0ffee"),
        ("resolvedInNextRelease", {}, StatusCategory.DONE, None),
        ("ignored", {}, StatusCategory.DONE, "escalating"),
        ("archived", {}, StatusCategory.DONE, "escalating"),
        ("adrift", {}, StatusCategory.OPEN, None),
    ],
)
def test_status(status: str, details: dict[str, Any], category: StatusCategory, resolution: str | None) -> None:
    issue = normalized({**load("issue_listed"), "status": status, "statusDetails": details})

    assert (issue.status, issue.status_category, issue.resolution) == (status, category, resolution)


@pytest.mark.parametrize(
    ("level", "priority", "severity"),
    [
        ("fatal", "low", Severity.CRITICAL),
        ("error", None, Severity.HIGH),
        ("warning", "high", Severity.MEDIUM),
        ("info", "high", Severity.LOW),
        ("debug", None, Severity.LOW),
        ("sample", "high", Severity.HIGH),
        (None, "medium", Severity.MEDIUM),
        (None, None, None),
    ],
)
def test_severity(level: str | None, priority: str | None, severity: Severity | None) -> None:
    assert normalized({**load("issue_listed"), "level": level, "priority": priority}).severity is severity


@pytest.mark.parametrize(
    ("assigned", "assignee"),
    [
        (None, None),
        ("", None),
        ("wim", "wim"),
        ({"type": "user", "name": "", "email": "wim@tidewater.example"}, "wim@tidewater.example"),
        ({"type": "team", "name": "crew"}, "#crew"),
        ({"type": "team"}, None),
    ],
)
def test_assignee(assigned: object, assignee: str | None) -> None:
    assert normalized({**load("issue_listed"), "assignedTo": assigned}).assignee == assignee


@pytest.mark.parametrize(
    "change",
    [{"id": ""}, {"firstSeen": "2025-01-01T00:00:00", "lifetime": None}, {"lastSeen": "soon", "lifetime": None}],
)
def test_a_record_that_makes_no_sense_is_rejected(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        normalized({**load("issue_listed"), **change})


async def test_notes_members_and_projects_in_our_words() -> None:
    async with httpx.AsyncClient() as client:
        normalize = connector_for(client, "https://sentry.io").normalize
        context = {"issue_id": "88120045", "issue_key": "LEDGER-4F"}
        note: Any = normalize(Sent(Stream.COMMENTS, load("note"), "4507", context))
        people: list[Any] = [normalize(Sent(Stream.USERS, raw, "*")) for raw in load("members")]
        project: Any = normalize(Sent(Stream.PROJECTS, load("project"), "*"))
        app: Any = normalize(Sent(Stream.COMMENTS, {"id": 1, "user": None, "sentry_app": {"name": "Pilot"}}, "4507"))

    assert (note.issue_id, note.issue_key, note.author) == ("88120045", "LEDGER-4F", "Uma Gatti")
    assert note.body.endswith("@wim please look")
    assert (app.author, app.body, app.source_created_at) == ("Pilot", "", None)
    assert [(each.external_id, each.login, each.active, each.time_zone) for each in people] == [
        ("31", "uma", True, "Europe/Rome"),
        ("member-5002", None, None, None),
    ]
    assert (project.external_id, project.key, project.owner) == ("4507", "ledger", "bookkeeping")


# Refusals

SSO = {
    "detail": {"code": "sso-required", "message": "Must login via SSO", "extra": {"loginUrl": "/auth/login/tidewater/"}}
}
OVER = {"detail": {"code": "member-disabled-over-limit", "message": "Organization over member limit", "extra": {}}}
TWO_FACTOR = {"detail": {"code": "2fa-required", "message": "Organization requires two-factor authentication"}}


@pytest.mark.parametrize(
    ("status", "body", "trouble"),
    [
        (400, {"detail": "Invalid cursor parameter."}, Trouble.BAD_REQUEST),
        (401, {"detail": "Invalid token"}, Trouble.AUTH_INVALID),
        (401, {"detail": "Token expired"}, Trouble.AUTH_EXPIRED),
        (401, SSO, Trouble.AUTH_EXPIRED),
        (401, TWO_FACTOR, Trouble.AUTH_INVALID),
        (401, OVER, Trouble.SUSPENDED_PAYMENT),
        (401, "Unauthorized", Trouble.AUTH_INVALID),
        (403, {"detail": "You do not have permission to perform this action."}, Trouble.PERMISSION_DENIED),
        (404, {"detail": "The requested resource does not exist"}, Trouble.NOT_FOUND),
        (410, {"message": "This API no longer exists."}, Trouble.SCHEMA_CHANGED),
        (500, {"detail": "Internal Error", "errorId": "b1"}, Trouble.SERVER_ERROR),
        (503, {"detail": "Query timeout. Please try again."}, Trouble.MAINTENANCE),
        (504, None, Trouble.SERVER_ERROR),
    ],
)
async def test_a_refusal_is_classified(world: World, status: int, body: object, trouble: Trouble) -> None:
    async with connected(world) as (tracker, connector):
        tracker.faults.append(Fault("status", times=9, status=status, body=json.dumps(body)))

        with pytest.raises(SourceError) as caught:
            await connector.fetch(issues_of(world), None)

    assert (caught.value.trouble, caught.value.status) == (trouble, status)


@pytest.mark.parametrize(
    ("kind", "body", "seconds"),
    [("window", "object", 30), ("window", "string", 30), ("concurrent", "object", 2), ("concurrent", "string", 2)],
)
async def test_a_limit_says_when_to_go_on_by_the_sources_clock(
    world: World, kind: str, body: str, seconds: int
) -> None:
    async with connected(world) as (tracker, connector):
        tracker.limit_kind, tracker.limit_body = kind, body
        tracker.faults.append(Fault("limited", seconds=30))

        with pytest.raises(SourceError) as caught:
            await connector.fetch(issues_of(world), None)

        assert caught.value.trouble is Trouble.RATE_LIMIT
        assert caught.value.retry_at is not None
        assert abs((caught.value.retry_at - datetime.now(UTC)).total_seconds() - seconds) < 2
        assert connector.quota is not None
        assert (connector.quota.bucket, connector.quota.remaining) == (kind, 0)


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"Retry-After": "7"}, "{}", 7),
        ({}, '"Limit is 3 requests in 3600 seconds"', 3600),
        ({}, "slow down", 60),
        ({"X-Sentry-Rate-Limit-Reset": "soon"}, "", 60),
        ({"X-Sentry-Rate-Limit-Reset": "1"}, "", 1),
    ],
)
async def test_a_limit_without_the_usual_headers(headers: dict[str, str], body: str, seconds: int) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(429, text=body, headers=headers))
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(SourceError) as caught:
            await connector_for(client, "https://sentry.io").now()

    assert caught.value.retry_at is not None
    assert abs((caught.value.retry_at - datetime.now(UTC)).total_seconds() - seconds) < 2


async def test_wrong_expired_and_missing_credentials(world: World) -> None:
    async with connected(world) as (tracker, connector):
        tracker.token = "another"
        with pytest.raises(SourceError) as wrong:
            await connector.check()
        tracker.expired = True
        with pytest.raises(SourceError) as expired:
            await connector.check()
        tracker.token, tracker.expired, tracker.sso_required = "valid-token", False, True
        with pytest.raises(SourceError) as single_sign_on:
            await connector.scopes()

    assert wrong.value.trouble is Trouble.AUTH_INVALID
    assert expired.value.trouble is Trouble.AUTH_EXPIRED
    assert "internal integration" in single_sign_on.value.hint
    assert "valid-token" not in f"{wrong.value} {expired.value} {single_sign_on.value}"


@pytest.mark.parametrize("answer", [{"detail": "odd"}, None, "text"])
async def test_something_else_than_a_list_is_no_end_of_it(answer: object) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(SourceError) as caught:
            await connector_for(client, "https://sentry.io").fetch(
                Part(kind=PartKind.WINDOW, stream=Stream.ISSUES, scope="1"), None
            )

    assert caught.value.trouble is Trouble.PAYLOAD_INVALID


async def test_a_broken_connection_and_a_cut_answer_are_tried_again_at_once(world: World) -> None:
    world.create("HARBOR")
    async with connected(world) as (tracker, connector):
        tracker.faults += [Fault("reset", path="issues/"), Fault("truncated", path="events/latest")]

        pages = await walk(connector, issues_of(world))

    assert len(shown(pages)) == 1


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


# Census and keys


async def test_an_issue_resolved_without_a_new_event_is_seen_by_the_census_only(world: World) -> None:
    issue, other = world.create("HARBOR"), world.create("HARBOR")
    world.advance(86_400)
    since = world.now - timedelta(hours=1)
    world.edit(issue.id, bump=False, status="done")
    async with connected(world) as (tracker, connector):
        window = await walk(connector, issues_of(world, since=since))
        census = await walk(connector, issues_of(world, kind=PartKind.CENSUS))

        assert not tracker.count("/events/")
    assert not shown(window)
    assert [each for page in census for each in page.seen] == [
        (str(other.id), other.updated),
        (str(issue.id), issue.updated),
    ]
    sent = next(sent for sent in census[0].records if sent.raw["id"] == str(issue.id))
    assert sent.context == {"keep": ["stack_trace", "environment"], "keep_payload": ["latest_event"]}
    assert PARTIAL_PAYLOAD_KEY not in sent.raw
    assert connector.normalize(sent).model_dump()["status_category"] == StatusCategory.DONE


async def test_a_comment_without_a_new_event_comes_with_the_census(world: World) -> None:
    issue = world.create("HARBOR")
    world.advance(86_400)
    comment = world.comment(issue.id)
    async with connected(world) as (_, connector):
        window = await walk(connector, issues_of(world, since=world.now - timedelta(hours=1)))
        census = await walk(connector, issues_of(world, kind=PartKind.CENSUS))

    assert not shown(window)
    assert shown(census, Stream.COMMENTS) == {str(comment.id)}


async def test_a_regressed_issue_comes_with_the_window_of_its_event(world: World) -> None:
    issue = world.create("HARBOR")
    world.advance(600)
    world.edit(issue.id, bump=False, status="done")
    world.advance(600)
    world.edit(issue.id, status="open", body="It is back.")
    async with connected(world) as (_, connector):
        page = await connector.fetch(issues_of(world, since=world.now), None)

    record = connector.normalize(page.records[0])
    assert isinstance(record, Issue)
    assert (record.status, record.labels[0], record.description) == ("unresolved", "regressed", "It is back.")


async def test_the_same_issue_looks_the_same_from_list_and_from_its_own_address(world: World) -> None:
    world.advance(0.25)
    issue = world.edit(world.create("HARBOR").id, status="done")
    async with connected(world) as (_, connector):
        listed = await connector.fetch(issues_of(world), None)
        single = await connector.fetch(issues_of(world, kind=PartKind.KEYS, query={"ids": [str(issue.id)]}), None)
    records = [connector.normalize(page.records[0]).model_dump() for page in (listed, single)]

    assert records[0] == records[1]
    assert "stats" not in single.records[0].raw


async def test_named_issues_are_read_and_absent_ones_told(world: World) -> None:
    plain, deleted, hidden, merged, named, both = (world.create("HARBOR") for _ in range(6))
    world.comment(plain.id)
    world.delete(deleted.id)
    world.edit(hidden.id, hidden=True)
    query = {
        "ids": [str(each.id) for each in (plain, deleted, hidden, merged)],
        "keys": [named.key, "HARBOR-999"],
        "issues": [{"id": str(both.id), "key": both.key}],
    }
    async with connected(world) as (tracker, connector):
        tracker.merge(merged.id, plain.id)
        page = await connector.fetch(issues_of(world, kind=PartKind.KEYS, query=query), None)

    assert shown([page]) == {str(plain.id), str(named.id), str(both.id)}
    assert shown([page], Stream.COMMENTS) == {str(each.id) for each in world.current(plain.id).comments}  # type: ignore[union-attr]
    assert {(gone.external_id, gone.absence) for gone in page.gone} == {
        (str(deleted.id), Absence.DELETED_OR_HIDDEN),
        (str(hidden.id), Absence.DELETED_OR_HIDDEN),
        (str(merged.id), Absence.DELETED),
        ("HARBOR-999", Absence.DELETED_OR_HIDDEN),
    }
    assert page.next is None


async def test_a_merged_issue_that_does_not_lead_on_is_gone(world: World) -> None:
    child, parent = world.create("HARBOR"), world.create("HARBOR")
    async with connected(world) as (tracker, connector):
        tracker.merge(child.id, parent.id)
        tracker.follows_merged = False
        page = await connector.fetch(issues_of(world, kind=PartKind.KEYS, query={"ids": [str(child.id)]}), None)

    assert [gone.absence for gone in page.gone] == [Absence.DELETED_OR_HIDDEN]


async def test_a_hidden_organization_is_an_error_and_not_twenty_deletions(world: World) -> None:
    issue = world.create("HARBOR")
    async with connected(world) as (tracker, connector):
        tracker.organization = "renamed"
        with pytest.raises(SourceError) as caught:
            await connector.fetch(issues_of(world, kind=PartKind.KEYS, query={"ids": [str(issue.id)]}), None)

    assert caught.value.trouble is Trouble.NOT_FOUND


async def test_a_refused_issue_is_a_gap_and_an_empty_answer_is_no_deletion(world: World) -> None:
    first, second = world.create("HARBOR"), world.create("HARBOR")
    query = {"ids": [str(first.id), str(second.id)]}
    async with connected(world) as (tracker, connector):
        tracker.faults.append(Fault("status", status=403, path=f"/issues/{first.id}/", body="{}"))
        page = await connector.fetch(issues_of(world, kind=PartKind.KEYS, query=query), None)
        tracker.faults.append(Fault("status", status=200, path=f"/issues/{first.id}/", body="", times=9))
        with pytest.raises(SourceError) as caught:
            await connector.fetch(issues_of(world, kind=PartKind.KEYS, query=query), None)

    assert shown([page]) == {str(second.id)}
    assert [gap.trouble for gap in page.gaps] == [Trouble.PERMISSION_DENIED]
    assert caught.value.trouble is Trouble.PAYLOAD_INVALID


# The organization


async def test_the_check_tells_who_where_and_what_is_missing(world: World) -> None:
    async with connected(world) as (tracker, connector):
        tracker.scopes = {"org:read", "event:admin", "project:read"}
        probe = await connector.check()

        assert connector.requests == 3 + len(world.projects)
        assert await connector.now() == world.now
    assert (probe.account, probe.deployment, probe.server_time) == ("Tidewater", "self-hosted", world.now)
    assert probe.missing == ["member:read: users"]
    assert probe.quota is not None
    assert (probe.quota.limit, probe.quota.remaining) == (40, 39)


async def test_the_check_names_the_environments_it_cannot_find(world: World) -> None:
    async with connected(world, environments=["production", "moon"]) as (_, connector):
        with pytest.raises(SourceError, match="moon") as caught:
            await connector.check()

    assert caught.value.trouble is Trouble.NOT_FOUND
    assert "environments" in caught.value.hint


async def test_the_check_counts_issues_resolved_ones_too(world: World) -> None:
    for number in range(7):
        made = world.create("HARBOR")
        if number % 2:
            world.edit(made.id, status="done")
    async with connected(world, streams=["issues"]) as (tracker, connector):
        probe = await connector.check()
        tracker.most_hits = 7
        full = await connector.check()

    assert {scope: count for scope, count in probe.counts.items() if count} == {str(world.projects["HARBOR"].id): 7}
    assert probe.warnings == []
    assert full.warnings == ["There are more issues than Sentry counts in harbor: expect more calls"]


@pytest.mark.parametrize("scope", ["event:read", "project:read"])
async def test_the_check_names_a_missing_scope_instead_of_failing_for_it(world: World, scope: str) -> None:
    async with connected(world) as (tracker, connector):
        tracker.scopes.discard(scope)
        probe = await connector.check()

    assert [missing.partition(": ")[0] for missing in probe.missing] == [scope]
    assert dict(probe.counts) == {}


async def test_the_check_names_a_nearer_region() -> None:
    body = {"slug": "tidewater", "name": "Tidewater", "links": {"regionUrl": "https://de.sentry.io"}}

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=[] if request.url.path.endswith("/projects/") else body)

    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport) as client:
        probe = await connector_for(client, "https://sentry.io/api/0/").check()

    assert probe.deployment == "saas"
    assert "https://de.sentry.io" in probe.warnings[0]


async def test_scopes_are_projects_by_id_and_those_out_of_reach_are_gaps(world: World) -> None:
    world.add_project("LEDGER")
    world.projects["PETREL"] = world.projects["PETREL"].__class__(
        **{**vars(world.projects["PETREL"]), "readable": False}
    )
    async with connected(world, projects=["harbor", "petrel", "old-ledger", "nowhere"]) as (tracker, connector):
        tracker.renamed["old-ledger"] = "ledger"
        scopes, gaps = await connector.scopes()
        everything, _ = await connector_for(connector._api.http._client, tracker.url).scopes()

    ids = {key: str(project.id) for key, project in world.projects.items()}
    assert [(scope.id, scope.name) for scope in scopes] == [(ids["HARBOR"], "harbor"), (ids["LEDGER"], "ledger")]
    assert [(gap.scope, gap.trouble) for gap in gaps] == [
        ("nowhere", Trouble.NOT_FOUND),
        (ids["PETREL"], Trouble.PERMISSION_DENIED),
    ]
    assert len(everything) == 2


async def test_users_who_may_not_be_listed_are_a_gap(world: World) -> None:
    part = Part(kind=PartKind.SNAPSHOT, stream=Stream.USERS, scope="*")
    async with connected(world) as (tracker, connector):
        page = await connector.fetch(part, None)
        tracker.scopes.remove("member:read")
        refused = await connector.fetch(part, None)

    assert len(page.records) == len(world.users)
    assert not refused.records
    assert [gap.trouble for gap in refused.gaps] == [Trouble.PERMISSION_DENIED]


async def test_no_member_is_missed_when_another_leaves_while_paging(world: World) -> None:
    world.users = [User(id=n, login=f"u{n}", name=f"User {n}", email=f"u{n:04}@tidewater.example") for n in range(250)]

    def leave(call: Call) -> None:
        if "cursor=100:1:0" in call.query and len(world.users) == 250:
            del world.users[0]

    async with connected(world) as (tracker, connector):
        tracker.before_request = leave
        page = await connector.fetch(Part(kind=PartKind.SNAPSHOT, stream=Stream.USERS, scope="*"), None)

    assert {f"{user.id}" for user in world.users} <= {sent.raw["user"]["id"] for sent in page.records}
    assert len(world.users) == 249


async def test_projects_come_whole_and_can_be_chosen(world: World) -> None:
    async with connected(world) as (_, connector):
        page = await connector.fetch(Part(kind=PartKind.SNAPSHOT, stream=Stream.PROJECTS, scope="*"), None)
        choices = {kind: await connector.discover(kind) for kind in ("projects", "users", "boards")}

    assert {sent.raw["slug"] for sent in page.records} == {"harbor", "petrel"}
    assert [choice.id for choice in choices["projects"]] == ["harbor", "petrel"]
    assert len(choices["users"]) == len(world.users)
    assert not choices["boards"]


async def test_what_sentry_does_not_have_is_refused(world: World) -> None:
    async with connected(world) as (_, connector):
        with pytest.raises(SourceError):
            await connector.fetch(Part(kind=PartKind.WINDOW, stream=Stream.SPRINTS, scope="1"), None)
        with pytest.raises(ValueError):
            connector.normalize(Sent(Stream.SPRINTS, {}, "1"))
        part = issues_of(world)
        assert await connector.split(part) == [part]
        assert connector.estimate_calls(1_000) == 1_061
        assert connector_for(connector._api.http._client, "x", latest_event=False).estimate_calls(1_000) == 61


# The simulation itself


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("start=2025-01-01T00:00:00&end=2025-01-01T00:00:00", 400),
        ("query=lastSeen:>=soon", 400),
        ("query=assigned:me%20nonsense", 400),
        ("sort=colour", 400),
        ("cursor=first", 400),
        ("limit=all", 400),
        ("project=1", 403),
        ("environment=nowhere", 404),
        ("query=lastSeen:-24h&limit=500", 200),
    ],
)
async def test_the_simulated_search_refuses_what_sentry_refuses(world: World, query: str, status: int) -> None:
    async with SentryTracker(world) as tracker, httpx.AsyncClient() as client:
        address = f"{tracker.url}/api/0/organizations/tidewater/issues/?{query}"
        answer = await client.get(address, headers={"Authorization": "Bearer valid-token"})

    assert answer.status_code == status


async def test_the_simulated_list_hides_resolved_issues_and_links_both_ways(world: World) -> None:
    issues = [world.create("HARBOR") for _ in range(3)]
    world.edit(issues[0].id, status="done")
    async with SentryTracker(world) as tracker, httpx.AsyncClient() as client:
        address = f"{tracker.url}/api/0/organizations/tidewater/issues/"
        answer = await client.get(address, headers={"Authorization": "Bearer valid-token"})

    assert [each["id"] for each in answer.json()] == [str(issues[2].id), str(issues[1].id)]
    assert all(isinstance(each["count"], str) and isinstance(each["userCount"], int) for each in answer.json())
    assert answer.links["previous"]["results"] == answer.links["next"]["results"] == "false"
    assert Cursor.parse(answer.links["next"]["cursor"])


def test_simulated_notes_are_shaped_like_recorded_ones(world: World) -> None:
    from local.trackers._sentry_json import to_note

    made: Comment = world.comment(world.create("HARBOR").id)

    assert to_note(made).keys() == load("note").keys()
