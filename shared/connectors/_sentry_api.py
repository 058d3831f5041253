"""Sentry's API as calls: one method per resource, whole lists, and what refusals and limits mean.

https://docs.sentry.io/api/ lists the resources; answers to trouble are those of getsentry/sentry, src/sentry/api.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from shared.connectors._http import Answer, Headers, Refusal, TrackerHTTP, parse_http_date
from shared.connectors._protocol import Quota
from shared.connectors._sentry_records import is_array, is_object
from shared.connectors._sentry_walk import circling, next_cursor
from shared.domain.errors import SourceError, Trouble

# The most that Sentry gives: https://docs.sentry.io/api/events/list-an-organizations-issues/
PAGE = 100
_ABSENT = {Trouble.NOT_FOUND, Trouble.PERMISSION_DENIED}
_WINDOW_SECONDS = re.compile(r"requests in (\d+) seconds")
_CONCURRENT_PAUSE = timedelta(seconds=2)
_LEAST_PAUSE = timedelta(seconds=1)
_UNKNOWN_PAUSE = timedelta(minutes=1)
_LIMIT = "X-Sentry-Rate-Limit-"
# What a token has to be allowed, and what is missing otherwise: https://docs.sentry.io/api/permissions/
_NEEDED = {
    "event:read": "issues, their events and comments",
    "project:read": "the list of projects",
    "org:read": "the organization, without which nothing can be read",
    "member:read": "users",
}


@dataclass(frozen=True)
class Extra:
    """Something that need not be there: what was read, or why it was not."""

    data: Any = None
    refused: SourceError | None = None
    # Whether what it belongs to is there, though this is said not to be.
    orphaned: bool = False

    @property
    def denied(self) -> SourceError | None:
        """The refusal, if it keeps something away; what went with its issue is refused without that."""
        rights = self.refused is not None and self.refused.trouble is Trouble.PERMISSION_DENIED
        return self.refused if rights or self.orphaned else None


@dataclass(frozen=True)
class Listing:
    """A whole list, and when its reading began."""

    items: Sequence[dict[str, Any]]
    read_at: datetime


@dataclass(frozen=True)
class Hits:
    """How many issues there are, or at least that many."""

    count: int
    more: bool


class SentryAPI:
    """The resources of one organization."""

    def __init__(
        self, client: httpx.AsyncClient, base_url: str, organization: str, token: SecretStr, concurrency: int
    ) -> None:
        self.http = TrackerHTTP(
            client,
            base_url=base_url.rstrip("/").removesuffix("/api/0") + "/api/0/",
            authorize=self._authorize,
            classify=classify,
            read_quota=read_quota,
            concurrency=concurrency,
        )
        self._slug = organization
        self._token = token

    async def index(self) -> dict[str, Any]:
        """Who the token is and what it is allowed: `IndexEndpoint`, src/sentry/api/endpoints/index.py."""
        return to_object(await self.http.get(""))

    async def organization(self) -> Answer:
        """The organization."""
        return await self.http.get(self._path())

    async def issues(self, params: Mapping[str, Any]) -> Answer:
        """A page of issues."""
        return await self.http.get(self._path("issues"), params)

    async def count_issues(self, params: Mapping[str, Any]) -> Hits | None:
        """How many issues a search finds; None where Sentry does not tell."""
        headers = (await self.issues(params)).headers
        hits, most = headers.get("x-hits", ""), headers.get("x-max-hits", "")
        return Hits(int(hits), more=hits == most) if hits.isdecimal() else None

    async def issue(self, issue_id: str) -> Extra:
        """One issue, or the one it was merged into."""
        return await self._optional(self._path("issues", issue_id))

    async def issue_of_short_id(self, short_id: str) -> Extra:
        """The issue with a key such as LEDGER-4F, under `group`."""
        return await self._optional(self._path("shortids", short_id))

    async def latest_event(self, issue_id: str) -> Extra:
        """The latest event of an issue; not there when all its events expired."""
        return await self._optional(self._path("issues", issue_id, "events", "latest"))

    async def notes(self, issue_id: str) -> Extra:
        """The comments of an issue. Their pages go by id, so nothing slips from one to the next."""
        try:
            pages = await self._pages(self._path("issues", issue_id, "notes"))
        except SourceError as refused:
            if refused.trouble not in _ABSENT:
                raise
            issue = (await self.issue(issue_id)).data if refused.trouble is Trouble.NOT_FOUND else None
            return Extra(refused=refused, orphaned=is_object(issue) and str(issue.get("id")) == issue_id)
        return Extra([raw for answer in pages for raw in to_objects(answer) if raw.get("id")])

    async def project(self, slug: str) -> Extra:
        """One project; the address of a renamed one leads on to its new name."""
        return await self._optional(f"projects/{quote(self._slug, safe='')}/{quote(slug, safe='')}/")

    async def everything(self, resource: str) -> Listing:
        """All of `projects` or `members`.

        These lists count pages by offset (`OffsetPaginator`, src/sentry/api/paginator.py): a removal above moves a row
        from the next page to the one just read. So a list of several pages is read twice, and what either shows counts.
        """
        found: dict[str, dict[str, Any]] = {}
        pages = await self._pages(self._path(resource))
        if len(pages) > 1:
            pages += await self._pages(self._path(resource))
        for answer in pages:
            found |= {str(raw["id"]): raw for raw in to_objects(answer) if raw.get("id")}
        return Listing(list(found.values()), pages[0].read_at)

    async def _pages(self, path: str) -> list[Answer]:
        answers: list[Answer] = []
        cursors: list[str | None] = [None]
        while True:
            cursor = {"cursor": cursors[-1]} if cursors[-1] else {}
            answers.append(await self.http.get(path, {"per_page": PAGE, **cursor}))
            following = next_cursor(answers[-1].links)
            if following is None:
                return answers
            if following in cursors:
                raise circling()
            cursors.append(following)

    async def _optional(self, path: str) -> Extra:
        try:
            return Extra((await self.http.get(path)).data)
        except SourceError as refused:
            if refused.trouble not in _ABSENT:
                raise
            return Extra(refused=refused)

    def _path(self, *names: str) -> str:
        return "".join(f"{quote(name, safe='')}/" for name in ("organizations", self._slug, *names))

    async def _authorize(self) -> Headers:
        return {"Authorization": f"Bearer {self._token.get_secret_value()}"}


def missing_rights(granted: Sequence[str]) -> list[str]:
    """The scopes a token lacks, and what will be missing for it. Who may write may read."""
    kinds = {kind for kind, _, right in (scope.partition(":") for scope in granted) if right in _READING}
    return [f"{scope}: {lost}" for scope, lost in _NEEDED.items() if scope.partition(":")[0] not in kinds]


_READING = {"read", "write", "admin"}


def to_object(answer: Answer) -> dict[str, Any]:
    """The object an answer holds."""
    if not is_object(answer.data):
        raise SourceError(
            Trouble.PAYLOAD_INVALID, "The source sent something else than an object", status=answer.status
        )
    return answer.data


def to_objects(answer: Answer) -> list[dict[str, Any]]:
    """The objects of the list an answer holds."""
    if not is_array(answer.data):
        raise SourceError(Trouble.PAYLOAD_INVALID, "The source sent something else than a list", status=answer.status)
    return [raw for raw in answer.data if is_object(raw)]


def classify(refusal: Refusal) -> SourceError | None:
    """Refusals with a meaning of Sentry's own; None for those that mean what their status says.

    `detail` is a text, or an object with a code: `SentryAPIException` in src/sentry/api/exceptions.py.
    """
    if refusal.status == 429:
        says = "Sentry allows no more calls of this kind for now"
        return refusal.error(Trouble.RATE_LIMIT, says, retry_at=_retry_at(refusal))
    if refusal.status != 401:
        return None
    body = refusal.json
    detail = body.get("detail") if is_object(body) else None
    code = detail.get("code") if is_object(detail) else None
    if code in _REFUSED_ACCOUNT:
        trouble, says, hint = _REFUSED_ACCOUNT[code]
        return refusal.error(trouble, says, hint=hint)
    if isinstance(detail, str) and "expired" in detail.lower():
        return refusal.error(Trouble.AUTH_EXPIRED, "The token has expired")
    return None


_REFUSED_ACCOUNT = {
    "sso-required": (
        Trouble.AUTH_EXPIRED,
        "The organization wants a single sign-on, which this token's account has not done lately",
        "Use the token of an internal integration, which needs none, or log in to Sentry again and renew the token",
    ),
    "2fa-required": (
        Trouble.AUTH_INVALID,
        "The organization wants two-factor authentication, which this token's account has not set up",
        "Use the token of an internal integration, or set up two-factor authentication for the account",
    ),
    "member-disabled-over-limit": (
        Trouble.SUSPENDED_PAYMENT,
        "The organization has more members than its plan allows, and this token's account is disabled for it",
        "",
    ),
}


def _retry_at(refusal: Refusal) -> datetime:
    """When to call again: Retry-After is not promised, https://docs.sentry.io/api/ratelimits/ names these headers."""
    if refusal.retry_after:
        return refusal.retry_after
    if _number(refusal.headers, "ConcurrentRemaining") == 0 and _number(refusal.headers, "Remaining") != 0:
        return refusal.now + _CONCURRENT_PAUSE
    reset = _moment(refusal.headers)
    if reset:
        # By the source's clock, which need not be ours.
        return refusal.now + max(reset - (parse_http_date(refusal.headers.get("date")) or refusal.now), _LEAST_PAUSE)
    told = _WINDOW_SECONDS.search(refusal.text)
    return refusal.now + (timedelta(seconds=int(told[1])) if told else _UNKNOWN_PAUSE)


def read_quota(headers: httpx.Headers) -> Quota | None:
    """What an answer says of the limits: of calls at once when none is left, else of calls per window."""
    if _number(headers, "ConcurrentRemaining") == 0:
        return Quota(bucket="concurrent", limit=_number(headers, "ConcurrentLimit"), remaining=0)
    limit, remaining = _number(headers, "Limit"), _number(headers, "Remaining")
    if limit is None and remaining is None:
        return None
    return Quota(bucket="window", limit=limit, remaining=remaining, resets_at=_moment(headers))


def _number(headers: httpx.Headers, name: str) -> int | None:
    with suppress(ValueError):
        return int(headers.get(_LIMIT + name, ""))
    return None


def _moment(headers: httpx.Headers) -> datetime | None:
    seconds = _number(headers, "Reset")
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(seconds, UTC) if seconds else None
    return None
