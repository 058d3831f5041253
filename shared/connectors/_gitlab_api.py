"""Requests to GitLab on behalf of one connection: who the token is, and the projects it may read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx

from shared.connectors._gitlab_refusals import classify, read_quota
from shared.connectors._gitlab_settings import GitLabCredentials, TokenKind
from shared.connectors._gitlab_walk import Rows, every_row
from shared.connectors._http import Answer, Headers, TrackerHTTP
from shared.connectors._oauth import classify_login, grant, to_lease, tokens_kept_by
from shared.connectors._protocol import Gap, Lease, OAuthCredentials, Renew
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Stream

REFUSED = frozenset({Trouble.PERMISSION_DENIED, Trouble.NOT_FOUND})


@dataclass(frozen=True)
class TokenFacts:
    """What GitLab says of the token itself; nothing where it does not say."""

    scopes: Sequence[str] = ()
    expires_at: datetime | None = None
    short_lived: bool = False


class GitLabAPI:
    """GitLab as a token may see it."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        base_url: str,
        *,
        credentials: GitLabCredentials,
        renew: Renew | None,
        projects: Sequence[str],
        groups: Sequence[str],
        concurrency: int,
    ) -> None:
        self._credentials = credentials
        self._named = projects
        self._groups = groups
        self._root = base_url.strip().rstrip("/").removesuffix("/api/v4")
        self.http = TrackerHTTP(
            client,
            base_url=f"{self._root}/api/v4",
            authorize=self._authorize,
            renounce=self._renounce,
            classify=classify,
            read_quota=read_quota,
            concurrency=concurrency,
        )
        self._door = TrackerHTTP(client, base_url=self._root, classify=classify_login, concurrency=1)
        self._tokens = tokens_kept_by(renew, self._ask) if credentials.client_id else None

    @property
    def requests(self) -> int:
        """How many requests were sent, those for tokens too."""
        return self.http.requests + self._door.requests

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> Answer:
        """GET a path of the API, or a next link."""
        return await self.http.get(path, params)

    async def graphql(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """What a query finds; nothing if there are errors. See https://docs.gitlab.com/api/graphql/ for both."""
        answer = await self.http.post(f"{self._root}/api/graphql", {"query": query, "variables": variables})
        data: dict[str, Any] | None = answer.data.get("data")
        return {} if answer.data.get("errors") or data is None else data

    async def version(self) -> Answer:
        """The cheapest call that needs a valid token."""
        return await self.get("version")

    async def token_facts(self) -> TokenFacts:
        """The token's scopes and its end. Each kind has a page of its own, and GitLab answers 400 to the other kind.

        https://docs.gitlab.com/api/personal_access_tokens/#self-inform
        https://docs.gitlab.com/api/oauth2/#retrieve-the-token-information
        """
        oauth = self._tokens is not None or self._credentials.kind is TokenKind.OAUTH
        try:
            answer = await self.get(f"{self._root}/oauth/token/info" if oauth else "personal_access_tokens/self")
        except SourceError as error:
            # Servers before 15.5 know no such page for access tokens.
            if error.trouble not in REFUSED | {Trouble.AUTH_INVALID, Trouble.BAD_REQUEST}:
                raise
            return TokenFacts()
        if oauth:
            # The end of a token that is renewed is nothing anybody has to know.
            seconds: int | None = None if self._tokens else answer.data.get("expires_in")
            begun = answer.server_time or answer.read_at
            ends_at = begun + timedelta(seconds=seconds) if seconds else None
            return TokenFacts(answer.data.get("scope") or (), ends_at, short_lived=ends_at is not None)
        day: str | None = answer.data.get("expires_at")
        return TokenFacts(
            answer.data.get("scopes") or (), datetime.fromisoformat(f"{day}T00:00:00+00:00") if day else None
        )

    async def projects(self) -> tuple[Rows, list[Gap]]:
        """The projects the settings name, each once, and those that cannot be read."""
        if not self._named and not self._groups:
            return await self.member_projects(), []
        found: dict[int, dict[str, Any]] = {}
        gaps: list[Gap] = []
        for name in self._named:
            try:
                raw = await self._project(name)
                found[raw["id"]] = raw
            except SourceError as error:
                gaps.append(gap_of(Stream.PROJECTS, name, error))
        for name in self._groups:
            params = {"include_subgroups": "true", "order_by": "id", "sort": "asc"}
            try:
                whole = await every_row(self.get, f"groups/{quote(name, safe='')}/projects", params)
                found |= {raw["id"]: raw for raw in whole.rows}
            except SourceError as error:
                gaps.append(gap_of(Stream.PROJECTS, name, error))
        return list(found.values()), gaps

    async def project_id(self, path: str) -> str:
        """The number of a project called so, now or formerly."""
        return str((await self._project(path))["id"])

    async def member_projects(self) -> Rows:
        """All projects the account is a member of."""
        whole = await every_row(self.get, "projects", {"membership": "true", "order_by": "id", "sort": "asc"})
        return whole.rows

    async def members(self, project: str) -> Rows:
        """Everybody in a project, by way of its groups too."""
        return (await every_row(self.get, f"projects/{project}/members/all", {})).rows

    async def _project(self, name: str) -> dict[str, Any]:
        return (await self.get(f"projects/{quote(name, safe='')}")).data

    async def _authorize(self) -> Headers:
        if self._tokens:
            return await self._tokens.headers()
        token = self._credentials.token.get_secret_value().strip()
        oauth = self._credentials.kind is TokenKind.OAUTH
        return {"Authorization": f"Bearer {token}"} if oauth else {"PRIVATE-TOKEN": token}

    def _renounce(self, refused: Headers) -> bool:
        return self._tokens is not None and self._tokens.renounce(refused)

    async def _ask(self, credentials: OAuthCredentials) -> Lease:
        """Ask for a token; the one before, of any worker, is not taken from then on.

        https://docs.gitlab.com/api/oauth2/#authorization-code-flow
        """
        form = grant(credentials)
        return to_lease(await self._door.request("POST", "oauth/token", form=form), form)


def gap_of(stream: Stream, scope: str, error: SourceError) -> Gap:
    """A refusal as a gap; other trouble is raised."""
    if error.trouble not in REFUSED:
        raise error
    return Gap(stream, scope, error.trouble, error.detail, error.status)
