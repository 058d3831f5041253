"""The contract of a source module, and what passes between it and the engine that runs syncs.

A source module (`shared/connectors/<source>.py`) holds one class with the attributes and methods of Connector and names
it in `CONNECTOR`. It knows the tracker's API and nothing else: no database, no clock, no job. The engine plans windows,
calls `fetch` until a part is walked, stores what came, and proves that nothing is missing.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from shared.domain.errors import Trouble
from shared.domain.stream import Record, Stream
from shared.domain.sync import NamedIssue

EVERYTHING = "*"
"""The scope of streams that belong to the whole connection, such as users."""

SCOPE_SETTINGS = ("projects", "repositories", "groups", "tables")
"""Settings that say which scopes are read; each scope has a time line of its own. Without any the source says which."""


class ConnectorSettings(BaseModel):
    """What an admin may set for a connection of any source. The schema draws the wizard's form."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    streams: tuple[Stream, ...] = Field((), title="Streams", description="Empty: all that the source has")
    concurrency: int = Field(
        2, ge=1, le=16, title="Requests at once", description="Of one sync, on however many workers it runs"
    )
    payload_days: int | None = Field(
        None,
        ge=1,
        le=36_500,
        title="Keep payloads",
        description="Days after which the record as it came is emptied; empty: for ever",
    )
    index_lag_seconds: int | None = Field(
        None, ge=0, le=3_600, title="Index lag", description="How late the source's search may show a change"
    )

    @property
    def chooses(self) -> bool:
        """Whether these settings choose among the issues of a scope, in a way only the source can tell."""
        return False


class ConnectorCredentials(BaseModel):
    """Secrets of a connection; every field that must not be shown is a SecretStr."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    webhook_secret: SecretStr | None = Field(
        None,
        min_length=12,
        max_length=1_000,
        title="Webhook secret",
        description="The same one as in the tracker's webhook; without it no webhook of this connection is believed",
    )

    @field_validator("webhook_secret")
    @classmethod
    def _check_webhook_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        """It travels in headers and addresses, where other characters arrive in more than one way."""
        if secret and not (secret.get_secret_value().isascii() and secret.get_secret_value().isprintable()):
            raise ValueError("Use letters, digits and signs of ASCII only")
        return secret


class OAuthCredentials(ConnectorCredentials):
    """An OAuth app and, where somebody authorized it, the refresh token that this brought.

    Trackers take a refresh token once and send its successor along with the access token. The successor takes its place
    in the connection: see Renew.
    """

    client_id: str | None = Field(None, title="OAuth client ID", description="Of the app, instead of a token")
    client_secret: SecretStr = Field(SecretStr(""), title="OAuth client secret")
    refresh_token: SecretStr = Field(
        SecretStr(""),
        title="OAuth refresh token",
        description="From authorizing the app, for this connection alone; it is used up and replaced at once",
    )


@dataclass(frozen=True, kw_only=True)
class Lease:
    """An access token, and the refresh token that gets the next one; empty where none is needed."""

    access_token: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)
    # A little before the access token ends; None where the tracker does not tell its end.
    renew_at: datetime | None = None

    def lasts(self, now: datetime) -> bool:
        """Whether there is no need for another one yet."""
        return self.renew_at is None or now < self.renew_at


Ask = Callable[[OAuthCredentials], Awaitable[Lease]]
"""Gets a lease from the tracker."""

Renew = Callable[[str, Ask], Awaitable[Lease]]
"""How a connector with a refresh token gets a lease other than the one whose access token it names (empty: none yet).

If another worker stored one meanwhile, it is this. Else `ask` gets it, with the credentials as they are stored now and
while no other worker asks, and it is stored before it is returned. Raises what `ask` raises.
"""


class Walk(StrEnum):
    """How a stream is read."""

    WINDOW = "window"  # by time of change; each sync reads from where the last one closed
    SNAPSHOT = "snapshot"  # whole, every time; what a finished reading does not show is gone
    CHILD = "child"  # comes with its parent


@dataclass(frozen=True, kw_only=True)
class StreamTraits:
    """How the engine has to treat a stream of a source."""

    walk: Walk
    per_scope: bool = True
    # For CHILD: the stream whose parts bring it.
    parent: Stream | None = None
    # Whether `fetch` understands a census part of it.
    census: bool = False


@dataclass(frozen=True)
class Scope:
    """A unit the source can be asked for: a project, a repository, a table. `id` is stable and what requests use."""

    id: str
    name: str


@dataclass(frozen=True)
class Gap:
    """Something that could not be read, and why; it is shown to people until it can be read again."""

    stream: Stream
    scope: str
    trouble: Trouble
    detail: str
    status: int | None = None


class PartKind(StrEnum):
    """What a part is for."""

    WINDOW = "window"
    SNAPSHOT = "snapshot"
    CENSUS = "census"  # list id and time of change of everything, cheaply
    KEYS = "keys"  # read named issues: query = {"issues": [{"id", "key"}], "ids": [those ids], "keys": [from people]}


@dataclass(frozen=True, kw_only=True)
class Part:
    """The unit of fan-out: one walk over one stream of one scope. `since` None means from the beginning."""

    kind: PartKind
    stream: Stream
    scope: str
    since: datetime | None = None
    # What divides a scope into parts that can be walked side by side, such as a range of keys; JSON.
    query: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Sent(NamedTuple):
    """A record as the source sent it, before it is normalized."""

    stream: Stream
    raw: dict[str, Any]
    scope: str
    # What else is needed to normalize it, such as the issue a comment belongs to; JSON. `keep` and `keep_payload` name
    # fields and payload keys this reading does not bring, and whose stored values stay.
    context: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Children:
    """All `stream` records of one parent are on this page; others that are stored for it are gone."""

    stream: Stream
    issue_id: str
    ids: frozenset[str]
    # Where records of the stream name their issue by its key only.
    issue_key: str | None = None


class Absence(StrEnum):
    """Why a record is not there any more."""

    DELETED = "deleted"
    DELETED_OR_HIDDEN = "deleted_or_hidden"  # the source does not tell these apart
    MOVED = "moved"  # to where this connection does not look


@dataclass(frozen=True)
class Gone:
    """A record the source says is not there."""

    stream: Stream
    external_id: str
    absence: Absence


@dataclass(frozen=True, kw_only=True)
class Page:
    """One step of a walk. `next` says where to go on; None only when the walk ended normally."""

    read_at: datetime = field(metadata={"doc": "Just before the first request of the page was sent"})
    # A connector may make each when it is asked for, so go through them once.
    records: Sequence[Sent] = ()
    next: Mapping[str, Any] | None = None
    complete: Sequence[Children] = ()
    gone: Sequence[Gone] = ()
    gaps: Sequence[Gap] = ()
    # Census: (external id, time of change if the list shows it) of part.stream.
    seen: Sequence[tuple[str, datetime | None]] = ()


@dataclass(frozen=True, kw_only=True)
class Quota:
    """What a source says of a rate limit."""

    bucket: str = ""
    limit: int | None = None
    remaining: int | None = None
    resets_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a successful check found out."""

    account: str
    deployment: str
    time_zone: str | None = None
    server_time: datetime | None = None
    granted: Sequence[str] = ()
    # Permissions or scopes this account lacks, and what will be missing for it.
    missing: Sequence[str] = ()
    expires_at: datetime | None = None
    quota: Quota | None = None
    # Scope → number of issues, where the source tells; approximate.
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    warnings: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Something to choose from in the wizard."""

    id: str
    name: str
    description: str = ""
    updated_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class HookCall:
    """A webhook call as it arrived. Nothing of it is true before it is verified."""

    headers: Mapping[str, str]  # names in lower case
    query: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What a webhook call tells: a hint at what to ask for again, never the news itself."""

    event: str
    issues: Sequence[NamedIssue] = ()
    # Why there is nothing to ask for.
    ignored: str = ""


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """How the webhooks of a source are verified and read. All of it is pure."""

    # (call, secret, now) → how it was proven. Over the raw body; raises NotAuthenticatedError.
    verify: Callable[[HookCall, str, datetime], str]
    # What tells a delivery apart from others and is the same when it is sent again.
    identify: Callable[[HookCall], str]
    # Raises ValueError when the body makes no sense.
    parse: Callable[[HookCall], Delivery]
    # Headers worth keeping; none of them proves anything.
    headers: frozenset[str]


class KeyForm(NamedTuple):
    """What a key looks like."""

    pattern: re.Pattern[str]
    example: str


class Connector(Protocol):
    """One tracker, spoken to with the settings and credentials of one connection.

    Every method that talks raises SourceError with the class of trouble, and nothing else, whatever the source does.
    One whose Credentials are OAuthCredentials is made with `renew` as well.
    """

    source: ClassVar[str]
    title: ClassVar[str]
    Settings: ClassVar[type[ConnectorSettings]]
    Credentials: ClassVar[type[ConnectorCredentials]]
    streams: ClassVar[Mapping[Stream, StreamTraits]]
    # How late a change may appear in lists, at worst; windows are held back by it.
    index_lag: ClassVar[timedelta]
    # Largest number of ids a KEYS part may name.
    keys_per_part: ClassVar[int]
    # Whether a key alone does not say which scope it is in, so that every scope has to be asked.
    keys_need_scope: ClassVar[bool]
    # What the key of an issue has to look like, for others cannot even be asked for; None where any name can be.
    key_form: ClassVar[KeyForm | None]
    hooks: ClassVar[Hooks]

    def __init__(
        self, client: httpx.AsyncClient, base_url: str, settings: ConnectorSettings, credentials: ConnectorCredentials
    ) -> None: ...

    @property
    def requests(self) -> int:
        """How many requests were sent so far."""
        ...

    @property
    def quota(self) -> Quota | None:
        """What the last answer said of the rate limit."""
        ...

    async def check(self) -> Probe:
        """Prove the credentials and find out what they can see."""
        ...

    async def now(self) -> datetime:
        """The source's own clock, from the Date header of a cheap, authenticated call."""
        ...

    async def discover(self, kind: str) -> list[Choice]:
        """List `projects`, `users` or `boards` (what the source calls so) to choose from."""
        ...

    async def scopes(self) -> tuple[list[Scope], list[Gap]]:
        """The scopes the settings name, as the source knows them now, and those that cannot be read."""
        ...

    async def split(self, part: Part) -> list[Part]:
        """Divide a part so that the pieces can be walked side by side; [part] where it cannot be or is not worth it."""
        ...

    async def fetch(self, part: Part, position: Mapping[str, Any] | None, *, most: int | None = None) -> Page:
        """One page of a part, from `position` (None: the start); `most` limits its records, for previews.

        Walks are safe against change: a record that exists during the whole walk, and was changed at or after
        `part.since`, is on some page, whatever is created, edited or deleted meanwhile. There is no upper bound.
        """
        ...

    def normalize(self, sent: Sent) -> Record:
        """The record in our words. Pure. Raises ValueError (pydantic's too) when it makes no sense: it is rejected."""
        ...

    def estimate_calls(self, issues: int) -> int:
        """About how many requests a first import of so many issues takes."""
        ...
