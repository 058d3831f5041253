"""Sentry: its refusals, the organization, and the simulation itself."""

import json
from datetime import UTC, datetime

import httpx
import pytest

from local.trackers.sentry import Cursor, SentryTracker
from local.trackers.service import Call, Fault
from local.trackers.world import Comment, User, World
from shared.connectors._protocol import Part, PartKind, Sent
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Stream
from tests.support.sentry import connected, connector_for, load, shown, two_projects
from tests.support.walking import issues_of, walk


@pytest.fixture
def world() -> World:
    return two_projects()


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
