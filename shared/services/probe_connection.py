"""Test a connection: who we are to the source, what we may see, and what a first import will take."""

import logging
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from shared.connectors._protocol import Choice, Connector, Gap, Probe, Quota, Scope
from shared.domain.caller import Caller
from shared.domain.errors import (
    ConflictError,
    InvalidRequestError,
    MisconfiguredError,
    SourceError,
    TributaryError,
    Trouble,
    UnavailableError,
)
from shared.services.accept_sync import require_open, require_usable
from shared.services.judge_lag import IndexLag, find_index_lag
from shared.services.manage_connections import existing
from shared.services.open_connector import Connectors, check_settings, heeding_limits
from shared.services.walk_parts import quota_json
from shared.store import audit_log, connections, coverage
from shared.store.connections import StoredConnection
from shared.store.database import Database

log = logging.getLogger(__name__)

DISCOVERED = ("projects", "users", "boards")
# A page of issues takes a tracker longer than the cheap call that is measured, and hardly ever less than this.
_SECONDS_PER_CALL = 0.4
_PAGE_TO_CHEAP_CALL = 1.5
# Limits hold for one of these; what is left of the current window tells which, at least.
_WINDOWS_SECONDS = (1, 10, 60, 600, 3_600, 86_400)
_LOOK_AT_ADDRESS = "Check base_url too: is it the tracker's, with all of its path and no more?"
_SKEW_WORTH_TELLING = timedelta(seconds=30)


class UnreadScope(BaseModel):
    """Something the settings name that cannot be read."""

    stream: str
    scope: str
    code: str = Field(examples=["PERMISSION_DENIED"])
    detail: str


class ProbeFailure(BaseModel):
    """Why the test failed, and what to do."""

    code: str = Field(examples=["AUTH_INVALID"])
    detail: str
    advice: str
    status: int | None = None


class ProbeResult(BaseModel):
    """What a test found out."""

    model_config = ConfigDict(frozen=True)

    passed: bool
    error: ProbeFailure | None = None
    account: str | None = None
    deployment: str | None = None
    time_zone: str | None = Field(default=None, description="Of the account, where the source reads times in it")
    clock_skew_seconds: float | None = Field(default=None, description="The source's clock minus ours")
    index_lag: IndexLag | None = None
    granted: list[str] = []
    missing: list[str] = Field(default=[], description="Permissions the account lacks, and what will be missing for it")
    expires_at: datetime | None = Field(default=None, description="When the token expires, where the source tells")
    quota: dict[str, Any] | None = None
    scopes: list[str] = Field(
        default=[], description="Projects, repositories or tables that will be read; at most 200 are named"
    )
    scopes_total: int = 0
    unread: list[UnreadScope] = []
    issues: int | None = Field(default=None, description="About how many issues there are, where the source tells")
    issues_by_scope: dict[str, int] = Field(default={}, description="Where the source tells; at most 200 are named")
    estimated_calls: int | None = Field(default=None, description="Of a first import")
    estimated_seconds: float | None = Field(default=None, description="Of a first import, waits for the limit included")
    warnings: list[str] = []


async def probe_connection(database: Database, made: Connectors, caller: Caller, slug: str) -> ProbeResult:
    """Test a connection and keep the result; nothing else may be done with it before this succeeds.

    A source that is down or busy takes nothing away from a connection that passed before.

    Raises ConflictError if somebody changed it meanwhile.
    """
    async with database.connection() as connection:
        stored = await existing(connection, slug)
    result, gaps = await _probe(database, made, stored)
    if stored.test_passed and _passes_by_itself(result):
        # An outage says nothing of the connection: saved as its test, it would stop all syncs for good.
        return result
    async with database.transaction() as connection:
        told = result.model_dump(mode="json", exclude_none=True)
        if not await connections.save_test(connection, stored, result=told):
            # What passed is not what is stored now, perhaps not even at the same address.
            raise ConflictError(f"The connection {slug!r} was changed while it was tested", hint="Test it again")
        await coverage.note_gaps(connection, stored.id, gaps)
        await audit_log.append(
            connection,
            actor=caller.id,
            action="connection.tested",
            subject=f"connection:{slug}",
            before={"test_passed": stored.test_passed},
            after={"test_passed": result.passed, "error": result.error.code if result.error else None},
        )
    return result


def _passes_by_itself(result: ProbeResult) -> bool:
    code = result.error.code if result.error else ""
    return code in set(Trouble) and Trouble(code).retryable


async def _probe(database: Database, made: Connectors, stored: StoredConnection) -> tuple[ProbeResult, list[Gap]]:
    try:
        require_open(stored, now=datetime.now(UTC))
        connector = await made.untracked(stored)
        async with heeding_limits(database, stored):
            probe = await connector.check()
            clock = await _read_clock(connector)
            scopes, gaps = await connector.scopes()
    except SourceError as error:
        log.info("Connection test failed", extra={"action": "probe_failed", "trouble": error.trouble})
        # Where nothing is found at all it may well be that something else, or a part of the path, is under the address.
        advice = f"{error.hint}. {_LOOK_AT_ADDRESS}" if error.trouble is Trouble.NOT_FOUND else error.hint
        failure = ProbeFailure(code=error.trouble, detail=error.detail, advice=advice, status=error.status)
        return ProbeResult(passed=False, error=failure), []
    except (UnavailableError, MisconfiguredError):
        # Neither says anything of the connection.
        raise
    except TributaryError as error:
        failure = ProbeFailure(code=error.code, detail=error.detail, advice=error.hint)
        return ProbeResult(passed=False, error=failure), []
    if not scopes:
        detail = "The account sees nothing of what the settings name" if gaps else "The account sees no project at all"
        failure = ProbeFailure(code="NOT_FOUND", detail=detail, advice="Check the names, and the account's permissions")
        return ProbeResult(passed=False, error=failure, account=probe.account, unread=_unread(gaps)), gaps
    async with database.connection() as connection:
        lag = await find_index_lag(connection, stored)
    return _passed(stored, connector, probe, clock, scopes, gaps, lag), gaps


@dataclass(frozen=True)
class _Clock:
    """The source's clock minus ours, and how long it took to ask."""

    skew: timedelta
    seconds: float


async def _read_clock(connector: Connector) -> _Clock:
    asked = datetime.now(UTC)
    told = await connector.now()
    took = datetime.now(UTC) - asked
    # Sources tell whole seconds: half a second more is nearer, on average.
    return _Clock(told + timedelta(seconds=0.5) - (asked + took / 2), took.total_seconds())


def estimate_seconds(calls: int, *, per_call: float, at_once: int, quota: Quota | None, now: datetime) -> float:
    """About how long so many calls take, with the waits for a limit too small for them; `now` is the source's."""
    working = math.ceil(calls * per_call / at_once)
    if quota is None or not quota.limit or quota.remaining is None or quota.resets_at is None:
        return working
    if calls <= quota.remaining:
        return working
    left = max((quota.resets_at - now).total_seconds(), 1)
    window = next((each for each in _WINDOWS_SECONDS if each >= left), left)
    windows = math.ceil((calls - quota.remaining) / quota.limit)
    return max(working, math.ceil(left + (windows - 1) * window))


def _passed(
    stored: StoredConnection,
    connector: Connector,
    probe: Probe,
    clock: _Clock,
    scopes: list[Scope],
    gaps: list[Gap],
    lag: IndexLag,
) -> ProbeResult:
    settings = check_settings(stored.source, stored.settings)
    skew = clock.skew.total_seconds()
    warnings = list(probe.warnings)
    if abs(clock.skew) > _SKEW_WORTH_TELLING:
        warnings.append(f"The source's clock is {skew:+.0f} s off ours; syncs go by the source's")
    if lag.advice:
        warnings.append(lag.advice)
    counts = {scope.name: probe.counts[scope.id] for scope in scopes if scope.id in probe.counts}
    issues = math.ceil(sum(counts.values()) * len(scopes) / len(counts)) if counts else None
    if counts and len(counts) < len(scopes):
        warnings.append(f"Issues were counted in {len(counts)} of {len(scopes)}; their total is a guess")
    calls = connector.estimate_calls(issues) if issues is not None else None
    takes = partial(
        estimate_seconds,
        per_call=max(_SECONDS_PER_CALL, clock.seconds * _PAGE_TO_CHEAP_CALL),
        at_once=settings.concurrency,
        now=datetime.now(UTC) + clock.skew,
    )
    seconds = calls and takes(calls, quota=probe.quota)
    # A limit by the second is met on the way, and nobody notices.
    if calls and seconds and probe.quota and seconds > takes(calls, quota=None):
        warnings.append(f"A first import takes about {calls} calls, {probe.quota.remaining} are left: it will pause")
    return ProbeResult(
        passed=True,
        account=probe.account,
        deployment=probe.deployment,
        time_zone=probe.time_zone,
        clock_skew_seconds=round(skew, 1),
        index_lag=lag,
        granted=list(probe.granted),
        missing=list(probe.missing),
        expires_at=probe.expires_at,
        quota=quota_json(probe.quota) if probe.quota else None,
        scopes=[scope.name for scope in scopes][:200],
        scopes_total=len(scopes),
        unread=_unread(gaps),
        issues=issues,
        issues_by_scope=dict(list(counts.items())[:200]),
        estimated_calls=calls,
        estimated_seconds=seconds,
        warnings=warnings,
    )


def _unread(gaps: list[Gap]) -> list[UnreadScope]:
    return [UnreadScope(stream=gap.stream, scope=gap.scope, code=gap.trouble, detail=gap.detail) for gap in gaps]


async def discover(database: Database, made: Connectors, slug: str, kind: str) -> list[Choice]:
    """What there is to choose from: projects, users or boards, once the test succeeded. Raises SourceError."""
    if kind not in DISCOVERED:
        raise InvalidRequestError(f"{kind!r} cannot be listed", fields={"kind": f"one of {', '.join(DISCOVERED)}"})
    async with database.connection() as connection:
        stored = await existing(connection, slug)
    require_usable(stored)
    require_open(stored, now=datetime.now(UTC))
    connector = await made.untracked(stored)
    async with heeding_limits(database, stored):
        return await connector.discover(kind)
