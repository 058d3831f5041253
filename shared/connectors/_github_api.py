"""Requests to GitHub on behalf of one connection, and the repositories it may read."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import httpx

from shared.connectors._github_access import API_HEADERS, Installation, classify, read_quota
from shared.connectors._github_kept import KeptAnswers
from shared.connectors._github_walk import Rows, every_row
from shared.connectors._http import Answer, Headers, TrackerHTTP, together
from shared.connectors._protocol import Gap
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Stream

REFUSED = frozenset({Trouble.NOT_FOUND, Trouble.PERMISSION_DENIED})


class GitHubAPI:
    """GitHub as a token, or the installation of an App, may see it."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        base_url: str,
        *,
        access: str | Installation,
        repositories: Sequence[str],
        concurrency: int,
    ) -> None:
        self._access = access
        self._names = repositories
        self._ids: dict[str, str] = {}
        self._kept = KeptAnswers()
        self._known: tuple[Rows, list[Gap]] | None = None
        self.http = TrackerHTTP(
            client,
            base_url=base_url,
            authorize=self._authorize,
            renounce=self._renounce,
            classify=classify,
            read_quota=read_quota,
            concurrency=concurrency,
        )

    async def get(
        self, path: str, params: Mapping[str, Any] | None = None, *, headers: Headers | None = None
    ) -> Answer:
        """GET a path of the API, or a next link."""
        return await self.http.get(path, params, headers=headers)

    async def get_seldom_changed(self, path: str, params: Mapping[str, Any] | None = None) -> Answer:
        """GET what is asked for in every sync and is mostly as it was; that is free of the rate limit then."""
        name = f"{path}?{urlencode(params or {})}"
        etag = self._kept.etag_of(name)
        answer = await self.get(path, params, headers={"If-None-Match": etag} if etag else None)
        return self._kept.settle(name, answer)

    async def ping(self) -> Answer:
        """A cheap call that proves the credentials; it costs nothing of the rate limit.

        https://docs.github.com/en/rest/rate-limit/rate-limit
        """
        try:
            return await self.get("rate_limit")
        except SourceError as error:
            # Enterprise Server says so where its rate limits are off, as they are by default.
            if error.trouble is not Trouble.NOT_FOUND:
                raise
            return await self.get("meta")

    async def repositories(self, *, known_will_do: bool = False) -> tuple[Rows, list[Gap]]:
        """The repositories of the connection, by number, and those it may not read."""
        if self._known is None or not known_will_do:
            self._known = await (self._chosen() if self._names else self.visible())
        return self._known

    async def visible(self) -> tuple[Rows, list[Gap]]:
        """Every repository the credentials can see, by number.

        https://docs.github.com/en/rest/apps/installations#list-repositories-accessible-to-the-app-installation
        https://docs.github.com/en/rest/repos/repos#list-repositories-for-the-authenticated-user
        """
        if isinstance(self._access, Installation):
            rows, first = await every_row(self._get_installed, "installation/repositories", {})
        else:
            rows, first = await every_row(
                self.get_seldom_changed, "user/repos", {"sort": "created", "direction": "asc"}
            )
        rows.sort(key=lambda row: row["id"])
        return rows, _left_out(first.headers.get("x-github-sso", ""))

    async def repository_id(self, name: str) -> str:
        """The number of the repository called `owner/name` now or formerly."""
        if name not in self._ids:
            self._ids[name] = str((await self.get(f"repos/{name}")).data["id"])
        return self._ids[name]

    async def _chosen(self) -> tuple[Rows, list[Gap]]:
        found = await together(self._named(name) for name in self._names)
        rows = {each["id"]: each for each in found if not isinstance(each, Gap)}
        return [rows[number] for number in sorted(rows)], [each for each in found if isinstance(each, Gap)]

    async def _named(self, name: str) -> dict[str, Any] | Gap:
        try:
            answer = await self.get_seldom_changed(f"repos/{name}")
        except SourceError as error:
            if error.trouble not in REFUSED:
                raise
            return Gap(Stream.PROJECTS, name, error.trouble, f"{error.detail}. {error.hint}", error.status)
        return answer.data

    async def _get_installed(self, path: str, params: Mapping[str, Any] | None) -> Answer:
        answer = await self.get_seldom_changed(path, params)
        return replace(answer, data=answer.data["repositories"])

    async def _authorize(self) -> Headers:
        if isinstance(self._access, Installation):
            return {**API_HEADERS, **await self._access.headers()}
        return {**API_HEADERS, "Authorization": f"Bearer {self._access}"}

    def _renounce(self, refused: Headers) -> bool:
        """The token of an App is made anew; another kind has no successor."""
        return isinstance(self._access, Installation) and self._access.renounce(refused)


def _left_out(sso: str) -> list[Gap]:
    """Organizations whose rows a list lacks because the token is not authorized for their single sign-on.

    https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api#saml-single-sign-on
    """
    _, found, organizations = sso.partition("partial-results; organizations=")
    if not found:
        return []
    detail = "GitHub leaves out its repositories: authorize the token for the organization's single sign-on"
    return [
        Gap(Stream.PROJECTS, f"organization {number.strip()}", Trouble.PERMISSION_DENIED, detail)
        for number in organizations.split(",")
    ]
