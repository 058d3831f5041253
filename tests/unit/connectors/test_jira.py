"""Jira: its settings, its refusals, what an account can see, and the lists of a whole site."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from local.trackers.jira import JiraTracker
from local.trackers.service import Fault
from local.trackers.world import User, World, seeded
from shared.connectors._http import Refusal
from shared.connectors._http import classify as classify_by_status
from shared.connectors._jira_query import Mark, of_settings, walk
from shared.connectors._jira_refusals import classify, read_quota
from shared.connectors._jira_settings import JiraCredentials, JiraSettings
from shared.connectors._protocol import EVERYTHING, Page, Part, PartKind
from shared.connectors.jira import JiraConnector
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Stream

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HTML = {"content-type": "text/html;charset=UTF-8"}
KINDS = pytest.mark.parametrize("cloud", [True, False], ids=["cloud", "data-center"])


@asynccontextmanager
async def connected(
    world: World, *, cloud: bool = True, token: str = "valid-token", **settings: Any
) -> AsyncIterator[tuple[JiraTracker, JiraConnector]]:
    async with JiraTracker(world, cloud=cloud) as tracker, httpx.AsyncClient() as client:
        credentials = JiraCredentials(email=tracker.email, token=token)
        yield tracker, JiraConnector(client, tracker.url, JiraSettings(**settings), credentials)


async def whole(connector: JiraConnector, stream: Stream) -> list[Page]:
    part = Part(kind=PartKind.SNAPSHOT, stream=stream, scope=EVERYTHING)
    pages = [await connector.fetch(part, None)]
    while pages[-1].next is not None:
        pages.append(await connector.fetch(part, pages[-1].next))
    return pages


def harbor(world: World, **values: Any) -> Part:
    return Part(
        **{"kind": PartKind.WINDOW, "stream": Stream.ISSUES, "scope": str(world.projects["HARBOR"].id), **values}
    )


def refused(status: int, text: str = "", headers: Mapping[str, str] | None = None) -> SourceError:
    refusal = Refusal(status=status, headers=httpx.Headers(headers or {}), text=text, now=NOW)
    return classify(refusal) or classify_by_status(refusal)


# Settings


@pytest.mark.parametrize(
    "jql",
    [
        "a = 1) OR (project = SECRET",
        "a = 1)) OR ((project = SECRET",
        "(a = 1",
        'summary ~ "half',
        "summary ~ 'half",
        'summary ~ "a\\" OR project = SECRET',
        "a = 1 ORDER BY created",
        "a = 1 order\n by created",
        "a = \\",
        "a = \x00",
        '\\" ) OR ( project = SECRET',
    ],
)
def test_a_filter_that_leaves_its_brackets_is_refused(jql: str) -> None:
    with pytest.raises(ValidationError):
        JiraSettings(jql=jql)


@pytest.mark.parametrize(
    "jql",
    [
        "labels = customer AND (priority = High OR status != Done)",
        'summary ~ "a ) ORDER BY ( b"',
        "summary ~ 'it is \"open'",
        'summary ~ "say \\"yes\\" ("',
        "",
    ],
)
def test_a_sound_filter_is_taken(jql: str) -> None:
    assert JiraSettings(jql=jql).jql == jql


def test_a_query_says_all_of_it_safely() -> None:
    hostile = 'x") OR project = SECRET OR reporter in ("\\'
    settings = JiraSettings(jql="labels = a OR labels = b", tracked_accounts=["712020:ab", hostile])
    since = datetime(2026, 3, 1, 12, 34, 56, 789_000, tzinfo=UTC)

    jql = walk("10007", of_settings(settings), since=since, mark=Mark(id="1", key="QUAY-9"))

    accounts = '("712020:ab", "x\\") OR project = SECRET OR reporter in (\\"\\\\")'
    assert jql == (
        'project = 10007 AND updated >= 1772368440000 AND issuekey >= "QUAY-9" AND (labels = a OR labels = b) '
        f"AND (assignee in {accounts} OR reporter in {accounts}) ORDER BY key ASC"
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"tracked_accounts": ["a\nb"]},
        {"tracked_accounts": [""]},
        {"tracked_accounts": [f"a{number}" for number in range(201)]},
        {"projects": [" "]},
        {"field_mapping": {"title": "Summary"}},
        {"deployment": "server"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        JiraSettings(**settings)


async def test_hostile_accounts_find_nobody() -> None:
    world = seeded(20)
    async with connected(world, tracked_accounts=['x") OR project is not EMPTY OR reporter in ("\\']) as (_, jira):
        page = await jira.fetch(harbor(world), None)

    assert page.records == []
    assert page.next is None


async def test_tracked_accounts_and_a_filter_narrow_a_walk() -> None:
    world = seeded(200)
    async with connected(world, jql="status = Done OR status = 'To Do'", tracked_accounts=["teo"]) as (_, jira):
        page = await jira.fetch(harbor(world), None)

    expected = {
        str(issue.id)
        for issue in world.all_current("HARBOR")
        if "teo" in {issue.reporter.login, issue.assignee.login if issue.assignee else ""}
        and issue.status in {"done", "open"}
    }
    assert {sent.raw["id"] for sent in page.records if sent.stream is Stream.ISSUES} == expected


# Refusals

UNKNOWN_PROJECT = '{"errorMessages":["The value \'OLD\' does not exist for the field \'project\'."],"errors":{}}'
IN_HOUR = "2026-03-01T13:00Z"


@pytest.mark.parametrize(
    ("status", "text", "headers", "trouble"),
    [
        (400, '{"errorMessages":["Error in the JQL Query"],"errors":{}}', {}, Trouble.BAD_REQUEST),
        (400, UNKNOWN_PROJECT, {}, Trouble.NOT_FOUND),
        (401, "", {}, Trouble.AUTH_INVALID),
        (401, '<html><th scope="col">Unauthorized</th></html>', HTML, Trouble.AUTH_INVALID),
        (401, '{"message":"Client must be authenticated","status-code":401}', {}, Trouble.AUTH_INVALID),
        (401, '{"code":401,"message":"Unauthorized; scope does not match"}', {}, Trouble.PERMISSION_DENIED),
        (401, '{"message":"The access token expired"}', {}, Trouble.AUTH_EXPIRED),
        (401, "", {"www-authenticate": 'Bearer error_description="The token has expired"'}, Trouble.AUTH_EXPIRED),
        (402, "", {}, Trouble.SUSPENDED_PAYMENT),
        (403, '{"errorMessage":"suspended-payment"}', {}, Trouble.SUSPENDED_PAYMENT),
        (403, '{"message":"The IP address is not allowed"}', {}, Trouble.PERMISSION_DENIED),
        (403, "", {"x-authentication-denied-reason": "CAPTCHA_CHALLENGE; login-url=x"}, Trouble.AUTH_INVALID),
        (403, "", {"x-seraph-loginreason": "AUTHENTICATION_DENIED"}, Trouble.AUTH_INVALID),
        (404, '{"errorMessages":["Issue does not exist"]}', {}, Trouble.NOT_FOUND),
        (404, "Not found", {"x-seraph-loginreason": "AUTHENTICATED_FAILED"}, Trouble.AUTH_INVALID),
        (404, "<html>Site temporarily unavailable</html>", HTML, Trouble.AUTH_INVALID),
        (410, '{"errorMessages":["The requested API has been removed."]}', {}, Trouble.SCHEMA_CHANGED),
        (500, "{}", {}, Trouble.SERVER_ERROR),
        (502, "<html>Bad gateway</html>", HTML, Trouble.MAINTENANCE),
        (503, "<html>Maintenance</html>", HTML, Trouble.MAINTENANCE),
    ],
)
def test_what_a_refusal_means(status: int, text: str, headers: dict[str, str], trouble: Trouble) -> None:
    error = refused(status, text, headers)

    assert (error.trouble, error.status) == (trouble, status)
    assert error.hint


@pytest.mark.parametrize(
    ("headers", "retry_at"),
    [
        ({"retry-after": "30", "ratelimit-reason": "jira-burst-based"}, NOW + timedelta(seconds=30)),
        ({"retry-after": "0"}, NOW),
        ({"x-ratelimit-reset": IN_HOUR, "ratelimit-reason": "jira-quota-global-based"}, NOW + timedelta(hours=1)),
        ({"x-beta-ratelimit-reset": "2026-03-01T13:00:00Z"}, NOW + timedelta(hours=1)),
        ({"x-failure-category": "FAILURE CLIENT RATE LIMITED"}, None),
        ({"x-ratelimit-reset": "soon"}, None),
    ],
)
def test_when_a_limited_call_may_be_tried_again(headers: dict[str, str], retry_at: datetime | None) -> None:
    error = refused(429, "", headers)

    assert (error.trouble, error.retry_at) == (Trouble.RATE_LIMIT, retry_at)
    assert headers.get("ratelimit-reason", "") in error.detail


def test_a_refusal_shows_what_jira_says_and_no_more() -> None:
    error = refused(400, '{"errorMessages":[],"errors":{"jql":"bad' + " word" * 400 + '"}}')

    assert error.detail.startswith("Jira answered 400: jql: bad word")
    assert len(error.detail) < 250


def test_of_several_limits_the_tightest_counts() -> None:
    headers = {
        "Beta-RateLimit": '"tenant-app-quota";r=17842;t=60, "burst";r=3;t=1, "plenty"',
        "Beta-RateLimit-Policy": '"tenant-app-quota";q=100100;w=3600, "burst";q=100;w=1',
        "Date": "Sun, 01 Mar 2026 12:00:00 GMT",
    }

    quota = read_quota(httpx.Headers(headers))

    assert quota is not None
    assert (quota.bucket, quota.limit, quota.remaining) == ("burst", 100, 3)
    assert quota.resets_at == NOW + timedelta(seconds=1)


def test_no_word_of_a_limit_is_no_quota() -> None:
    assert read_quota(httpx.Headers({"X-RateLimit-Remaining": "many"})) is None
    assert read_quota(httpx.Headers({"RateLimit": '"plenty"'})) is None


@pytest.mark.parametrize(
    ("fault", "trouble"),
    [
        (Fault("maintenance", times=9), Trouble.MAINTENANCE),
        (Fault("status", times=9, status=500), Trouble.SERVER_ERROR),
        (Fault("status", times=9, status=200, body="[]"), Trouble.PAYLOAD_INVALID),
        (Fault("status", times=9, status=200, body="{}"), Trouble.PAYLOAD_INVALID),
        (Fault("truncated", times=9), Trouble.PAYLOAD_INVALID),
        (Fault("expired"), Trouble.AUTH_INVALID),
        (Fault("limited", seconds=7), Trouble.RATE_LIMIT),
        (Fault("reset", times=9), Trouble.NETWORK_GLITCH),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else None,
)
async def test_every_failure_of_a_walk_has_its_class(fault: Fault, trouble: Trouble) -> None:
    world = seeded(20)
    fault.path = "/search"
    async with connected(world) as (tracker, jira):
        tracker.faults.append(fault)
        with pytest.raises(SourceError) as failed:
            await jira.fetch(harbor(world), None)

    assert failed.value.trouble is trouble


async def test_an_empty_success_for_nobody_is_a_wrong_token() -> None:
    world = seeded(20)
    async with connected(world, token="wrong") as (tracker, jira):
        tracker.empty_for_nobody = True
        with pytest.raises(SourceError, match="anonymous") as walked:
            await jira.fetch(harbor(world), None)
        with pytest.raises(SourceError) as read:
            await jira.fetch(harbor(world, kind=PartKind.KEYS, query={"ids": ["10007"]}), None)

    assert {walked.value.trouble, read.value.trouble} == {Trouble.AUTH_INVALID}


async def test_a_project_that_is_hidden_later_is_not_found() -> None:
    world = seeded(20)
    async with connected(world) as (_, jira):
        part = harbor(world, scope="99999")
        with pytest.raises(SourceError) as failed:
            await jira.fetch(part, None)

    assert failed.value.trouble is Trouble.NOT_FOUND


# What an account can see


@KINDS
async def test_a_check_tells_who_and_how_much(cloud: bool) -> None:
    world = seeded(100)
    async with connected(world, cloud=cloud) as (tracker, jira):
        tracker.time_zone = "Asia/Tokyo"
        tracker.permissions["USER_PICKER"] = False
        probe = await jira.check()

        assert tracker.count("serverInfo") == 1
    assert (probe.account, probe.deployment) == ("Noor Aldana", "Cloud" if cloud else "Data Center")
    assert (probe.time_zone, probe.server_time) == ("Asia/Tokyo", world.now)
    assert (probe.granted, probe.missing) == (["BROWSE_PROJECTS"], ["USER_PICKER: users cannot be listed"])
    assert probe.counts == {str(project.id): 50 for project in world.projects.values()}


async def test_a_check_refuses_a_mapping_to_a_field_that_is_not_there() -> None:
    async with connected(seeded(20), field_mapping={"severity": "Graveness"}) as (_, jira):
        with pytest.raises(SourceError, match="Graveness") as caught:
            await jira.check()

    assert caught.value.trouble is Trouble.BAD_REQUEST


async def test_a_check_counts_many_projects_at_once() -> None:
    world = seeded(60, projects=tuple(f"DOCK{number}" for number in range(21)))
    async with connected(world) as (tracker, jira):
        probe = await jira.check()

        assert tracker.count("approximate-count") == 1
    assert probe.counts == {EVERYTHING: 60}


@KINDS
async def test_a_check_refuses_a_wrong_token(cloud: bool) -> None:
    async with connected(seeded(5), cloud=cloud, token="wrong") as (_, jira):
        with pytest.raises(SourceError) as failed:
            await jira.check()

    assert failed.value.trouble is Trouble.AUTH_INVALID


async def test_a_bearer_token_needs_no_address() -> None:
    world = seeded(5)
    async with JiraTracker(world) as tracker, httpx.AsyncClient() as client:
        jira = JiraConnector(client, tracker.url + "/", JiraSettings(), JiraCredentials(token=tracker.token))

        assert (await jira.check()).account == "Noor Aldana"
        assert await jira.now() == world.now


async def test_a_known_deployment_is_not_asked_for() -> None:
    async with connected(seeded(5), cloud=False, deployment="datacenter") as (tracker, jira):
        await jira.check()

        assert tracker.count("serverInfo") == 0


@KINDS
async def test_projects_that_cannot_be_read_are_gaps(cloud: bool) -> None:
    world = seeded(10)
    petrel = world.projects["PETREL"]
    async with connected(world, cloud=cloud, projects=["harbor", "NOWHERE", str(petrel.id)]) as (_, jira):
        scopes, gaps = await jira.scopes()

    assert [scope.name for scope in scopes] == ["HARBOR", "PETREL"]
    assert [(gap.scope, gap.trouble, gap.status) for gap in gaps] == [("NOWHERE", Trouble.NOT_FOUND, 404)]


async def test_what_can_be_chosen() -> None:
    async with connected(seeded(10)) as (_, jira):
        projects, users, boards = [await jira.discover(kind) for kind in ("projects", "users", "boards")]
        with pytest.raises(SourceError):
            await jira.discover("tables")

    assert [each.id for each in projects] == ["HARBOR", "PETREL"]
    assert {each.name for each in users} >= {"Noor Aldana", "Wim Hald"}
    assert [each.description for each in boards] == ["scrum", "kanban", "simple"] * 2


# Lists of a whole site


@KINDS
async def test_sprints_come_from_boards_that_have_some(cloud: bool) -> None:
    world = seeded(10)
    async with connected(world, cloud=cloud) as (_, jira):
        pages = await whole(jira, Stream.SPRINTS)

    found = [jira.normalize(sent) for page in pages for sent in page.records]
    assert {each.external_id for each in found} == {str(each) for each in world.sprints}
    assert {each.model_dump()["board"] for each in found} == {"HARBOR scrum", "PETREL scrum"}
    assert not [gap for page in pages for gap in page.gaps]


@KINDS
async def test_boards_that_live_elsewhere_bring_the_sprints_of_a_named_project(cloud: bool) -> None:
    world = seeded(10, projects=("HARBOR", "PETREL", "GULL"))
    async with connected(world, cloud=cloud, projects=["HARBOR"]) as (tracker, jira):
        tracker.boards_about = {"PETREL": {"PETREL", "HARBOR"}, "HARBOR": set()}
        pages = await whole(jira, Stream.SPRINTS)

        calls = [call.path for call in tracker.calls if call.path.endswith("/sprint")]
    homes = {"PETREL", "HARBOR"} if cloud else {"PETREL"}
    expected = {str(sprint.id) for sprint in world.sprints.values() if sprint.project in homes}
    assert {sent.raw["id"] for page in pages for sent in page.records} == {int(each) for each in expected}
    assert len(calls) == len(set(calls)), "a board was read twice"


async def test_a_named_project_without_boards_to_see_is_a_gap_and_the_others_go_on() -> None:
    world = seeded(10)
    async with connected(world, projects=["AGONE", "HARBOR"]) as (_, jira):
        pages = await whole(jira, Stream.SPRINTS)

    assert [(gap.scope, gap.trouble) for page in pages for gap in page.gaps] == [
        ("*:boards of AGONE", Trouble.BAD_REQUEST)
    ]
    assert len([sent for page in pages for sent in page.records]) == len(world.sprints) // 2


async def test_many_named_projects_are_found_in_the_list_of_all_boards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.connectors._jira_lists._FEW_PROJECTS", 0)
    world = seeded(10)
    async with connected(world, projects=["HARBOR"]) as (_, jira):
        pages = await whole(jira, Stream.SPRINTS)

    assert len([sent for page in pages for sent in page.records]) == len(world.sprints) // 2


async def test_a_board_that_is_refused_otherwise_is_a_gap() -> None:
    world = seeded(10)
    async with connected(world, projects=["HARBOR"]) as (tracker, jira):
        tracker.refusing_lists["sprint"] = (400, "The board's filter is broken.")
        pages = await whole(jira, Stream.SPRINTS)

    board = world.projects["HARBOR"].id * 10
    assert {(gap.scope, gap.trouble) for page in pages for gap in page.gaps} == {
        (f"*:board {board}", Trouble.BAD_REQUEST),
        (f"*:board {board + 2}", Trouble.BAD_REQUEST),
    }
    assert not [sent for page in pages for sent in page.records]


@KINDS
async def test_all_accounts_are_listed(cloud: bool) -> None:
    world = seeded(5)
    many = (User(id=number, login=f"hand{number}", name=f"Hand {number}", email="") for number in range(100, 500))
    world.users += many
    async with connected(world, cloud=cloud) as (_, jira):
        pages = await whole(jira, Stream.USERS)

    assert {sent.raw["displayName"] for page in pages for sent in page.records} == {user.name for user in world.users}


async def test_accounts_that_data_center_does_not_list_are_a_gap() -> None:
    world = seeded(5)
    many = (User(id=number, login=f"hand{number}", name=f"Hand {number}", email="") for number in range(100, 1_200))
    world.users += many
    async with connected(world, cloud=False) as (_, jira):
        pages = await whole(jira, Stream.USERS)

    assert [(gap.stream, gap.scope) for gap in pages[0].gaps] == [(Stream.USERS, EVERYTHING)]


async def test_accounts_that_may_not_be_listed_are_refused() -> None:
    async with connected(seeded(5)) as (tracker, jira):
        tracker.permissions["USER_PICKER"] = False
        with pytest.raises(SourceError) as failed:
            await whole(jira, Stream.USERS)

    assert failed.value.trouble is Trouble.PERMISSION_DENIED


async def test_a_project_that_goes_mid_list_hides_no_other() -> None:
    world = seeded(130, projects=tuple(f"DOCK{number:03}" for number in range(130)))
    async with connected(world) as (tracker, jira):

        def remove(call: object) -> None:
            if tracker.count("project/search") == 2:
                world.projects.pop("DOCK001", None)

        tracker.before_request = remove
        pages = await whole(jira, Stream.PROJECTS)

    assert {sent.raw["key"] for page in pages for sent in page.records} >= set(world.projects)


# The simulation keeps its traps


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/rest/api/3/search", {"jql": "project = HARBOR"}, 410, "has been removed"),
        ("/rest/api/2/search", {"jql": "project = HARBOR"}, 410, "has been removed"),
        ("/rest/api/3/search/jql", {"jql": "ORDER BY created"}, 400, "Unbounded"),
        ("/rest/api/3/search/jql", {"jql": "project = NOWHERE"}, 400, "for the field 'project'"),
        ("/rest/api/3/search/jql", {"jql": 'issuekey >= "HARBOR-999"'}, 400, "HARBOR-999"),
        ("/rest/api/3/search/jql", {"jql": "updated >= yesterday"}, 400, "is invalid"),
        ("/rest/api/3/issue/bulkfetch", {"issueIdsOrKeys": ["1"] * 101}, 400, "limit of 100"),
    ],
)
async def test_the_simulated_jira_refuses_as_the_real_one(path: str, body: Any, status: int, says: str) -> None:
    async with JiraTracker(seeded(10)) as tracker, httpx.AsyncClient(auth=(tracker.email, tracker.token)) as client:
        answer = await client.post(tracker.url + path, json=body)

    assert answer.status_code == status
    assert says in answer.text


async def test_the_simulated_search_has_the_real_ones_traps() -> None:
    world = seeded(300, projects=("HARBOR",))
    async with JiraTracker(world, time_zone="Asia/Tokyo") as tracker, httpx.AsyncClient() as client:

        async def search(**body: Any) -> Any:
            asked = {"jql": "project = HARBOR", **body}
            login = (tracker.email, tracker.token)
            return (await client.post(f"{tracker.url}/rest/api/3/search/jql", json=asked, auth=login)).json()

        bare = await search()
        capped = await search(fields=["*all"], maxResults=5_000)
        world.delete(int(capped["issues"][0]["id"]))
        drifted = await search(fields=["*all"], maxResults=5_000, nextPageToken=capped["nextPageToken"])
        zoned = await search(jql=f'updated >= "{world.now + timedelta(hours=9):%Y-%m-%d %H:%M}"')

    assert bare["issues"][0].keys() == {"id"}
    assert "total" not in bare
    assert (len(capped["issues"]), capped["isLast"]) == (100, False)
    first, second = ([int(each["key"].rpartition("-")[2]) for each in page["issues"]] for page in (capped, drifted))
    assert abs(first[-1] - second[0]) == 2
    assert zoned["issues"] == []
