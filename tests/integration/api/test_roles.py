"""Every endpoint and role. A route that is not in the table fails the test."""

import httpx
import pytest
from fastapi import FastAPI

from shared.connectors import connectors
from shared.settings import Settings
from tests.support.api import create_app

JOB = "0b3e8c1e-58a5-4f0e-9d0b-0a4f6c1f2d11"

# (method, path) → the least role that may call it.
ROLES = {
    ("GET", "/api/health/live"): "anonymous",
    ("GET", "/api/docs"): "anonymous",  # on a developer's machine; elsewhere a reader's
    ("GET", "/api/docs/{name}"): "anonymous",
    ("GET", "/api/openapi.json"): "anonymous",
    ("GET", "/api/health/ready"): "reader",
    ("GET", "/api/import/tools"): "reader",
    ("GET", "/api/import/schema"): "reader",
    ("GET", "/api/import/status/{job_id}"): "reader",
    ("GET", "/api/import/history"): "reader",
    ("GET", "/api/import/{job_id}/rejections"): "reader",
    ("GET", "/api/pipeline/stats"): "reader",
    ("GET", "/api/pipeline/jobs"): "reader",
    ("GET", "/api/pipeline/jobs/{job_id}"): "reader",
    ("GET", "/api/pipeline/dlq"): "reader",
    ("GET", "/api/integrations"): "reader",
    ("GET", "/api/integrations/sources"): "reader",
    ("GET", "/api/integrations/health"): "reader",
    ("GET", "/api/integrations/metrics"): "reader",
    ("GET", "/api/integrations/{slug}"): "reader",
    ("GET", "/api/integrations/{slug}/sync-logs"): "reader",
    ("GET", "/api/integrations/{slug}/state"): "reader",
    ("GET", "/api/integrations/{slug}/rate-limit"): "reader",
    ("GET", "/api/integrations/{slug}/tracked-users"): "reader",
    ("POST", "/api/webhooks/{slug}"): "signed",  # by a secret of the connection; no role gets in without
    ("GET", "/api/webhooks/status"): "reader",
    ("GET", "/api/webhooks/{slug}/deliveries"): "reader",
    ("POST", "/api/webhooks/{slug}/deliveries/{delivery_id}/replay"): "operator",
    ("GET", "/api/issues"): "reader",
    ("GET", "/api/issues/{import_source}/{external_id:path}"): "reader",
    ("GET", "/api/repositories/{import_source}/analysis"): "reader",
    ("GET", "/api/repositories/{import_source}/{rows}"): "reader",
    ("POST", "/api/import"): "operator",
    **{("POST", f"/api/import/{source}/preview"): "operator" for source in connectors()},
    **{("POST", f"/api/import/{source}/execute"): "operator" for source in connectors()},
    ("POST", "/api/integrations/{slug}/test"): "operator",
    ("GET", "/api/integrations/{slug}/discover"): "operator",
    ("POST", "/api/integrations/{slug}/sync"): "operator",
    ("POST", "/api/integrations"): "admin",
    ("PATCH", "/api/integrations/{slug}"): "admin",
    ("DELETE", "/api/integrations/{slug}"): "admin",
    ("POST", "/api/integrations/credentials/rotate"): "admin",
    ("PUT", "/api/integrations/{slug}/schedule"): "admin",
    ("POST", "/api/integrations/{slug}/pause"): "admin",
    ("POST", "/api/integrations/{slug}/resume"): "admin",
    ("PUT", "/api/integrations/{slug}/tracked-users"): "admin",
    ("POST", "/api/import/uploads"): "operator",
    ("POST", "/api/import/{source}/preview"): "operator",
    ("POST", "/api/import/{source}/execute"): "operator",
    ("POST", "/api/import/{job_id}/retry"): "operator",
    ("POST", "/api/import/{job_id}/cancel"): "operator",
    ("POST", "/api/import/{job_id}/rejections/replay"): "operator",
    ("POST", "/api/import/{job_id}/rejections/dismiss"): "operator",
    ("POST", "/api/pipeline/dlq/retry"): "admin",
    ("POST", "/api/pipeline/pause"): "admin",
    ("POST", "/api/pipeline/resume"): "admin",
    ("GET", "/api/keys"): "admin",
    ("POST", "/api/keys"): "admin",
    ("DELETE", "/api/keys/{key_id}"): "admin",
    ("GET", "/api/audit"): "admin",
}
RANKS = ["anonymous", "reader", "operator", "admin", "signed"]
DOCS = {path for _, path in ROLES if path.startswith(("/api/docs", "/api/openapi"))}


def routes_of(app: FastAPI) -> set[tuple[str, str]]:
    """Every (method, path) the application serves, documented or not."""
    found: set[tuple[str, str]] = set()
    pending = list(app.routes)
    while pending:
        route = pending.pop()
        included = getattr(route, "original_router", None)
        if included is not None:
            pending += included.routes
        else:
            found |= {(method, route.path) for method in route.methods - {"HEAD"}}
    return found


def test_every_route_is_in_the_table(api_settings: Settings) -> None:
    assert routes_of(create_app(api_settings)) == set(ROLES)


@pytest.mark.parametrize(("method", "path"), ROLES, ids=lambda value: value)
async def test_only_callers_with_the_role_get_in(
    method: str,
    path: str,
    anonymous: httpx.AsyncClient,
    reader: httpx.AsyncClient,
    operator: httpx.AsyncClient,
    admin: httpx.AsyncClient,
) -> None:
    url = path.replace(":path", "").format(
        job_id=JOB,
        source="csv",
        key_id=JOB,
        name="swagger-ui.css",
        slug="nobody",
        delivery_id="1",
        import_source="nobody",
        external_id="1",
        rows="commits",
    )
    needed = RANKS.index(ROLES[method, path])

    statuses = [(await client.request(method, url)).status_code for client in (anonymous, reader, operator, admin)]

    for rank, status in enumerate(statuses):
        if rank >= needed:
            assert status not in {401, 403}, f"{RANKS[rank]} was refused"
        else:
            assert status == (401 if rank == 0 or needed == RANKS.index("signed") else 403), f"{RANKS[rank]} was let in"


async def test_credentials_are_asked_for_before_the_body_is_read(anonymous: httpx.AsyncClient) -> None:
    answer = await anonymous.post("/api/keys", content=b"{", headers={"Content-Type": "application/json"})

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
