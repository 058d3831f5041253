"""Who Jira takes us for: clients that get their own tokens, scopes that are missing, and the gateway's address."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from local.trackers._jira_access import CLIENT, GATEWAY
from local.trackers.jira import JiraTracker
from local.trackers.service import Fault
from local.trackers.world import World, seeded
from shared.connectors._jira_settings import JiraCredentials, JiraSettings
from shared.connectors._protocol import EVERYTHING, Part, PartKind
from shared.connectors.jira import JiraConnector
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Stream
from tests.support.renewing import KeptInMemory

READ = frozenset({"read:jira-work", "read:jira-user"})
KINDS = pytest.mark.parametrize("cloud", [True, False], ids=["cloud", "data-center"])


@asynccontextmanager
async def as_client(
    monkeypatch: pytest.MonkeyPatch, world: World, *, cloud: bool = True, secret: str = "valid-token"
) -> AsyncIterator[tuple[JiraTracker, JiraConnector]]:
    """A service account: on Cloud behind the gateway with Atlassian's tokens, on Data Center with the site's own."""
    async with JiraTracker(world, cloud=cloud) as tracker, httpx.AsyncClient() as client:
        monkeypatch.setattr("shared.connectors._jira_login.ATLASSIAN", tracker.url)
        credentials = JiraCredentials.model_validate({"client_id": CLIENT, "client_secret": secret})
        address = tracker.url + GATEWAY if cloud else tracker.url
        yield tracker, JiraConnector(client, address, JiraSettings(), credentials)


def users() -> Part:
    return Part(kind=PartKind.SNAPSHOT, stream=Stream.USERS, scope=EVERYTHING)


@asynccontextmanager
async def as_app(
    monkeypatch: pytest.MonkeyPatch, world: World, *, path: str = ""
) -> AsyncIterator[tuple[JiraTracker, JiraConnector]]:
    """An app somebody authorized, for a site under the address people know."""
    async with JiraTracker(world) as tracker, httpx.AsyncClient() as client:
        monkeypatch.setattr("shared.connectors._jira_login.ATLASSIAN", tracker.url)
        monkeypatch.setattr("shared.connectors._jira_login.ATLASSIAN_API", tracker.url)
        held = JiraCredentials.model_validate(tracker.authorize())
        keep = KeptInMemory(held)
        yield tracker, JiraConnector(client, tracker.url + path, JiraSettings(), held, keep.renew)


async def test_an_app_finds_its_site_by_the_address_people_know(monkeypatch: pytest.MonkeyPatch) -> None:
    world = seeded(4)
    async with as_app(monkeypatch, world) as (tracker, jira):
        tracker.other_sites = {"https://other.atlassian.net": "0"}
        probe = await jira.check()
        part = Part(kind=PartKind.WINDOW, stream=Stream.ISSUES, scope=str(world.projects["HARBOR"].id))
        page = await jira.fetch(part, None)
        urls = {jira.normalize(sent).url for sent in page.records if sent.stream is Stream.ISSUES}

    assert (probe.account, probe.deployment, probe.expires_at) == (world.users[0].name, "Cloud", None)
    assert urls == {f"{tracker.url}/browse/{issue.key}" for issue in world.all_current("HARBOR")}
    assert tracker.count("/accessible-resources") == 1
    assert all(call.path.startswith((GATEWAY, "/oauth/token")) for call in tracker.calls), "the site itself was asked"
    assert jira.requests == len(tracker.calls)


@pytest.mark.parametrize(
    ("sites", "said"), [({"https://other.atlassian.net": "0"}, "but for https://other"), ({}, "but for no site at all")]
)
async def test_a_site_the_app_is_not_authorized_for_is_told(
    sites: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with as_app(monkeypatch, seeded(2)) as (tracker, jira):
        tracker.reaches_this_site, tracker.other_sites = False, sites
        with pytest.raises(SourceError, match=said) as refused:
            await jira.check()

    assert refused.value.trouble is Trouble.AUTH_INVALID
    assert "choose this site" in refused.value.hint


async def test_an_app_may_be_given_the_address_of_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    async with as_app(monkeypatch, seeded(2), path=GATEWAY) as (tracker, jira):
        assert (await jira.check()).deployment == "Cloud"
        assert tracker.count("/accessible-resources") == 0


@pytest.mark.parametrize(
    ("status", "body", "trouble"),
    [
        (403, '{"error": "invalid_grant", "error_description": "Unknown or invalid refresh token."}', "AUTH_EXPIRED"),
        (403, '{"error": "unauthorized_client", "error_description": "refresh_token is invalid"}', "AUTH_EXPIRED"),
        (401, '{"error": "access_denied", "error_description": "Unauthorized"}', "AUTH_INVALID"),
        (404, "<html></html>", "AUTH_INVALID"),
        (429, "{}", "RATE_LIMIT"),
        (500, "{}", "SERVER_ERROR"),
    ],
)
async def test_what_a_log_in_server_refuses_is_classified(
    status: int, body: str, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with as_app(monkeypatch, seeded(2)) as (tracker, jira):
        tracker.faults.append(Fault(kind="status", status=status, body=body, path="/oauth/token", times=9))
        with pytest.raises(SourceError) as refused:
            await jira.now()

    assert refused.value.trouble == trouble


async def test_a_refresh_token_needs_somewhere_to_keep_its_successor() -> None:
    held = JiraCredentials.model_validate({"client_id": "a", "client_secret": "b", "refresh_token": "c"})
    async with httpx.AsyncClient() as client:
        with pytest.raises(TypeError, match="successor"):
            JiraConnector(client, "https://petrel.atlassian.net", JiraSettings(), held)


@KINDS
async def test_a_client_gets_a_token_and_keeps_it_until_it_ends(cloud: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with as_client(monkeypatch, seeded(4), cloud=cloud) as (tracker, jira):
        await jira.check()
        assert tracker.count("/token") == 1
        tracker.tokens.clear()
        await jira.fetch(users(), None)
        assert tracker.count("/token") == 2
        tracker.token_seconds = 0
        tracker.tokens.clear()
        with pytest.raises(SourceError) as refused:
            await jira.now()

        assert refused.value.trouble is Trouble.AUTH_INVALID
        assert tracker.count("/token") == 3, "a token that is refused as soon as it came gets no third"
        assert jira.requests == len(tracker.calls)


@KINDS
async def test_a_short_lived_token_is_renewed_before_it_ends(cloud: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with as_client(monkeypatch, seeded(4), cloud=cloud) as (tracker, jira):
        tracker.token_seconds = 0.001
        await jira.now()
        await jira.now()

        assert tracker.count("/token") == len(tracker.calls) - tracker.count("/token")


@KINDS
async def test_a_wrong_client_is_told_what_to_check(cloud: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with as_client(monkeypatch, seeded(4), cloud=cloud, secret="wrong") as (_, jira):
        with pytest.raises(SourceError, match=r"no token.*Unauthorized") as refused:
            await jira.check()

    assert refused.value.trouble is Trouble.AUTH_INVALID
    assert "cloudId" in refused.value.hint


async def test_behind_the_gateway_pages_still_have_the_address_of_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    world = seeded(4)
    async with as_client(monkeypatch, world) as (tracker, jira):
        scope = str(world.projects["HARBOR"].id)
        page = await jira.fetch(Part(kind=PartKind.WINDOW, stream=Stream.ISSUES, scope=scope), None)
        urls = {jira.normalize(sent).url for sent in page.records if sent.stream is Stream.ISSUES}

        assert urls == {f"{tracker.url}/browse/{issue.key}" for issue in world.all_current("HARBOR")}
        assert all(call.path.startswith((GATEWAY, "/oauth/token")) for call in tracker.calls)


@pytest.mark.parametrize(
    ("scopes", "missing"),
    [
        (READ | {"read:board-scope:jira-software", "read:sprint:jira-software"}, []),
        (READ | {"read:board-scope:jira-software"}, ["sprints"]),
        (READ, ["sprints"]),
    ],
    ids=["all", "no sprints", "no boards"],
)
async def test_a_check_finds_the_scopes_a_token_lacks(
    scopes: frozenset[str], missing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with as_client(monkeypatch, seeded(4)) as (tracker, jira):
        tracker.scopes = scopes
        probe = await jira.check()

        assert tracker.count("/token") == 1, "a missing scope is no reason for another token"
    assert [each.partition(":")[0] for each in probe.missing] == missing
    assert all("scope does not match" in each for each in probe.missing)


async def test_a_token_that_may_read_nothing_is_told_which_scope_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    async with as_client(monkeypatch, seeded(4)) as (tracker, jira):
        tracker.scopes = frozenset()
        with pytest.raises(SourceError, match="scope does not match") as refused:
            await jira.check()

    assert refused.value.trouble is Trouble.PERMISSION_DENIED
    assert "scope" in refused.value.hint


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"email": "ada@tidewater.example"},
        {"token": " "},
        {"client_id": "a"},
        {"client_secret": "b"},
        {"token": "t", "client_id": "a", "client_secret": "b"},
        {"refresh_token": "r"},
        {"token": "t", "refresh_token": "r"},
        {"client_id": "a", "refresh_token": "r"},
    ],
)
def test_half_of_a_pair_of_credentials_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="Give a token"):
        JiraCredentials.model_validate(values)
