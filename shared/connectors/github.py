"""GitHub: github.com, Enterprise Cloud and Enterprise Server, over REST.

A scope is a repository, by its number: names change, `/repositories/{id}` does not, and GitHub's own links lead there.
Pull requests are issues to GitHub; here the issue lists leave them out, and their own list brings them.
https://docs.github.com/en/rest
"""

import math
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Self

import httpx
from pydantic import BeforeValidator, ConfigDict, Field, SecretStr, StringConstraints, model_validator

from shared.connectors import _github_records as records
from shared.connectors._github_access import Installation
from shared.connectors._github_api import REFUSED, GitHubAPI
from shared.connectors._github_hooks import HOOKS
from shared.connectors._github_parts import KEY_FORM, Choices, fetch_page
from shared.connectors._github_walk import every_row
from shared.connectors._http import together
from shared.connectors._protocol import (
    Choice,
    ConnectorCredentials,
    ConnectorSettings,
    Gap,
    Hooks,
    KeyForm,
    Page,
    Part,
    Probe,
    Quota,
    Scope,
    Sent,
    StreamTraits,
    Walk,
)
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Record, Stream

_MOST_COUNTED = 20
# A list to ask of a repository to see whether the token may read it, the permission's name, and what needs it.
_PERMISSIONS = (
    ("issues", "Issues: read", {Stream.ISSUES, Stream.COMMENTS, Stream.USERS}),
    ("pulls", "Pull requests: read", {Stream.PULL_REQUESTS}),
    ("branches", "Contents: read", {Stream.COMMITS, Stream.BRANCHES, Stream.RELEASES, Stream.PROJECTS}),
)


def _without_address(value: object) -> object:
    """`owner/name`, also where a repository's address was pasted."""
    return re.sub(r"^https?://[^/]+/|(\.git)?/?$", "", value.strip()) if isinstance(value, str) else value


RepositoryName = Annotated[
    str, BeforeValidator(_without_address), StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$", max_length=140)
]

# An empty beginning would make every label a priority.
Word = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class GitHubSettings(ConnectorSettings):
    """What to read, and what labels mean: GitHub's issues have neither priority nor status of their own."""

    repositories: tuple[RepositoryName, ...] = Field(
        (), title="Repositories", description="Empty: all the token can see", examples=[["tidewater/harbor"]]
    )
    branches: tuple[Word, ...] = Field(
        (), title="Branches", description="Followed for commits; empty: the default branch", examples=[["main"]]
    )
    priority_labels: tuple[Word, ...] = Field(
        ("priority:", "priority/", "severity:", "severity/"),
        title="Priority labels",
        description="Beginnings of labels whose rest is the priority",
    )
    status_labels: tuple[Word, ...] = Field(
        ("status:", "status/"),
        title="Status labels",
        description="Beginnings of labels whose rest is the status of an open issue",
    )
    type_labels: tuple[Word, ...] = Field(
        ("type:", "type/", "kind/"),
        title="Type labels",
        description="Beginnings of labels whose rest is the type of an issue that has none",
    )


class GitHubCredentials(ConnectorCredentials):
    """A personal access token, or the installation of a GitHub App."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    token: SecretStr | None = Field(
        None, title="Access token", description="Fine-grained or classic; instead of an App", examples=["github_pat_…"]
    )
    app_id: str | None = Field(None, title="App id", description="Or its client id", examples=["123456"])
    installation_id: int | None = Field(None, title="Installation id", examples=[45678901])
    private_key: SecretStr | None = Field(
        None, title="Private key", description="The App's PEM file", examples=["-----BEGIN RSA PRIVATE KEY-----…"]
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        app = (self.app_id, self.installation_id, self.private_key)
        if (self.token is not None) == all(app) or (any(app) and not all(app)):
            raise ValueError("Give either a token, or App id, installation id and private key together")
        return self


class GitHubConnector:
    """A connection to GitHub."""

    source: ClassVar[str] = "github"
    title: ClassVar[str] = "GitHub"
    Settings: ClassVar[type[ConnectorSettings]] = GitHubSettings
    Credentials: ClassVar[type[ConnectorCredentials]] = GitHubCredentials
    streams: ClassVar[Mapping[Stream, StreamTraits]] = {
        Stream.ISSUES: StreamTraits(walk=Walk.WINDOW, census=True),
        Stream.COMMENTS: StreamTraits(walk=Walk.WINDOW, census=True),
        Stream.PULL_REQUESTS: StreamTraits(walk=Walk.WINDOW),
        Stream.COMMITS: StreamTraits(walk=Walk.WINDOW),
        Stream.RELEASES: StreamTraits(walk=Walk.SNAPSHOT),
        Stream.BRANCHES: StreamTraits(walk=Walk.SNAPSHOT),
        Stream.USERS: StreamTraits(walk=Walk.SNAPSHOT),
        Stream.PROJECTS: StreamTraits(walk=Walk.SNAPSHOT, per_scope=False),
    }
    # Lists may be answered by a replica that is behind; GitHub names no figure.
    index_lag: ClassVar[timedelta] = timedelta(seconds=60)
    keys_per_part: ClassVar[int] = 50
    keys_need_scope: ClassVar[bool] = False
    key_form: ClassVar[KeyForm | None] = KEY_FORM
    hooks: ClassVar[Hooks] = HOOKS

    def __init__(
        self, client: httpx.AsyncClient, base_url: str, settings: ConnectorSettings, credentials: ConnectorCredentials
    ) -> None:
        if not isinstance(settings, GitHubSettings) or not isinstance(credentials, GitHubCredentials):
            raise TypeError("GitHub needs its own settings and credentials")
        base_url = re.sub(r"^https?://(www\.)?github\.com/?$", "https://api.github.com", base_url.strip())
        self._settings = settings
        self._app = _installation(client, base_url, credentials)
        token = credentials.token.get_secret_value().strip() if credentials.token else ""
        self._api = GitHubAPI(
            client,
            base_url,
            access=self._app or token,
            repositories=settings.repositories,
            concurrency=settings.concurrency,
        )

    @property
    def requests(self) -> int:
        return self._api.http.requests + (self._app.requests if self._app else 0)

    @property
    def quota(self) -> Quota | None:
        return self._api.http.quota

    async def check(self) -> Probe:
        with _as_described():
            return await self._probe()

    async def now(self) -> datetime:
        answer = await self._api.ping()
        if answer.server_time is None:
            raise SourceError(Trouble.SCHEMA_CHANGED, "GitHub's answer has no Date header")
        return answer.server_time

    async def discover(self, kind: str) -> list[Choice]:
        with _as_described():
            return await self._choices(kind)

    async def scopes(self) -> tuple[list[Scope], list[Gap]]:
        with _as_described():
            found, gaps = await self._api.repositories()
            return [Scope(str(raw["id"]), raw["full_name"]) for raw in found], gaps

    async def split(self, part: Part) -> list[Part]:
        """GitHub wants one request after another, so there is nothing to win by walking parts side by side.

        https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api
        """
        return [part]

    async def fetch(self, part: Part, position: Mapping[str, Any] | None, *, most: int | None = None) -> Page:
        streams = self._settings.streams
        choices = Choices(branches=self._settings.branches, comments=not streams or Stream.COMMENTS in streams)
        with _as_described():
            return await fetch_page(self._api, part, position, most, choices)

    def normalize(self, sent: Sent) -> Record:
        try:
            return self._parse(sent)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"The record is not as GitHub describes it: {error!r}") from error

    def estimate_calls(self, issues: int) -> int:
        """Issues and three comments each, in pages that repeat a row, and some for the rest of a repository."""
        return math.ceil(issues / 99) + math.ceil(3 * issues / 99) + 10

    async def _probe(self) -> Probe:
        about = await (self._app.about() if self._app else self._api.get("user"))
        account: str = (about.data["account"] if self._app else about.data)["login"]
        scopes, gaps = await self.scopes()
        granted = [right for right in re.split(r",\s*", about.headers.get("x-oauth-scopes", "")) if right]
        warnings = [f"{gap.scope}: {gap.detail}" for gap in gaps]
        if "repo" in granted:
            warnings.append("This classic token may write as well; a fine-grained one needs only to read")
        if not scopes:
            warnings.append("No repository can be seen")
        if self._app:
            granted = [f"{name}: {right}" for name, right in sorted(self._app.permissions.items())]
        version = about.headers.get("x-github-enterprise-version")
        return Probe(
            account=account,
            deployment=f"Enterprise Server {version}" if version else "GitHub.com",
            server_time=about.server_time,
            granted=granted,
            missing=await self._missing(scopes[0]) if scopes else (),
            expires_at=records.parse_expiry(about.headers.get("github-authentication-token-expiration")),
            quota=self.quota,
            counts=await self._counts(scopes[:_MOST_COUNTED]),
            warnings=warnings,
        )

    async def _choices(self, kind: str) -> list[Choice]:
        if kind == "projects":
            found, _ = await self._api.visible()
            projects = [records.parse_project(raw) for raw in found]
            return [
                Choice(
                    id=each.key or each.name,
                    name=each.key or each.name,
                    description=each.description or "",
                    updated_at=each.source_updated_at,
                )
                for each in projects
            ]
        if kind == "users":
            scopes, _ = await self.scopes()
            lists = await together(every_row(self._api.get, f"repositories/{each.id}/assignees", {}) for each in scopes)
            return [
                Choice(id=login, name=login) for login in sorted({raw["login"] for rows, _ in lists for raw in rows})
            ]
        return []

    def _parse(self, sent: Sent) -> Record:
        match sent.stream:
            case Stream.ISSUES:
                return records.parse_issue(
                    sent.raw,
                    status_labels=self._settings.status_labels,
                    priority_labels=self._settings.priority_labels,
                    type_labels=self._settings.type_labels,
                )
            case Stream.COMMITS:
                return records.parse_commit(sent.raw, sent.scope)
            case Stream.BRANCHES:
                return records.parse_branch(sent.raw, sent.scope)
            case _:
                return _PARSERS[sent.stream](sent.raw)

    async def _missing(self, scope: Scope) -> list[str]:
        """The permissions without which something that is wanted cannot be read, tried on one repository."""
        wanted = set(self._settings.streams or self.streams)
        missing: list[str] = []
        for path, permission, streams in _PERMISSIONS:
            if not (needed := sorted(streams & wanted)):
                continue
            try:
                await self._api.get(f"repositories/{scope.id}/{path}", {"per_page": 1})
            except SourceError as error:
                if error.trouble not in REFUSED:
                    raise
                # 410: issues are turned off in this repository, which is no lack of a permission.
                if error.status == 410:
                    continue
                missing.append(f"{permission} (for {', '.join(needed)})")
        return missing

    async def _counts(self, scopes: list[Scope]) -> dict[str, int]:
        """The number of the newest issue: about how many there are, pull requests included."""
        newest = {"state": "all", "sort": "created", "direction": "desc", "per_page": 1}
        counts: dict[str, int] = {}
        for scope in scopes:
            try:
                answer = await self._api.get(f"repositories/{scope.id}/issues", newest)
            except SourceError as error:
                if error.trouble not in REFUSED:
                    raise
                continue
            counts[scope.id] = answer.data[0]["number"] if answer.data else 0
        return counts


@contextmanager
def _as_described() -> Generator[None]:
    """Say that an answer is not as the API describes it, instead of stumbling over it."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        detail = "GitHub's answer is not as its API describes it"
        raise SourceError(Trouble.SCHEMA_CHANGED, f"{detail}: {type(error).__name__}") from error


def _installation(client: httpx.AsyncClient, base_url: str, credentials: GitHubCredentials) -> Installation | None:
    if not (credentials.app_id and credentials.installation_id and credentials.private_key):
        return None
    return Installation(
        client,
        base_url,
        app_id=credentials.app_id,
        installation_id=credentials.installation_id,
        private_key=credentials.private_key.get_secret_value(),
    )


_PARSERS: Mapping[Stream, Callable[[dict[str, Any]], Record]] = {
    Stream.COMMENTS: records.parse_comment,
    Stream.PULL_REQUESTS: records.parse_pull_request,
    Stream.RELEASES: records.parse_release,
    Stream.USERS: records.parse_person,
    Stream.PROJECTS: records.parse_project,
}
CONNECTOR = GitHubConnector
