"""GitHub: refusals, scopes, repositories, reading by key, and the credentials of an App."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from local.trackers._github_access import App
from local.trackers.github import GitHubTracker
from local.trackers.service import Fault
from local.trackers.world import World, seeded
from shared.connectors._protocol import Absence, Children, Gone, Page, Part, PartKind, Scope
from shared.connectors.github import GitHubConnector, GitHubCredentials, GitHubSettings
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Stream


@dataclass
class Connection:
    world: World
    tracker: GitHubTracker
    client: httpx.AsyncClient

    def connector(
        self, *, base: str = "", credentials: dict[str, Any] | None = None, **settings: Any
    ) -> GitHubConnector:
        given = GitHubCredentials(**(credentials or {"token": self.tracker.token}))
        return GitHubConnector(self.client, self.tracker.url + base, GitHubSettings(**settings), given)

    def scope(self, key: str = "HARBOR") -> str:
        return str(self.tracker.repository(key).id)

    async def keys(self, stream: Stream = Stream.ISSUES, *, scope: str | None = None, **query: Any) -> Page:
        part = Part(kind=PartKind.KEYS, stream=stream, scope=scope or self.scope(), query=query)
        return await self.connector().fetch(part, None)


@pytest.fixture
async def github() -> AsyncIterator[Connection]:
    async with connection(seeded(40)) as made:
        yield made


@asynccontextmanager
async def connection(world: World) -> AsyncIterator[Connection]:
    async with GitHubTracker(world) as tracker, httpx.AsyncClient() as client:
        yield Connection(world, tracker, client)


@pytest.fixture(scope="module")
def key_pair() -> tuple[str, str]:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


class TestRefusals:
    @pytest.mark.parametrize(
        ("kind", "trouble", "seconds", "hint"),
        [
            ("sso", Trouble.PERMISSION_DENIED, None, "single sign-on of tidewater"),
            ("permission", Trouble.PERMISSION_DENIED, None, "issues=read"),
            ("app", Trouble.PERMISSION_DENIED, None, "permission"),
            ("address", Trouble.PERMISSION_DENIED, None, "allow list"),
            ("suspended", Trouble.PERMISSION_DENIED, None, "suspended"),
            ("blocked", Trouble.PERMISSION_DENIED, None, "blocked"),
            ("legal", Trouble.PERMISSION_DENIED, None, "legal"),
            ("agent", Trouble.BAD_REQUEST, None, "proxy"),
            ("lockout", Trouble.RATE_LIMIT, 300, ""),
            ("secondary", Trouble.RATE_LIMIT, 60, ""),
            ("secondary-bare", Trouble.RATE_LIMIT, 60, ""),
            ("secondary-429", Trouble.RATE_LIMIT, 60, ""),
            ("abuse", Trouble.RATE_LIMIT, 60, ""),
            ("hidden", Trouble.NOT_FOUND, None, "may not see it"),
            ("empty", Trouble.NOT_FOUND, None, ""),
            ("deleted", Trouble.NOT_FOUND, None, ""),
            ("invalid", Trouble.BAD_REQUEST, None, ""),
            ("failing", Trouble.SERVER_ERROR, None, ""),
        ],
    )
    async def test_refusal_is_told_apart(
        self, github: Connection, kind: str, trouble: Trouble, seconds: int | None, hint: str
    ) -> None:
        github.tracker.refuse["/issues"] = kind
        part = Part(kind=PartKind.WINDOW, stream=Stream.ISSUES, scope=github.scope())

        with pytest.raises(SourceError) as refused:
            await github.connector().fetch(part, None)

        assert refused.value.trouble is trouble
        assert hint in refused.value.hint
        if seconds is None:
            assert refused.value.retry_at is None
        else:
            assert_about(refused.value.retry_at, seconds)

    async def test_spent_limit_waits_until_it_is_reset_by_githubs_clock(self, github: Connection) -> None:
        github.tracker.quota = 0
        github.tracker.limited_seconds = 1_500

        with pytest.raises(SourceError) as refused:
            await github.connector().now()

        assert refused.value.trouble is Trouble.RATE_LIMIT
        assert_about(refused.value.retry_at, 1_500)

    async def test_quota_is_told_with_every_answer(self, github: Connection) -> None:
        connector = github.connector()
        github.tracker.quota = 100

        await connector.scopes()
        await connector.now()

        assert connector.quota is not None
        assert (connector.quota.bucket, connector.quota.limit, connector.quota.remaining) == ("core", 5_000, 99)

    @pytest.mark.parametrize(
        ("said", "trouble"),
        [("Bad credentials", Trouble.AUTH_INVALID), ("The token has expired", Trouble.AUTH_EXPIRED)],
    )
    async def test_unknown_token(self, github: Connection, said: str, trouble: Trouble) -> None:
        body = orjson.dumps({"message": said}).decode()
        github.tracker.faults.append(Fault("status", status=401, body=body))

        with pytest.raises(SourceError) as refused:
            await github.connector().check()

        assert (refused.value.trouble, refused.value.status) == (trouble, 401)

    async def test_wrong_token(self, github: Connection) -> None:
        with pytest.raises(SourceError) as refused:
            await github.connector(credentials={"token": "ghp_wrong"}).scopes()

        assert refused.value.trouble is Trouble.AUTH_INVALID
        assert "ghp_wrong" not in str(refused.value)

    async def test_short_failure_is_tried_again_at_once(self, github: Connection) -> None:
        page = {"Content-Type": "text/html"}
        github.tracker.faults.append(Fault("status", status=502, body="<html>Unicorn!</html>", headers=page))

        assert await github.connector().now() == github.world.now

    async def test_lasting_failure_with_a_web_page_is_githubs_own(self, github: Connection) -> None:
        page = {"Content-Type": "text/html"}
        github.tracker.faults.append(Fault("status", times=9, status=502, body="<html>Unicorn!</html>", headers=page))

        with pytest.raises(SourceError) as failed:
            await github.connector().now()

        assert (failed.value.trouble, failed.value.status) == (Trouble.SERVER_ERROR, 502)

    @pytest.mark.parametrize("body", ["{}", '[{"number": 1}]', '["text"]', "7"])
    async def test_answer_of_another_shape_is_a_changed_api(self, github: Connection, body: str) -> None:
        headers = {"Link": '<https://api.github.com/repositories/1/issues?page=2>; rel="next"'}
        github.tracker.faults.append(Fault("status", status=200, body=body, path="/issues", headers=headers))
        part = Part(kind=PartKind.WINDOW, stream=Stream.ISSUES, scope=github.scope())

        with pytest.raises(SourceError) as failed:
            await github.connector().fetch(part, None)

        assert failed.value.trouble is Trouble.SCHEMA_CHANGED

    async def test_user_agent_is_sent_and_needed(self, github: Connection) -> None:
        request = github.client.build_request("GET", f"{github.tracker.url}/meta")
        del request.headers["User-Agent"]

        assert (await github.client.send(request)).status_code == 403
        assert await github.connector().now() == github.world.now


class TestScopes:
    async def test_all_that_the_token_sees(self, github: Connection) -> None:
        scopes, gaps = await github.connector().scopes()

        assert scopes == [
            Scope(github.scope("HARBOR"), "tidewater/harbor"),
            Scope(github.scope("PETREL"), "tidewater/petrel"),
        ]
        assert gaps == []

    async def test_named_repositories_by_former_names_too(self, github: Connection) -> None:
        github.tracker.rename("HARBOR", "tidewater/quay")

        scopes, gaps = await github.connector(repositories=("tidewater/harbor", "tidewater/quay")).scopes()

        assert (scopes, gaps) == ([Scope(github.scope(), "tidewater/quay")], [])

    @pytest.mark.parametrize(
        ("kind", "trouble"),
        [
            ("hidden", Trouble.NOT_FOUND),
            ("sso", Trouble.PERMISSION_DENIED),
            ("permission", Trouble.PERMISSION_DENIED),
            ("legal", Trouble.PERMISSION_DENIED),
        ],
    )
    async def test_refused_repository_is_a_gap_beside_the_others(
        self, github: Connection, kind: str, trouble: Trouble
    ) -> None:
        github.tracker.refuse["/tidewater/petrel"] = kind

        scopes, gaps = await github.connector(repositories=("tidewater/petrel", "tidewater/harbor")).scopes()

        assert [scope.name for scope in scopes] == ["tidewater/harbor"]
        assert [(gap.scope, gap.trouble) for gap in gaps] == [("tidewater/petrel", trouble)]

    async def test_organizations_left_out_for_single_sign_on_are_gaps(self, github: Connection) -> None:
        github.tracker.partial_sso = "21955855, 20582480"

        scopes, gaps = await github.connector().scopes()

        assert len(scopes) == 2
        assert [gap.scope for gap in gaps] == ["organization 21955855", "organization 20582480"]

    async def test_check_tells_account_rights_expiry_and_counts(self, github: Connection) -> None:
        github.tracker.scopes = "repo, read:org"
        github.tracker.token_expires = github.world.now + timedelta(days=30)
        github.tracker.refuse["/pulls"] = "permission"

        probe = await github.connector().check()

        assert (probe.account, probe.deployment, probe.server_time) == ("noor", "GitHub.com", github.world.now)
        assert (probe.granted, probe.expires_at) == (["repo", "read:org"], github.tracker.token_expires)
        assert probe.missing == ["Pull requests: read (for pull_requests)"]
        assert probe.warnings == ["This classic token may write as well; a fine-grained one needs only to read"]
        assert set(probe.counts) == {github.scope("HARBOR"), github.scope("PETREL")}
        assert all(count >= 20 for count in probe.counts.values())

    async def test_repository_without_issues_is_no_lack_of_a_permission(self, github: Connection) -> None:
        github.tracker.refuse["/issues"] = "deleted"

        probe = await github.connector().check()

        assert (probe.missing, dict(probe.counts)) == ([], {})

    async def test_enterprise_server_under_its_path_without_rate_limit(self, github: Connection) -> None:
        github.tracker.enterprise = "3.17.2"
        connector = github.connector(base="/api/v3", repositories=("tidewater/harbor",))

        probe = await connector.check()
        page = await connector.fetch(Part(kind=PartKind.SNAPSHOT, stream=Stream.RELEASES, scope=github.scope()), None)

        assert (probe.deployment, probe.quota) == ("Enterprise Server 3.17.2", None)
        assert await connector.now() == github.world.now
        assert {connector.normalize(sent).project for sent in page.records} == {"tidewater/harbor"}  # type: ignore[attr-defined]
        assert all(call.path.startswith("/api/v3/") for call in github.tracker.calls)

    async def test_discover_offers_repositories_and_people(self, github: Connection) -> None:
        connector = github.connector()

        projects = await connector.discover("projects")

        assert [choice.id for choice in projects] == ["tidewater/harbor", "tidewater/petrel"]
        assert "iva" in {choice.id for choice in await connector.discover("users")}
        assert await connector.discover("boards") == []


class TestProjects:
    async def test_repositories_come_with_what_they_consist_of(self, github: Connection) -> None:
        part = Part(kind=PartKind.SNAPSHOT, stream=Stream.PROJECTS, scope="*")

        first = await github.connector().fetch(part, None)
        second = await github.connector().fetch(part, first.next)

        assert (len(first.records), len(second.records), second.next) == (0, 2, None)
        analysis = second.records[0].raw["analysis"]
        assert analysis["languages"]["Python"] > 0
        assert analysis["structure"]["top_level"] == [
            "Makefile",
            "README.md",
            "pyproject.toml",
            "src/",
            "tests/",
            "web/",
        ]
        assert (len(analysis["activity"]["all"]), analysis["notes"]) == (52, [])
        assert "temp_clone_token" not in second.records[0].raw

    async def test_a_repository_whose_activity_takes_github_long_comes_without_it(self, github: Connection) -> None:
        part = Part(kind=PartKind.SNAPSHOT, stream=Stream.PROJECTS, scope="*")
        ready, slow = github.tracker.repository("HARBOR"), github.tracker.repository("PETREL")
        ready.statistics_ready = True

        first = await github.connector().fetch(part, None)
        slow.statistics_ready = False
        second = await github.connector().fetch(part, first.next)

        assert [sent.raw["id"] for sent in first.records] == [ready.id]
        (late,) = [sent.raw["analysis"] for sent in second.records]
        assert ("activity" in late, late["notes"], second.next) == (
            False,
            ["GitHub was still computing activity; the next sync brings it"],
            None,
        )

    async def test_refused_analysis_is_a_gap_and_the_rest_goes_on(self, github: Connection) -> None:
        github.tracker.refuse["/languages"] = "permission"
        github.tracker.repository("PETREL").branches.clear()
        for key in ("HARBOR", "PETREL"):
            github.tracker.repository(key).statistics_ready = True
        part = Part(kind=PartKind.SNAPSHOT, stream=Stream.PROJECTS, scope="*")

        page = await github.connector().fetch(part, None)

        assert len(page.records) == 2
        assert [gap.trouble for gap in page.gaps] == [Trouble.PERMISSION_DENIED] * 2
        assert "The repository is empty" in page.records[1].raw["analysis"]["notes"]

    @pytest.mark.parametrize(
        ("part", "kind", "trouble"),
        [("/git/trees", "failing", Trouble.SERVER_ERROR), ("/stats", "invalid", Trouble.BAD_REQUEST)],
    )
    async def test_repository_too_large_to_be_analyzed_does_not_stop_the_others(
        self, github: Connection, part: str, kind: str, trouble: Trouble
    ) -> None:
        github.tracker.refuse[part] = kind
        for key in ("HARBOR", "PETREL"):
            github.tracker.repository(key).statistics_ready = True

        page = await github.connector().fetch(Part(kind=PartKind.SNAPSHOT, stream=Stream.PROJECTS, scope="*"), None)

        assert len(page.records) == 2
        assert [gap.trouble for gap in page.gaps] == [trouble] * 2
        assert all("languages" in sent.raw["analysis"] for sent in page.records)

    async def test_limit_while_repositories_are_analyzed_is_a_limit(self, github: Connection) -> None:
        github.tracker.refuse["/git/trees"] = "secondary"

        with pytest.raises(SourceError) as refused:
            await github.connector().fetch(Part(kind=PartKind.SNAPSHOT, stream=Stream.PROJECTS, scope="*"), None)

        assert refused.value.trouble is Trouble.RATE_LIMIT

    async def test_many_repositories_take_several_pages(self) -> None:
        world = seeded(0, projects=tuple(f"DOCK{number}" for number in range(23)))
        part = Part(kind=PartKind.SNAPSHOT, stream=Stream.PROJECTS, scope="*")
        names: list[str] = []

        async with connection(world) as github:
            position = None
            while True:
                page = await github.connector().fetch(part, position)
                names += [sent.raw["full_name"] for sent in page.records]
                if (position := page.next) is None:
                    break

        assert len(names) == len(set(names)) == 23


class TestConditionalRequests:
    async def test_what_did_not_change_costs_nothing_of_the_limit(self, github: Connection) -> None:
        connector = github.connector()
        await self.read(connector, github)
        github.tracker.quota = 100

        before = await self.read(connector, github)
        cost = 100 - github.tracker.quota
        after = await self.read(connector, github)

        assert before == after
        assert len(after) > 50
        # The commits since a time: another question every time.
        assert (100 - github.tracker.quota - cost, cost) == (2, 2 + 2), "the activity was just computed the first time"

    async def test_change_is_seen_at_once(self, github: Connection) -> None:
        connector = github.connector()
        await self.read(connector, github)
        harbor = github.tracker.repository("HARBOR")
        harbor.branches["storm"] = harbor.commits[0].sha

        after = await self.read(connector, github)

        assert "storm" in {record.get("name") for record in after}

    async def read(self, connector: GitHubConnector, github: Connection) -> list[dict[str, Any]]:
        """Everything that is read whole, with pull requests and commits."""
        scopes, _ = await connector.scopes()
        window = {Stream.PULL_REQUESTS, Stream.COMMITS}
        whole = (Stream.RELEASES, Stream.BRANCHES, Stream.USERS, *window)
        parts = [
            Part(kind=PartKind.WINDOW if stream in window else PartKind.SNAPSHOT, stream=stream, scope=scope.id)
            for stream in whole
            for scope in scopes
        ]
        parts.append(Part(kind=PartKind.SNAPSHOT, stream=Stream.PROJECTS, scope="*"))
        pages = [await connector.fetch(part, None) for part in parts]
        return [sent.raw for page in pages for sent in page.records]


class TestKeys:
    async def test_issue_comes_with_its_comments(self, github: Connection) -> None:
        issue = github.world.all_current("HARBOR")[0]
        for _ in range(120):
            github.world.comment(issue.id)
        issue = github.world.current(issue.id) or issue

        page = await github.keys(issues=[{"id": str(issue.id), "key": f"tidewater/harbor#{issue.number}"}])

        comments = frozenset(str(comment.id) for comment in issue.comments)
        assert [sent.stream for sent in page.records].count(Stream.COMMENTS) == len(comments) > 100
        key = f"tidewater/harbor#{issue.number}"
        assert page.complete == [Children(Stream.COMMENTS, str(issue.id), comments, issue_key=key)]
        assert (page.gone, page.next) == ([], None)

    async def test_comments_stay_away_where_they_are_not_wanted(self, github: Connection) -> None:
        issue = github.world.all_current("HARBOR")[0]
        query = {"issues": [{"id": str(issue.id), "key": f"tidewater/harbor#{issue.number}"}]}
        part = Part(kind=PartKind.KEYS, stream=Stream.ISSUES, scope=github.scope(), query=query)

        page = await github.connector(streams=(Stream.ISSUES,)).fetch(part, None)

        assert [sent.stream for sent in page.records] == [Stream.ISSUES]
        assert page.complete == []

    async def test_deleted_hidden_and_moved_issues_are_gone_under_the_ids_asked(self, github: Connection) -> None:
        deleted, hidden, moved, vanished = github.world.all_current("HARBOR")[:4]
        github.world.delete(deleted.id)
        github.world.edit(hidden.id, hidden=True)
        github.world.move(moved.id, "PETREL")
        github.world.move(vanished.id, "PETREL")
        github.world.delete(vanished.id)
        asked = [
            {"id": str(each.id), "key": f"tidewater/harbor#{each.number}"}
            for each in (deleted, hidden, moved, vanished)
        ]

        page = await github.keys(issues=asked)

        assert page.records == []
        assert page.gone == [
            Gone(Stream.ISSUES, str(deleted.id), Absence.DELETED),
            Gone(Stream.ISSUES, str(hidden.id), Absence.DELETED_OR_HIDDEN),
            Gone(Stream.ISSUES, str(moved.id), Absence.MOVED),
            Gone(Stream.ISSUES, str(vanished.id), Absence.DELETED),
        ]

    async def test_key_alone_finds_the_issue_after_a_rename(self, github: Connection) -> None:
        issue = github.world.all_current("PETREL")[0]
        github.tracker.rename("PETREL", "tidewater/gull")

        page = await github.keys(scope="*", keys=[f"tidewater/petrel#{issue.number}", "tidewater/nothing#1"])

        assert [(sent.raw["id"], sent.scope) for sent in page.records if sent.stream is Stream.ISSUES] == [
            (issue.id, github.scope("PETREL"))
        ]
        assert page.gone == [Gone(Stream.ISSUES, "tidewater/nothing#1", Absence.DELETED_OR_HIDDEN)]

    async def test_key_of_a_pull_request_is_told_and_read_by_its_own_stream(self, github: Connection) -> None:
        pull = github.tracker.repository("HARBOR").pulls[0]
        key = f"tidewater/harbor#{pull.number}"

        as_issue = await github.keys(keys=[key])
        as_pull = await github.keys(Stream.PULL_REQUESTS, issues=[{"id": str(pull.id), "key": key}])

        assert [gap.detail for gap in as_issue.gaps] == [f"{key} is a pull request"]
        assert [sent.raw["id"] for sent in as_pull.records] == [pull.id]

    async def test_fifty_keys_take_two_pages(self) -> None:
        async with connection(seeded(50, projects=("HARBOR",), comments=0)) as github:
            issues = github.world.all_current("HARBOR")
            keys = [{"id": str(each.id), "key": f"tidewater/harbor#{each.number}"} for each in issues]
            part = Part(kind=PartKind.KEYS, stream=Stream.ISSUES, scope=github.scope(), query={"issues": keys})

            first = await github.connector().fetch(part, None)
            second = await github.connector().fetch(part, first.next)

        assert {sent.raw["id"] for sent in (*first.records, *second.records)} == {each.id for each in issues}
        assert second.next is None

    async def test_comments_are_read_by_id(self, github: Connection) -> None:
        comment = next(each.comments[0] for each in github.world.all_current("HARBOR") if each.comments)

        page = await github.keys(Stream.COMMENTS, ids=[str(comment.id), "1"])

        assert [sent.raw["id"] for sent in page.records] == [comment.id]
        assert page.gone == [Gone(Stream.COMMENTS, "1", Absence.DELETED_OR_HIDDEN)]

    @pytest.mark.parametrize(
        ("stream", "query"),
        [
            (Stream.ISSUES, {"ids": ["5"]}),
            (Stream.ISSUES, {"keys": ["HARBOR-5"]}),
            (Stream.COMMITS, {"ids": ["5"]}),
        ],
    )
    async def test_what_github_cannot_find_is_a_bad_request(
        self, github: Connection, stream: Stream, query: dict[str, Any]
    ) -> None:
        with pytest.raises(SourceError) as refused:
            await github.keys(stream, **query)

        assert refused.value.trouble is Trouble.BAD_REQUEST

    async def test_repository_that_is_hidden_now_is_not_its_issues_deleted(self, github: Connection) -> None:
        issue = github.world.all_current("HARBOR")[0]
        github.tracker.refuse[f"/repositories/{github.scope()}"] = "hidden"

        with pytest.raises(SourceError) as refused:
            await github.keys(issues=[{"id": str(issue.id), "key": f"tidewater/harbor#{issue.number}"}])

        assert refused.value.trouble is Trouble.NOT_FOUND

    async def test_refused_issue_is_a_gap_beside_the_others(self, github: Connection) -> None:
        first, second = github.world.all_current("HARBOR")[:2]
        github.tracker.refuse[f"/issues/{first.number}"] = "sso"
        asked = [{"id": str(each.id), "key": f"tidewater/harbor#{each.number}"} for each in (first, second)]

        page = await github.keys(issues=[asked[1], asked[0], {"id": "7", "key": None}])

        assert second.id in {sent.raw["id"] for sent in page.records}
        assert [gap.trouble for gap in page.gaps] == [Trouble.PERMISSION_DENIED, Trouble.BAD_REQUEST]
        assert page.gone == []

    async def test_limit_during_reading_is_not_an_absence(self, github: Connection) -> None:
        github.tracker.refuse["/issues/"] = "secondary"

        with pytest.raises(SourceError) as refused:
            await github.keys(keys=["tidewater/harbor#1"])

        assert refused.value.trouble is Trouble.RATE_LIMIT


class TestApp:
    @pytest.fixture
    def app(self, github: Connection, key_pair: tuple[str, str]) -> dict[str, Any]:
        github.tracker.app = App("731", 5501, key_pair[1])
        return {"app_id": 731, "installation_id": 5501, "private_key": key_pair[0]}

    async def test_installation_sees_its_repositories_with_one_token(
        self, github: Connection, app: dict[str, Any]
    ) -> None:
        connector = github.connector(credentials=app)

        probe = await connector.check()
        scopes, _ = await connector.scopes()

        assert (probe.account, len(scopes), len(github.tracker.minted)) == ("tidewater", 2, 1)
        assert "issues: read" in probe.granted
        assert connector.requests == len(github.tracker.calls)

    async def test_token_is_renewed_five_minutes_before_its_end(self, github: Connection, app: dict[str, Any]) -> None:
        github.tracker.token_seconds = 299
        connector = github.connector(credentials=app)

        await connector.scopes()
        await connector.now()

        assert len(github.tracker.minted) == 2

    async def test_token_revoked_before_its_end_is_replaced(self, github: Connection, app: dict[str, Any]) -> None:
        connector = github.connector(credentials=app)
        await connector.now()
        github.world.advance(3_600)

        scopes, _ = await connector.scopes()

        assert (len(scopes), len(github.tracker.minted)) == (2, 2)

    async def test_clock_that_is_wrong_here_does_not_matter(self, github: Connection, app: dict[str, Any]) -> None:
        github.tracker.judges_clock = True
        connector = github.connector(credentials=app)

        assert abs((github.world.now - datetime.now(UTC)).days) > 1
        assert await connector.now() == github.world.now
        assert len(github.tracker.minted) == 1

    async def test_key_pasted_into_one_line(self, github: Connection, app: dict[str, Any]) -> None:
        app["private_key"] = app["private_key"].replace("\n", "\\n")

        assert await github.connector(credentials=app).now() == github.world.now

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"installation_id": 1}, "404"),
            ({"app_id": "9"}, "401"),
            ({"private_key": "not a key"}, "private key"),
        ],
        ids=["another installation", "another App", "no key"],
    )
    async def test_wrong_credentials_of_an_app(
        self, github: Connection, app: dict[str, Any], changed: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(SourceError) as refused:
            await github.connector(credentials=app | changed).scopes()

        assert refused.value.trouble is Trouble.AUTH_INVALID
        assert said in refused.value.detail

    async def test_suspended_installation(self, github: Connection, app: dict[str, Any]) -> None:
        github.tracker.refuse["/access_tokens"] = "suspended"

        with pytest.raises(SourceError) as refused:
            await github.connector(credentials=app).now()

        assert refused.value.trouble is Trouble.AUTH_INVALID
        assert "suspended" in refused.value.detail


def assert_about(moment: datetime | None, seconds: int) -> None:
    assert moment is not None
    assert abs((moment - datetime.now(UTC)).total_seconds() - seconds) < 3
