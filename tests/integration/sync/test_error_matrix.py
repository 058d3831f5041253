"""Every class of trouble, by the answer of each tracker that causes it, as a sync meets, tells and survives it."""

from datetime import UTC, datetime

import httpx
import pytest

from local.trackers.service import Fault
from shared.connectors import connectors
from shared.domain.errors import SourceError, Trouble
from shared.domain.job import JobState
from shared.domain.sync import SyncMode
from shared.services.plan_sync import plan_sync
from tests.integration.sync.conftest import Connect
from tests.integration.sync.mirror import expected_issues, stored_issues
from tests.support.settings import make_settings
from tests.support.sources import SOURCES, new_world
from tests.support.sync import SyncRunner

FOR_GOOD = 999
GAPS = {Trouble.PERMISSION_DENIED, Trouble.NOT_FOUND}
PAUSES = {Trouble.AUTH_EXPIRED, Trouble.AUTH_INVALID, Trouble.SUSPENDED_PAYMENT}
PATHS = {"jira": "/search/jql", "github": "/issues", "gitlab": "/issues", "servicenow": "/table/incident"}
PATHS["sentry"] = "/issues/"
HTML = {"Content-Type": "text/html"}
MISSING_PROJECT = '{"errorMessages": ["The value \'HARBOR\' does not exist for the field \'project\'."], "errors": {}}'
REMOVED = '{"errorMessages": ["The requested API has been removed. Please migrate."], "errors": {}}'
CUT_OFF = '{"result": [{"sys_id": "1"}], "error": {"message": "Transaction cancelled: maximum execution time exceeded"'
NOW_REFUSES = '{{"error": {{"message": "{}", "detail": {}}}, "status": "failure"}}'
SSO = '{"detail": {"code": "sso-required", "message": "Must login via SSO", "extra": {"loginUrl": "/auth/"}}}'


def answer(status: int, body: str = "{}", **headers: str) -> Fault:
    return Fault(kind="status", status=status, body=body, headers=headers, times=FOR_GOOD)


# What any of them may send, or what the network makes of it.
COMMON = [
    (Trouble.SUSPENDED_PAYMENT, answer(402)),
    (Trouble.SERVER_ERROR, answer(500, "{}")),
    (Trouble.MAINTENANCE, answer(503, "<html>Back soon</html>", **HTML)),
    (Trouble.PAYLOAD_INVALID, Fault(kind="truncated", times=FOR_GOOD)),
    (Trouble.NETWORK_GLITCH, Fault(kind="reset", times=FOR_GOOD)),
    (Trouble.TIMEOUT, Fault(kind="slow", seconds=0.6, times=FOR_GOOD)),
]
MATRIX: dict[str, list[tuple[Trouble, Fault]]] = {
    "jira": [
        (Trouble.AUTH_INVALID, Fault(kind="expired")),
        (Trouble.AUTH_EXPIRED, answer(401, '{"message": "The access token expired"}')),
        (Trouble.PERMISSION_DENIED, answer(401, '{"code": 401, "message": "Unauthorized; scope does not match"}')),
        (Trouble.SUSPENDED_PAYMENT, answer(403, '{"errorMessage": "suspended-payment"}')),
        (Trouble.NOT_FOUND, answer(400, MISSING_PROJECT)),
        (Trouble.BAD_REQUEST, answer(400, '{"errorMessages": ["Error in the JQL Query: expecting a field"]}')),
        (Trouble.SCHEMA_CHANGED, answer(410, REMOVED)),
    ],
    "github": [
        (Trouble.AUTH_INVALID, answer(401, '{"message": "Bad credentials", "status": "401"}')),
        (Trouble.AUTH_EXPIRED, answer(401, '{"message": "The token has expired"}')),
        (Trouble.PERMISSION_DENIED, answer(403, '{"message": "Resource not accessible by personal access token"}')),
        (Trouble.PERMISSION_DENIED, answer(451, '{"message": "Repository access blocked"}')),
        (Trouble.NOT_FOUND, answer(404, '{"message": "Not Found", "status": "404"}')),
        (Trouble.BAD_REQUEST, answer(422, '{"message": "Validation Failed", "errors": [{"field": "since"}]}')),
        (Trouble.SCHEMA_CHANGED, answer(200, '{"message": "There used to be a list here"}')),
        (Trouble.SERVER_ERROR, answer(502, '{"message": "Server Error"}')),
    ],
    "gitlab": [
        (Trouble.AUTH_INVALID, answer(401, '{"message": "401 Unauthorized"}')),
        (Trouble.AUTH_EXPIRED, Fault(kind="expired")),
        (Trouble.PERMISSION_DENIED, answer(403, '{"error": "insufficient_scope", "scope": "api read_api"}')),
        (Trouble.NOT_FOUND, answer(404, '{"message": "404 Project Not Found"}')),
        (Trouble.BAD_REQUEST, answer(400, '{"error": "order_by does not have a valid value"}')),
        (Trouble.SCHEMA_CHANGED, answer(410, '{"message": "410 Gone"}')),
    ],
    "servicenow": [
        (Trouble.AUTH_INVALID, Fault(kind="expired")),
        (Trouble.PERMISSION_DENIED, answer(403, NOW_REFUSES.format("User Not Authorized", '"Failed API level ACL"'))),
        (Trouble.NOT_FOUND, answer(400, NOW_REFUSES.format("Invalid table incident", "null"))),
        (Trouble.BAD_REQUEST, answer(400, NOW_REFUSES.format("Pagination not supported", "null"))),
        (Trouble.SCHEMA_CHANGED, answer(410)),
        (Trouble.PAYLOAD_INVALID, answer(200, CUT_OFF)),
        (Trouble.MAINTENANCE, Fault(kind="maintenance", times=FOR_GOOD)),
    ],
    "sentry": [
        (Trouble.AUTH_INVALID, answer(401, '{"detail": "Invalid token"}')),
        (Trouble.AUTH_EXPIRED, Fault(kind="expired")),
        (Trouble.AUTH_EXPIRED, answer(401, SSO)),
        (Trouble.PERMISSION_DENIED, answer(403, '{"detail": "You do not have permission to perform this action."}')),
        (Trouble.NOT_FOUND, answer(404, '{"detail": "The requested resource does not exist"}')),
        (Trouble.BAD_REQUEST, answer(400, '{"detail": "Invalid cursor parameter."}')),
        (Trouble.SCHEMA_CHANGED, answer(410, '{"message": "This API no longer exists."}')),
    ],
}
CASES = [
    pytest.param(name, trouble, fault, id=f"{name}-{trouble}-{fault.kind}-{fault.status}")
    for name, own in MATRIX.items()
    for trouble, fault in [*own, *COMMON]
]


# A password does not expire, and a token that did is exchanged for another before anybody hears of it.
NEVER = {"servicenow": {Trouble.AUTH_EXPIRED}}


@pytest.mark.parametrize("name", connectors())
def test_no_class_of_trouble_is_left_out(name: str) -> None:
    caused = {trouble for trouble, _ in [*MATRIX[name], *COMMON]} | {Trouble.RATE_LIMIT}  # that one has its own test

    assert caused | NEVER.get(name, set()) == set(Trouble)


async def told_of(runner: SyncRunner, trouble: Trouble) -> dict[str, object]:
    """What a person finds of a trouble: the job's error, coverage, the log, the schedule."""
    rows = await runner.fetch(
        """
        select (select error ->> 'code' from jobs where id = %s) as job,
               exists (select from coverage_gaps where trouble = %s) as gap,
               exists (select from sync_logs where data::text like %s) as logged,
               (select paused from schedules) as paused
        """,
        runner.last_job,
        trouble,
        f'%"{trouble}"%',
    )
    return rows[0]


@pytest.mark.parametrize(("name", "trouble", "fault"), CASES)
async def test_an_answer_becomes_its_class_of_trouble(
    name: str, trouble: Trouble, fault: Fault, connected: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world(SOURCES[name])
    for _ in range(3):
        world.create("HARBOR")
    world.advance(3_600)
    monkeypatch.setattr("shared.connectors._http.TIMEOUT", httpx.Timeout(0.3))
    async with connected(name, world, streams=["issues"]) as runner:
        runner.settings = make_settings(sync_part_tries=1)
        runner.tracker.faults.append(Fault(**{**vars(fault), "path": PATHS[name]}))

        ended = await runner.sync(SyncMode.FULL)

        told = await told_of(runner, trouble)
        # ServiceNow's other table can still be read.
        goes_on = name == "servicenow" and trouble in GAPS
        assert ended is (JobState.COMPLETED if goes_on else JobState.FAILED)
        assert told == {
            "job": None if goes_on else trouble,
            "gap": told["gap"] or trouble in GAPS,
            "logged": not goes_on,
            "paused": trouble in PAUSES,
        }
        runner.tracker.faults.clear()
        runner.tracker.expired = False
        assert await runner.sync(SyncMode.FULL) is JobState.COMPLETED
        assert await stored_issues(runner) == expected_issues(SOURCES[name], world)
        assert await runner.fetch("select * from coverage_gaps") == []


@pytest.mark.parametrize("name", MATRIX)
async def test_a_limit_keeps_everybody_off_until_the_source_allows_it(name: str, connected: Connect) -> None:
    world = new_world(SOURCES[name])
    world.create("HARBOR")
    world.advance(3_600)
    async with connected(name, world, streams=["issues"]) as runner:
        runner.tracker.faults.append(Fault(kind="limited", seconds=30, path=PATHS[name]))
        job_id = await runner.accept(SyncMode.FULL)
        try:
            await plan_sync(runner.database, runner.connectors, job_id, 1)
            assert (await runner.lane(job_id, 1, 0)).outcome == "wait"
        except SourceError as error:
            assert error.trouble is Trouble.RATE_LIMIT  # noqa: PT017 - some are asked for issues while planning

        blocked = await runner.fetch("select blocked_until from connections")
        wait = blocked[0]["blocked_until"] - datetime.now(UTC)
        assert 0 < wait.total_seconds() <= 61
