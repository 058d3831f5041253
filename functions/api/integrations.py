"""Connections to trackers: register, test, discover, sync, watch."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from functions.api import paging
from functions.api.auth import GuardedRoute, needs
from functions.api.context import InContext
from functions.api.forms import IdempotencyKey
from functions.api.models import Accepted, ChangedSince, Link, Links, Name, Word, accepted
from functions.api.openapi import problems
from shared.connectors import connectors
from shared.connectors._protocol import Choice
from shared.domain.caller import Caller, Role
from shared.domain.job import Priority
from shared.domain.stream import Stream
from shared.domain.sync import SyncMode, SyncOptions
from shared.services.accept_sync import accept_sync
from shared.services.manage_connections import (
    ConnectionChange,
    ConnectionView,
    NewConnection,
    change_connection,
    create_connection,
    find_view,
    list_views,
    remove_connection,
    to_view,
)
from shared.services.probe_connection import ProbeResult, discover, probe_connection
from shared.services.rotate_credentials import Rotation, rotate_credentials
from shared.services.run_schedules import ScheduleChange, change_schedule, pause_schedule, resume_schedule
from shared.services.track_users import track_users
from shared.services.watch_connections import (
    ConnectionHealth,
    ConnectionLog,
    ConnectionMetrics,
    ConnectionState,
    ScheduleView,
    TrackedUser,
    find_rate_limit,
    find_state,
    list_health,
    list_logs,
    list_metrics,
    list_tracked,
    schedule_view,
)

router = APIRouter(prefix="/api/integrations", route_class=GuardedRoute, tags=["integrations"])

Reader = Annotated[Caller, Depends(needs(Role.READER))]
Operator = Annotated[Caller, Depends(needs(Role.OPERATOR))]
Admin = Annotated[Caller, Depends(needs(Role.ADMIN))]
Slug = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="Slug of the connection")]


class Connected(ConnectionView):
    """A connection, and what can be done with it."""

    schedule: ScheduleView | None = None
    links: Links


class ConnectionPage(BaseModel):
    """Connections by slug."""

    items: list[Connected]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; absent on the last")


class SourceForm(BaseModel):
    """A kind of tracker, and the form of its connections as JSON Schema."""

    source: str = Field(examples=["jira"])
    title: str = Field(examples=["Jira"])
    streams: list[Stream]
    settings: dict[str, Any] = Field(description="JSON Schema of `settings`")
    credentials: dict[str, Any] = Field(description="JSON Schema of `credentials`; secrets have `writeOnly`")


class SourceForms(BaseModel):
    """Every kind of tracker."""

    items: list[SourceForm]


class SyncRequest(BaseModel):
    """What to sync."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["incremental", "full", "census"] = Field(
        default="incremental",
        description="`incremental`: what changed; `full`: everything again; `census`: find what is gone or was missed",
    )
    streams: list[Stream] = Field(default=[], max_length=20, description="Only these; by default all")
    scopes: list[Name] = Field(default=[], max_length=200, description="Only these projects or repositories")
    since: ChangedSince | None = Field(default=None, description="Read again what changed since then")
    census: StrictBool = Field(default=False, description="Follow an incremental sync by a census")
    accept_absences: StrictBool = Field(
        default=False, description="Mark as gone even when suspiciously many records are missing at once"
    )
    priority: Priority = Priority.NORMAL


class Choices(BaseModel):
    """What there is to choose from."""

    items: list[dict[str, Any]]


class StatusList(BaseModel):
    """Connections at a glance."""

    items: list[ConnectionHealth]


class MetricList(BaseModel):
    """Numbers of the last 24 hours."""

    items: list[ConnectionMetrics]


class LogPage(BaseModel):
    """What happened, newest first."""

    items: list[ConnectionLog]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; absent on the last")


class RateLimit(BaseModel):
    """What the source last said of its limit."""

    quota: dict[str, Any] | None
    blocked_until: datetime | None


class Watchlist(BaseModel):
    """Accounts whose issues are followed; with none, all are."""

    items: list[TrackedUser]


class Watched(BaseModel):
    """An account to follow."""

    model_config = ConfigDict(extra="forbid")

    account: Word = Field(description="Its id at the source", examples=["5b10ac8d82e05b22cc7d4ef5"])
    name: Word | None = None


class WatchRequest(BaseModel):
    """The whole watchlist; an empty one follows everybody."""

    model_config = ConfigDict(extra="forbid")

    items: list[Watched] = Field(max_length=200)


class WatchlistAnswer(BaseModel):
    """The watchlist, and the job that reads the history of added accounts."""

    items: list[TrackedUser]
    backfill: Accepted | None


@router.get("", summary="Connections", responses=problems(422))
async def listed(
    context: InContext, _caller: Reader, cursor: paging.Cursor = None, limit: paging.Limit = 50
) -> ConnectionPage:
    """Every connection without its secrets."""
    found = await list_views(context.runtime.database, after=paging.decode_text(cursor), limit=limit + 1)
    page = found[:limit]
    return ConnectionPage(
        items=[_connected(view) for view in page],
        next_cursor=paging.encode(page[-1].slug) if len(found) > limit else None,
    )


@router.post(
    "",
    status_code=201,
    summary="Register a connection",
    responses={
        201: {"headers": {"Location": {"description": "The connection", "schema": {"type": "string"}}}},
        **problems(400, 409, 422),
    },
)
async def create(context: InContext, caller: Admin, response: Response, body: NewConnection) -> Connected:
    """Credentials are sealed at once and cannot be read again. Test the connection next: nothing else works before."""
    runtime = context.runtime
    cron = runtime.settings.schedule_default_cron
    stored = await create_connection(runtime.database, runtime.connectors.sealer, caller, body, cron=cron)
    response.headers["Location"] = f"/api/integrations/{stored.slug}"
    return _connected(to_view(stored))


@router.get("/sources", summary="Kinds of trackers", responses=problems())
async def sources(_caller: Reader) -> SourceForms:
    """What can be connected, and which settings and credentials each kind takes."""
    return SourceForms(
        items=[
            SourceForm(
                source=name,
                title=each.title,
                streams=list(each.streams),
                settings=each.Settings.model_json_schema(),
                credentials=each.Credentials.model_json_schema(),
            )
            for name, each in sorted(connectors().items())
        ]
    )


@router.get("/health", summary="Connections at a glance", responses=problems())
async def health(context: InContext, _caller: Reader) -> StatusList:
    """Which are current, and why the others are not."""
    made = context.runtime.connectors
    return StatusList(items=await list_health(context.runtime.database, made.sealer, now=datetime.now(UTC)))


@router.get("/metrics", summary="Numbers of the last 24 hours", responses=problems())
async def metrics(context: InContext, _caller: Reader) -> MetricList:
    """Jobs, calls and records of every connection."""
    return MetricList(items=await list_metrics(context.runtime.database))


@router.post("/credentials/rotate", summary="Wrap all credentials with the current key", responses=problems(422))
async def rotate(context: InContext, caller: Admin) -> Rotation:
    """After a new key was put in front of CREDENTIAL_ENCRYPTION_KEY, or into CREDENTIAL_KEY_VAULT_KEY.

    Repeating it does no harm. A connection whose key is lost is named; its credentials have to be sent again.
    """
    runtime = context.runtime
    return await rotate_credentials(runtime.database, runtime.connectors.sealer, caller)


@router.get("/{slug}", summary="A connection", responses=problems(404, 422))
async def one(context: InContext, _caller: Reader, slug: Slug) -> Connected:
    """With its last test and its schedule, without its secrets."""
    view, schedule = await find_view(context.runtime.database, slug)
    return _connected(view, schedule_view(schedule))


@router.patch("/{slug}", summary="Change a connection", responses=problems(400, 404, 409, 422))
async def change(context: InContext, caller: Admin, slug: Slug, body: ConnectionChange) -> Connected:
    """What is left out stays. Credentials are merged, settings replaced; a new address needs all credentials again."""
    runtime = context.runtime
    return _connected(to_view(await change_connection(runtime.database, runtime.connectors.sealer, caller, slug, body)))


@router.delete("/{slug}", status_code=204, summary="Remove a connection", responses=problems(404, 409, 422))
async def remove(context: InContext, caller: Admin, slug: Slug) -> Response:
    """With its credentials, schedule and ledger. What it brought stays."""
    await remove_connection(context.runtime.database, caller, slug)
    return Response(status_code=204)


@router.post("/{slug}/test", summary="Test a connection", responses=problems(404, 409, 422))
async def test(context: InContext, caller: Operator, slug: Slug) -> ProbeResult:
    """Who we are to the source, what we may see, and what a first import takes; or what is wrong, with advice."""
    return await probe_connection(context.runtime.database, context.runtime.connectors, caller, slug)


@router.get("/{slug}/discover", summary="What there is to choose from", responses=problems(404, 409, 422, 502))
async def discovered(
    context: InContext,
    _caller: Operator,
    slug: Slug,
    kind: Annotated[Literal["projects", "users", "boards"], Query(description="What to list")] = "projects",
) -> Choices:
    """Projects or repositories, users, or boards the account sees."""
    found: list[Choice] = await discover(context.runtime.database, context.runtime.connectors, slug, kind)
    return Choices(
        items=[
            {"id": each.id, "name": each.name, "description": each.description, "updated_at": each.updated_at}
            for each in found
        ]
    )


@router.post("/{slug}/sync", status_code=202, summary="Sync now", responses=problems(400, 404, 409, 422))
async def sync(
    context: InContext,
    caller: Operator,
    response: Response,
    slug: Slug,
    body: SyncRequest | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Accepted:
    """Queue a sync; without a body an incremental one."""
    wanted = body or SyncRequest()
    job = await accept_sync(
        context.runtime.database,
        caller,
        slug,
        SyncOptions(
            mode=SyncMode(wanted.mode),
            streams=tuple(wanted.streams),
            scopes=tuple(wanted.scopes),
            since=wanted.since,
            census=wanted.census,
            accept_absences=wanted.accept_absences,
        ),
        priority=wanted.priority,
        idempotency_key=idempotency_key,
    )
    await context.dispatch()
    answer = accepted(job)
    response.headers["Location"] = answer.links["status"].href
    return answer


@router.get("/{slug}/sync-logs", summary="What happened to a connection", responses=problems(404, 422))
async def logs(
    context: InContext, _caller: Reader, slug: Slug, cursor: paging.Cursor = None, limit: paging.Limit = 50
) -> LogPage:
    """Its own log and that of its jobs, newest first."""
    found = await list_logs(context.runtime.database, slug, before=paging.decode_id(cursor), limit=limit + 1)
    page = found[:limit]
    return LogPage(items=page, next_cursor=paging.encode(page[-1].id) if len(found) > limit else None)


@router.get("/{slug}/state", summary="Cursors, coverage and the proof", responses=problems(404, 422))
async def state(context: InContext, _caller: Reader, slug: Slug) -> ConnectionState:
    """How far every stream is read, what cannot be read and why, and whether the windows leave a hole."""
    return await find_state(context.runtime.database, slug)


@router.get("/{slug}/rate-limit", summary="What the source allows", responses=problems(404, 422))
async def rate_limit(context: InContext, _caller: Reader, slug: Slug) -> RateLimit:
    """What it last said of its limit, and until when it wants no calls."""
    return RateLimit.model_validate(await find_rate_limit(context.runtime.database, slug))


@router.put("/{slug}/schedule", summary="Reschedule", responses=problems(400, 404, 422))
async def reschedule(context: InContext, caller: Admin, slug: Slug, body: ScheduleChange) -> ScheduleView:
    """Another cadence, from now on; what is left out stays."""
    changed = await change_schedule(context.runtime.database, caller, slug, body, now=datetime.now(UTC))
    return ScheduleView.model_validate(changed.model_dump())


@router.post("/{slug}/pause", summary="Pause the schedule", responses=problems(404, 422))
async def pause(context: InContext, caller: Admin, slug: Slug) -> ScheduleView:
    """No more syncs by the clock; what runs goes on, and syncs by hand still work."""
    paused = await pause_schedule(context.runtime.database, caller, slug)
    return ScheduleView.model_validate(paused.model_dump())


@router.post("/{slug}/resume", summary="Resume the schedule", responses=problems(404, 422))
async def resume(context: InContext, caller: Admin, slug: Slug) -> ScheduleView:
    """Sync by the clock again, first within a minute."""
    resumed = await resume_schedule(context.runtime.database, caller, slug, now=datetime.now(UTC))
    return ScheduleView.model_validate(resumed.model_dump())


@router.get("/{slug}/tracked-users", summary="The watchlist", responses=problems(404, 422))
async def tracked(context: InContext, _caller: Reader, slug: Slug) -> Watchlist:
    """Accounts whose issues are followed; with none, all are."""
    return Watchlist(items=await list_tracked(context.runtime.database, slug))


@router.put("/{slug}/tracked-users", summary="Set the watchlist", responses=problems(400, 404, 409, 422))
async def track(context: InContext, caller: Admin, slug: Slug, body: WatchRequest) -> WatchlistAnswer:
    """Follow only issues of these accounts. The history of an added account is read by a job of its own."""
    job = await track_users(context.runtime.database, caller, slug, {user.account: user.name for user in body.items})
    await context.dispatch()
    items = await list_tracked(context.runtime.database, slug)
    return WatchlistAnswer(items=items, backfill=accepted(job) if job else None)


def _connected(view: ConnectionView, schedule: ScheduleView | None = None) -> Connected:
    base = f"/api/integrations/{view.slug}"
    links = {"self": Link(method="GET", href=base), "test": Link(method="POST", href=f"{base}/test")}
    if view.test_passed and view.active:
        links |= {
            "discover": Link(method="GET", href=f"{base}/discover"),
            "preview": Link(method="POST", href=f"/api/import/{view.source}/preview"),
            "sync": Link(method="POST", href=f"{base}/sync"),
            "state": Link(method="GET", href=f"{base}/state"),
        }
    return Connected(**view.model_dump(), schedule=schedule, links=links)
