"""Test a connection: who we are to the source, what we may see, and what a first import will take."""

import logging
import math
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from shared.connectors._protocol import Choice, Connector, Gap, Probe
from shared.domain.caller import Caller
from shared.domain.errors import InvalidRequestError, SourceError, TributaryError
from shared.services.manage_connections import existing
from shared.services.open_connector import Connectors, check_settings
from shared.services.walk_parts import quota_json
from shared.store import audit_log, connections, coverage
from shared.store.connections import StoredConnection
from shared.store.database import Database

log = logging.getLogger(__name__)

DISCOVERED = ("projects", "users", "boards")
# A call to a tracker with the reading of its answer, when nothing was measured yet.
_SECONDS_PER_CALL = 0.4
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
    index_lag_seconds: float | None = Field(default=None, description="By how much windows are held back")
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
    estimated_calls: int | None = Field(default=None, description="Of a first import")
    estimated_seconds: float | None = None
    warnings: list[str] = []


async def probe_connection(database: Database, made: Connectors, caller: Caller, slug: str) -> ProbeResult:
    """Test a connection and keep the result; nothing else may be done with it before this succeeds."""
    async with database.connection() as connection:
        stored = await existing(connection, slug)
    result, gaps = await _probe(made, stored)
    async with database.transaction() as connection:
        await connections.save_test(
            connection, stored.id, passed=result.passed, result=result.model_dump(mode="json", exclude_none=True)
        )
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


async def _probe(made: Connectors, stored: StoredConnection) -> tuple[ProbeResult, list[Gap]]:
    try:
        connector = made.untracked(stored)
        probe = await connector.check()
        scopes, gaps = await connector.scopes()
    except SourceError as error:
        log.info("Connection test failed", extra={"action": "probe_failed", "trouble": error.trouble})
        failure = ProbeFailure(code=error.trouble, detail=error.detail, advice=error.hint, status=error.status)
        return ProbeResult(passed=False, error=failure), []
    except TributaryError as error:
        failure = ProbeFailure(code=error.code, detail=error.detail, advice=error.hint)
        return ProbeResult(passed=False, error=failure), []
    if not scopes:
        detail = "The account sees nothing of what the settings name" if gaps else "The account sees no project at all"
        failure = ProbeFailure(code="NOT_FOUND", detail=detail, advice="Check the names, and the account's permissions")
        return ProbeResult(passed=False, error=failure, account=probe.account, unread=_unread(gaps)), gaps
    return _passed(stored, connector, probe, [scope.name for scope in scopes], gaps), gaps


def _passed(
    stored: StoredConnection, connector: Connector, probe: Probe, scopes: list[str], gaps: list[Gap]
) -> ProbeResult:
    settings = check_settings(stored.source, stored.settings)
    lag = connector.index_lag.total_seconds()
    skew = (probe.server_time - datetime.now(UTC)) if probe.server_time else None
    warnings = list(probe.warnings)
    if skew is not None and abs(skew) > _SKEW_WORTH_TELLING:
        warnings.append(f"The source's clock is {skew.total_seconds():+.0f} s off ours; syncs go by the source's")
    issues = sum(probe.counts.values()) if probe.counts else None
    calls = connector.estimate_calls(issues) if issues is not None else None
    if calls and probe.quota and probe.quota.remaining is not None and calls > probe.quota.remaining:
        warnings.append(f"A first import takes about {calls} calls, {probe.quota.remaining} are left: it will pause")
    return ProbeResult(
        passed=True,
        account=probe.account,
        deployment=probe.deployment,
        time_zone=probe.time_zone,
        clock_skew_seconds=round(skew.total_seconds(), 1) if skew is not None else None,
        index_lag_seconds=settings.index_lag_seconds if settings.index_lag_seconds is not None else lag,
        granted=list(probe.granted),
        missing=list(probe.missing),
        expires_at=probe.expires_at,
        quota=quota_json(probe.quota) if probe.quota else None,
        scopes=scopes[:200],
        scopes_total=len(scopes),
        unread=_unread(gaps),
        issues=issues,
        estimated_calls=calls,
        estimated_seconds=math.ceil(calls * _SECONDS_PER_CALL / settings.concurrency) if calls is not None else None,
        warnings=warnings,
    )


def _unread(gaps: list[Gap]) -> list[UnreadScope]:
    return [UnreadScope(stream=gap.stream, scope=gap.scope, code=gap.trouble, detail=gap.detail) for gap in gaps]


async def discover(database: Database, made: Connectors, slug: str, kind: str) -> list[Choice]:
    """What there is to choose from: projects, users or boards. Raises SourceError as the source does."""
    if kind not in DISCOVERED:
        raise InvalidRequestError(f"{kind!r} cannot be listed", fields={"kind": f"one of {', '.join(DISCOVERED)}"})
    async with database.connection() as connection:
        stored = await existing(connection, slug)
    return await made.untracked(stored).discover(kind)
