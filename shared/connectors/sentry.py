"""Sentry, SaaS and self-hosted: issues with their latest event, notes, members and projects.

Nothing in Sentry tells when an issue was resolved, assigned, archived or commented on: `lastSeen` moves with events
only. A walk by `lastSeen` finds new events; the census, whose list carries whole records, finds all other changes.
https://docs.sentry.io/api/events/list-an-organizations-issues/
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import httpx
from pydantic import Field, SecretStr

from shared.connectors._http import together
from shared.connectors._protocol import (
    EVERYTHING,
    Absence,
    Choice,
    ConnectorCredentials,
    ConnectorSettings,
    Gap,
    Gone,
    Hooks,
    KeyForm,
    Page,
    Part,
    PartKind,
    Probe,
    Quota,
    Scope,
    Sent,
    StreamTraits,
    Walk,
)
from shared.connectors._sentry_api import (
    PAGE,
    Extra,
    Listing,
    SentryAPI,
    missing_rights,
    to_object,
    to_objects,
)
from shared.connectors._sentry_details import Details
from shared.connectors._sentry_hooks import HOOKS
from shared.connectors._sentry_records import (
    PARTIAL_PAYLOAD_KEY,
    array,
    is_object,
    member,
    member_id,
    parse_issue,
    parse_member,
    parse_note,
    parse_project,
    seen_at,
)
from shared.connectors._sentry_walk import Place, next_cursor, step
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Record, Stream

_MOST_COUNTED = 20

__all__ = ["CONNECTOR", "PARTIAL_PAYLOAD_KEY", "SentryConnector"]


class SentrySettings(ConnectorSettings):
    """What of an organization is read."""

    organization: str = Field(
        title="Organization",
        description="Its slug, as in the address of its pages",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        examples=["tidewater"],
    )
    projects: tuple[str, ...] = Field(
        (), title="Projects", description="Slugs; empty: all that the token can see", examples=[["checkout", "ledger"]]
    )
    environments: tuple[str, ...] = Field(
        (), title="Environments", description="Only issues seen there; empty: all", examples=[["production"]]
    )
    query: str = Field(
        "",
        title="Search",
        description="Only issues that match this search of Sentry's; empty: all, resolved ones too",
        examples=["level:[error, fatal]"],
    )
    latest_event: bool = Field(
        default=True,
        title="Latest event",
        description="Read each changed issue's latest event, for stack trace and environment: one call per issue",
    )

    @property
    def chooses(self) -> bool:
        return bool(self.query or self.environments)


class SentryCredentials(ConnectorCredentials):
    """How to log in."""

    token: SecretStr = Field(
        title="Token", description="Of an internal integration with read access to events, projects, members"
    )


class SentryConnector:
    """One Sentry organization."""

    source: ClassVar[str] = "sentry"
    title: ClassVar[str] = "Sentry"
    Settings: ClassVar[type[SentrySettings]] = SentrySettings
    Credentials: ClassVar[type[SentryCredentials]] = SentryCredentials
    streams: ClassVar[Mapping[Stream, StreamTraits]] = {
        Stream.ISSUES: StreamTraits(walk=Walk.WINDOW, census=True),
        Stream.COMMENTS: StreamTraits(walk=Walk.CHILD, parent=Stream.ISSUES),
        Stream.USERS: StreamTraits(walk=Walk.SNAPSHOT, per_scope=False),
        Stream.PROJECTS: StreamTraits(walk=Walk.SNAPSHOT, per_scope=False),
    }
    # Events are counted some minutes after they came.
    index_lag: ClassVar[timedelta] = timedelta(minutes=10)
    keys_per_part: ClassVar[int] = 20
    keys_need_scope: ClassVar[bool] = False
    key_form: ClassVar[KeyForm | None] = None
    hooks: ClassVar[Hooks] = HOOKS

    def __init__(
        self, client: httpx.AsyncClient, base_url: str, settings: SentrySettings, credentials: SentryCredentials
    ) -> None:
        self._settings = settings
        self._details = Details(events=settings.latest_event, comments=self._wants(Stream.COMMENTS))
        self._api = SentryAPI(client, base_url, settings.organization, credentials.token, settings.concurrency)

    @property
    def requests(self) -> int:
        """How many requests were sent so far."""
        return self._api.http.requests

    @property
    def quota(self) -> Quota | None:
        """What the last answer said of the rate limit."""
        return self._api.http.quota

    async def check(self) -> Probe:
        """Prove the credentials and find out what they can see."""
        answer = await self._api.organization()
        organization = to_object(answer)
        index = await self._api.index()
        granted = [str(scope) for scope in array(member(index, "auth").get("scopes"))]
        region = str(member(organization, "links").get("regionUrl") or "")
        here = httpx.URL(answer.url)
        warnings = []
        if region and httpx.URL(region).host != here.host:
            warnings = [f"The organization lives at {region}: this address saves each call a detour"]
        account = member(index, "user").get("name") or organization.get("name") or self._settings.organization
        return Probe(
            account=str(account),
            deployment="saas" if here.host == "sentry.io" or here.host.endswith(".sentry.io") else "self-hosted",
            server_time=answer.server_time,
            granted=granted,
            missing=missing_rights(granted) if granted else (),
            quota=self.quota,
            counts=await self._counts(warnings),
            warnings=warnings,
        )

    async def _counts(self, warnings: list[str]) -> dict[str, int]:
        """About how many issues a first import reads; Sentry counts to a thousand and no further."""
        try:
            scopes, _ = await self.scopes()
            parts = [Part(kind=PartKind.CENSUS, stream=Stream.ISSUES, scope=each.id) for each in scopes[:_MOST_COUNTED]]
            counted = await together(self._api.count_issues(self._search(part, Place(), 1)) for part in parts)
        except SourceError as refused:
            if refused.trouble is Trouble.NOT_FOUND and self._settings.environments:
                # The organization and its projects have just been seen.
                names = ", ".join(self._settings.environments)
                detail = f"Sentry does not know every environment of: {names}"
                hint = "Correct the environments in the settings"
                raise SourceError(Trouble.NOT_FOUND, detail, status=refused.status, hint=hint) from refused
            if refused.trouble is not Trouble.PERMISSION_DENIED:
                raise
            return {}
        if full := [scope.name for scope, hits in zip(scopes, counted, strict=False) if hits and hits.more]:
            warnings.append(f"There are more issues than Sentry counts in {', '.join(full)}: expect more calls")
        return {part.scope: hits.count for part, hits in zip(parts, counted, strict=True) if hits}

    async def now(self) -> datetime:
        """The source's own clock."""
        answer = await self._api.organization()
        return answer.server_time or answer.read_at

    async def discover(self, kind: str) -> list[Choice]:
        """List projects or users to choose from; Sentry has no boards."""
        if kind == "projects":
            found = (await self._api.everything("projects")).items
            return [
                Choice(id=str(raw["slug"]), name=str(raw.get("name")), description=str(raw.get("platform") or ""))
                for raw in found
                if raw.get("slug")
            ]
        if kind == "users":
            found = (await self._api.everything("members")).items
            return [Choice(id=member_id(raw), name=str(raw.get("name") or raw.get("email") or "")) for raw in found]
        return []

    async def scopes(self) -> tuple[list[Scope], list[Gap]]:
        """The projects the settings name, and those that cannot be read."""
        listing, gaps = await self._projects()
        closed = [raw for raw in listing.items if raw.get("hasAccess") is False]
        detail = "The account of this token is in no team of the project"
        gaps += [Gap(Stream.ISSUES, str(raw["id"]), Trouble.PERMISSION_DENIED, detail) for raw in closed]
        return [Scope(str(raw["id"]), str(raw.get("slug"))) for raw in listing.items if raw not in closed], gaps

    async def split(self, part: Part) -> list[Part]:
        """A project is one walk: its pages are few, and the calls for events run side by side within a page."""
        return [part]

    async def fetch(self, part: Part, position: Mapping[str, Any] | None, *, most: int | None = None) -> Page:
        """One page of a part."""
        match part.stream, part.kind:
            case Stream.ISSUES, PartKind.WINDOW | PartKind.CENSUS:
                return await self._issues(part, Place.of(position), most)
            case Stream.ISSUES, PartKind.KEYS:
                return await self._named_issues(part)
            case Stream.USERS, PartKind.SNAPSHOT:
                return await self._users()
            case Stream.PROJECTS, PartKind.SNAPSHOT:
                listing, gaps = await self._projects()
                return _page(Stream.PROJECTS, listing, gaps)
            case _:
                raise SourceError(Trouble.BAD_REQUEST, f"Sentry has no {part.kind} of {part.stream}")

    def normalize(self, sent: Sent) -> Record:
        """The record in our words."""
        match sent.stream:
            case Stream.ISSUES:
                return parse_issue(sent.raw)
            case Stream.COMMENTS:
                return parse_note(sent.raw, sent.context)
            case Stream.USERS:
                return parse_member(sent.raw)
            case Stream.PROJECTS:
                return parse_project(sent.raw)
            case _:
                raise ValueError(f"Sentry has no {sent.stream}")

    def estimate_calls(self, issues: int) -> int:
        """A list call per hundred issues, one per latest event, and one for each twentieth that has comments."""
        calls = -(-issues // PAGE) + 1
        if self._settings.latest_event:
            calls += issues
        return calls + (issues // 20 if self._wants(Stream.COMMENTS) else 0)

    async def _issues(self, part: Part, place: Place, most: int | None) -> Page:
        answer = await self._api.issues(self._search(part, place, most))
        items = [raw for raw in to_objects(answer) if raw.get("id")]
        following = step(place, [str(raw["id"]) for raw in items], next_cursor(answer.links))
        census = part.kind is PartKind.CENSUS
        if most is None:
            detailed = await self._details.read(self._api, items, part.scope, events=not census)
        else:
            detailed = self._details.without(items, part.scope)
        gaps = list(detailed.gaps)
        if following.torn and most is None:
            detail = "Issues first seen in the same second moved while they were read; the next full reading finds all"
            gaps.append(Gap(Stream.ISSUES, part.scope, Trouble.SERVER_ERROR, detail))
        return Page(
            read_at=answer.read_at,
            records=detailed.records,
            next=following.place.position() if following.place else None,
            complete=detailed.complete,
            gaps=gaps,
            seen=[(str(raw["id"]), seen_at(raw)) for raw in items] if census else (),
        )

    def _search(self, part: Part, place: Place, most: int | None) -> dict[str, Any]:
        # Without a query Sentry shows unresolved issues only; an empty one shows all. The longest period is 90 days,
        # and what had no event in it is in no list. An empty groupStatsPeriod leaves out charts, which always change.
        # https://docs.sentry.io/api/events/list-an-organizations-issues/
        terms = [self._settings.query.strip()]
        if part.since:
            terms.append(f"lastSeen:>={part.since.astimezone(UTC):%Y-%m-%dT%H:%M:%S}")
        params: dict[str, Any] = {
            "project": part.scope,
            "query": " ".join(filter(None, terms)),
            "sort": "new",
            "limit": min(most or PAGE, PAGE),
            "statsPeriod": "90d",
            "groupStatsPeriod": "",
            "environment": list(self._settings.environments),
        }
        return {**params, "cursor": place.cursor} if place.cursor else params

    async def _named_issues(self, part: Part) -> Page:
        # An organization that is renamed or hidden answers 404 for every issue. Asked first, that is an error of the
        # connection, and not twenty deletions.
        first = await self._api.organization()
        ids, keys = _named(part.query)
        asked = await together([*map(self._api.issue, ids), *map(self._api.issue_of_short_id, keys)])
        found: dict[str, dict[str, Any]] = {}
        gone: list[Gone] = []
        gaps: list[Gap] = []
        for name, extra in zip([*ids, *keys], asked, strict=True):
            if denied := extra.denied:
                detail = f"Issue {name}: {denied.detail}"
                gaps.append(Gap(Stream.ISSUES, part.scope, denied.trouble, detail, denied.status))
            elif extra.refused:
                gone.append(Gone(Stream.ISSUES, name, Absence.DELETED_OR_HIDDEN))
            else:
                raw = _issue_of(extra)
                found[str(raw["id"])] = raw
                # A merged issue's id leads to where it went: `get_group_with_redirect`, src/sentry/models/group.py
                if name in ids and str(raw["id"]) != name:
                    gone.append(Gone(Stream.ISSUES, name, Absence.DELETED))
        detailed = await self._details.read(self._api, list(found.values()), part.scope, events=True)
        return Page(
            read_at=first.read_at,
            records=detailed.records,
            complete=detailed.complete,
            gone=gone,
            gaps=[*gaps, *detailed.gaps],
        )

    async def _users(self) -> Page:
        try:
            return _page(Stream.USERS, await self._api.everything("members"))
        except SourceError as refused:
            if refused.trouble is not Trouble.PERMISSION_DENIED:
                raise
            gap = Gap(Stream.USERS, EVERYTHING, refused.trouble, refused.detail, refused.status)
        return Page(read_at=(await self._api.organization()).read_at, gaps=[gap])

    async def _projects(self) -> tuple[Listing, list[Gap]]:
        listing = await self._api.everything("projects")
        by_slug = {str(raw.get("slug")): raw for raw in listing.items}
        wanted = self._settings.projects
        missing = [slug for slug in wanted if slug not in by_slug]
        # A renamed project is not listed under its old slug, but its old address leads on to the new one.
        asked = await together(map(self._api.project, missing))
        gaps = [
            Gap(Stream.ISSUES, slug, extra.refused.trouble, extra.refused.detail, extra.refused.status)
            for slug, extra in zip(missing, asked, strict=True)
            if extra.refused
        ]
        found = [by_slug[slug] for slug in wanted if slug in by_slug] if wanted else list(by_slug.values())
        found += [extra.data for extra in asked if is_object(extra.data)]
        return Listing(found, listing.read_at), gaps

    def _wants(self, stream: Stream) -> bool:
        return not self._settings.streams or stream in self._settings.streams


def _named(query: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The ids and the short ids a part asks for; of an issue named by both, the id counts."""
    ids = {str(each) for each in query.get("ids", ())}
    keys = {str(each) for each in query.get("keys", ())}
    for issue in query.get("issues", ()):
        if issue.get("id"):
            ids.add(str(issue["id"]))
        elif issue.get("key"):
            keys.add(str(issue["key"]))
    return sorted(ids), sorted(keys)


def _issue_of(extra: Extra) -> dict[str, Any]:
    raw = extra.data if is_object(extra.data) else {}
    issue = member(raw, "group") or raw
    if not issue.get("id"):
        raise SourceError(Trouble.PAYLOAD_INVALID, "The source sent something else than an issue")
    return issue


def _page(stream: Stream, listing: Listing, gaps: Sequence[Gap] = ()) -> Page:
    records = [Sent(stream, raw, EVERYTHING) for raw in listing.items]
    return Page(read_at=listing.read_at, records=records, gaps=gaps)


CONNECTOR = SentryConnector
