"""GitLab: its refusals, sprints, and who a token is."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from local.trackers.gitlab import GitLabTracker
from local.trackers.service import Call, Fault
from local.trackers.world import START, World, seeded
from shared.connectors._gitlab_settings import GitLabCredentials, GitLabSettings
from shared.connectors._protocol import Page, PartKind
from shared.connectors.gitlab import GitLabConnector
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Sprint, Stream
from tests.support.gitlab import FIXTURES, connected, shown, two_projects
from tests.support.renewing import KeptInMemory
from tests.support.walking import issues_of, walk


@pytest.fixture
def world() -> World:
    return two_projects()


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
