"""Keys, tokens, limits, health and the documentation."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest

from shared.blobs import Blobs
from shared.settings import Settings
from shared.store.database import Database
from tests.support.api import RecordingStarter, api_app, client_of
from tests.support.issuer import Issuer


async def test_a_key_works_until_it_is_revoked(admin: httpx.AsyncClient, anonymous: httpx.AsyncClient) -> None:
    made = (await admin.post("/api/keys", json={"name": "nightly", "role": "operator"})).json()
    as_key = {"X-API-Key": made["secret"]}
    as_bearer = {"Authorization": f"Bearer {made['secret']}"}

    before = [
        (await anonymous.get("/api/import/tools", headers=headers)).status_code for headers in (as_key, as_bearer)
    ]
    revoked = await admin.delete(f"/api/keys/{made['id']}")
    after = await anonymous.get("/api/import/tools", headers=as_key)

    assert (before, after.status_code) == ([200, 200], 401)
    assert revoked.json()["revoked_at"]
    listed = (await admin.get("/api/keys")).json()["items"]
    assert made["id"] in {key["id"] for key in listed}
    assert made["secret"] not in str(listed)


async def test_the_secret_is_in_no_audit_entry(admin: httpx.AsyncClient) -> None:
    made = (await admin.post("/api/keys", json={"name": "nightly", "role": "reader"})).json()

    audit = await admin.get("/api/audit", params={"subject": f"api_key:{made['id']}"})

    assert audit.json()["items"][0]["action"] == "api_key.created"
    assert made["secret"] not in audit.text


@pytest.mark.parametrize(
    ("role", "status"), [("Tributary.Read", 200), ("Tributary.Admin", 200), ("Something.Else", 403)]
)
async def test_access_tokens_open_what_their_role_allows(
    api_settings: Settings, database: Database, blobs: Blobs, role: str, status: int
) -> None:
    with Issuer() as issuer:
        settings = api_settings.model_copy(update=issuer.settings())
        async with client_of(api_app(settings, database, blobs, RecordingStarter())) as client:
            answer = await client.get("/api/import/tools", headers={"Authorization": f"Bearer {issuer.token(role)}"})

    assert answer.status_code == status


@pytest.fixture
async def limited(
    api_settings: Settings, database: Database, blobs: Blobs, reader: httpx.AsyncClient
) -> AsyncIterator[httpx.AsyncClient]:
    settings = api_settings.model_copy(update={"requests_per_minute": 3})
    app = api_app(settings, database, blobs, RecordingStarter())
    async with client_of(app, reader.headers["X-API-Key"]) as client:
        yield client


async def test_a_caller_over_the_limit_is_told_when_to_come_back(limited: httpx.AsyncClient) -> None:
    # The minute may end in between; then the count begins anew, once.
    answers = [await limited.get("/api/import/tools") for _ in range(7)]

    refused = next(answer for answer in answers if answer.status_code == 429)
    assert answers[0].headers["RateLimit-Limit"] == "3"
    assert refused.json()["code"] == "too_many_requests"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60


@pytest.mark.parametrize(("one", "other"), [("203.0.113.7", "203.0.113.8"), ("[2001:db8::7]", "[2001:db8::8]")])
async def test_guessing_keys_is_limited_by_address(limited: httpx.AsyncClient, one: str, other: str) -> None:
    async def guess(address: str, port: int) -> int:
        headers = {"X-API-Key": "trib_guess", "X-Forwarded-For": f"10.9.9.9, {address}:{port}"}
        return (await limited.get("/api/import/tools", headers=headers)).status_code

    statuses = [await guess(one, 51000 + number) for number in range(7)]

    assert statuses[0] == 401
    assert 429 in statuses
    assert await guess(other, 51000) == 401


async def test_liveness_needs_nothing_and_says_nothing(anonymous: httpx.AsyncClient) -> None:
    answer = await anonymous.get("/api/health/live")

    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


async def test_readiness_asks_database_and_storage(reader: httpx.AsyncClient) -> None:
    assert (await reader.get("/api/health/ready")).json() == {
        "status": "ready",
        "database": "ready",
        "storage": "ready",
    }


async def test_a_lost_storage_is_named(api_settings: Settings, database: Database, reader: httpx.AsyncClient) -> None:
    gone = api_settings.storage_connection.get_secret_value().replace("127.0.0.1:", "127.0.0.1:1")
    settings = Settings.model_validate(
        api_settings.model_dump(by_alias=True) | {"AzureWebJobsStorage": re.sub(r":1(\d+)", ":1", gone)}
    )
    app = api_app(settings, database, Blobs(settings), RecordingStarter())
    async with client_of(app, reader.headers["X-API-Key"]) as client:
        answer = await client.get("/api/health/ready")

    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")


async def test_the_documentation_needs_no_internet(anonymous: httpx.AsyncClient) -> None:
    page = await anonymous.get("/api/docs")

    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert addresses
    assert all(address.startswith("/api/docs/") for address in addresses)
    for address in addresses:
        assert (await anonymous.get(address)).status_code == 200
    assert (await anonymous.get("/api/openapi.json")).json()["info"]["title"] == "Tributary"


async def test_outside_of_a_developers_machine_the_documentation_is_for_readers(
    api_settings: Settings, database: Database, blobs: Blobs, reader: httpx.AsyncClient
) -> None:
    app = api_app(api_settings.model_copy(update={"environment": "azure"}), database, blobs, RecordingStarter())
    async with client_of(app) as client:
        without = [(await client.get(path)).status_code for path in ("/api/docs", "/api/openapi.json")]
    async with client_of(app, reader.headers["X-API-Key"]) as client:
        allowed = [(await client.get(path)).status_code for path in ("/api/docs", "/api/openapi.json")]

    assert (without, allowed) == ([401, 401], [200, 200])
