"""Webhooks over HTTP: who gets in, how fast, and what people see of it."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from local.trackers.service import Tracker
from shared.blobs import Blobs
from shared.connectors._protocol import HookCall
from shared.domain.job import JobState
from shared.settings import Settings
from shared.store.database import Database
from tests.support.api import AsgiApp, RecordingStarter, api_app, client_of
from tests.support.connections import run
from tests.support.settings import make_settings
from tests.support.webhooks import SECRET, call_of

UPDATED = {"webhookEvent": "jira:issue_updated", "issue": {"id": "10001", "key": "HARBOR-1"}}


@pytest.fixture
async def hooked(connected: dict[str, Any], admin: httpx.AsyncClient) -> dict[str, Any]:
    """A tested connection whose webhooks have a secret."""
    answer = await admin.patch("/api/integrations/petrel", json={"credentials": {"webhook_secret": SECRET}})
    assert answer.status_code == 200, answer.text
    return connected


async def send(client: httpx.AsyncClient, call: HookCall, path: str = "/api/webhooks/petrel") -> httpx.Response:
    return await client.post(path, content=call.body, headers=dict(call.headers), params=dict(call.query))


async def test_a_signed_delivery_needs_no_key_and_starts_its_job_at_once(
    hooked: dict[str, Any],
    anonymous: httpx.AsyncClient,
    operator: httpx.AsyncClient,
    reader: httpx.AsyncClient,
    tracker: Tracker,
    database: Database,
    starter: RecordingStarter,
) -> None:
    issue = tracker.world.all_current()[0]
    tracker.world.edit(issue.id, title="Told by a webhook")
    payload = {"webhookEvent": "jira:issue_updated", "issue": {"id": str(issue.id), "key": issue.key}}

    answer = await send(anonymous, call_of("jira", payload, delivery="d-1"))

    assert answer.status_code == 202, answer.text
    assert answer.json() == {"delivery_id": "d-1", "status": "stored"}
    assert answer.elapsed.total_seconds() < 1, "Sentry gives up after a second"
    ((job_id, _),) = starter.started
    assert await run(database, tracker, str(job_id)) is JobState.COMPLETED
    found = (await reader.get("/api/issues", params={"text": "Told by a webhook"})).json()["items"]
    assert [each["external_id"] for each in found] == [str(issue.id)]
    again = await send(anonymous, call_of("jira", payload, delivery="d-1"))
    assert (again.status_code, again.json()["status"]) == (200, "repeated")
    assert (await operator.post("/api/webhooks/petrel/deliveries/d-1/replay")).status_code == 409


async def test_an_unknown_connection_a_missing_secret_and_a_wrong_signature_are_answered_alike(
    connected: dict[str, Any], anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    forged = call_of("jira", UPDATED, secret="not the secret")
    answers = [
        await send(anonymous, forged),
        await send(anonymous, forged, "/api/webhooks/nobody"),
        await send(anonymous, forged, "/api/webhooks/A%00B"),
        await send(anonymous, HookCall(headers={}, query={}, body=b"")),
    ]
    await admin.patch("/api/integrations/petrel", json={"credentials": {"webhook_secret": SECRET}})
    answers.append(await send(anonymous, forged))
    answers.append(await send(admin, forged))  # no key replaces a signature

    told = [{**each.json(), "instance": "", "trace_id": ""} for each in answers]
    assert {each.status_code for each in answers} == {401}
    assert told == [told[0]] * len(told)
    assert "webhook_secret" in told[0]["hint"]
    assert (await admin.get("/api/webhooks/petrel/deliveries")).json()["items"] == []


async def test_status_tells_what_to_paste_and_what_came(
    connected: dict[str, Any], anonymous: httpx.AsyncClient, admin: httpx.AsyncClient, reader: httpx.AsyncClient
) -> None:
    (before,) = (await reader.get("/api/webhooks/status")).json()["items"]
    assert before["address"] == "http://api.example/api/webhooks/petrel"
    assert (before["has_secret"], before["last_delivery_at"]) == (False, None)
    assert "webhook_secret" in before["advice"]
    await admin.patch("/api/integrations/petrel", json={"credentials": {"webhook_secret": SECRET}})
    await send(anonymous, call_of("jira", UPDATED))
    await send(anonymous, call_of("jira", {"webhookEvent": "board_created"}))
    await send(anonymous, call_of("jira", UPDATED, secret="not the secret"))

    (after,) = (await reader.get("/api/webhooks/status")).json()["items"]

    assert (after["has_secret"], after["advice"]) == (True, None)
    assert after["last_24_hours"] == {"ignored": 1, "processing": 1}
    assert after["refused"] == 1
    assert "x-hub-signature" in after["refused_why"]
    assert SECRET not in orjson.dumps(after).decode()


async def test_deliveries_are_listed_newest_first_page_by_page(
    hooked: dict[str, Any], anonymous: httpx.AsyncClient, reader: httpx.AsyncClient
) -> None:
    for number in range(5):
        await send(anonymous, call_of("jira", UPDATED, delivery=f"d-{number}"))

    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await reader.get("/api/webhooks/petrel/deliveries", params=params)).json()
        seen += [each["delivery_id"] for each in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert seen == ["d-4", "d-3", "d-2", "d-1", "d-0"]
    pending = await reader.get("/api/webhooks/petrel/deliveries", params={"status": "pending"})
    assert len(pending.json()["items"]) == 4, "the first one has a job, the others wait for its end"
    assert (await reader.get("/api/webhooks/nobody/deliveries")).status_code == 404


async def test_a_start_that_fails_is_no_reason_to_refuse_what_is_stored(
    hooked: dict[str, Any], api_settings: Settings, database: Database, blobs: Blobs
) -> None:
    class Broken(RecordingStarter):
        async def __call__(self, turn: object) -> None:
            raise ConnectionError("no engine")

    async with client_of(api_app(api_settings, database, blobs, Broken())) as client:
        answer = await send(client, call_of("jira", UPDATED))

    assert answer.status_code == 202


# Limits


@pytest.fixture
async def narrow(hooked: dict[str, Any], azurite: str, database: Database, blobs: Blobs) -> AsgiApp:
    settings = make_settings(
        storage_connection=azurite, max_webhook_bytes=1_000, webhooks_per_minute=6, requests_per_minute=3
    )
    return api_app(settings, database, blobs, RecordingStarter())


async def test_a_body_over_the_limit_is_refused_before_it_is_read(narrow: AsgiApp) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 500
            yield b"x" * 500

    async with client_of(narrow) as client:
        announced = await client.post("/api/webhooks/petrel", content=b"x" * 1_001)
        unannounced = await client.post("/api/webhooks/petrel", content=endless())

    assert (announced.status_code, unannounced.status_code) == (413, 413)
    assert announced.json()["code"] == "too_large"
    assert "uploads" not in announced.text


async def test_calls_are_limited_by_address_and_guesses_more_so(narrow: AsgiApp) -> None:
    forged = call_of("jira", UPDATED, secret="not the secret")

    async with client_of(narrow) as client:
        guesses = [(await send(client, forged)).status_code for _ in range(4)]
        client.headers["X-Forwarded-For"] = "203.0.113.9"
        honest = [(await send(client, call_of("jira", UPDATED))).status_code for _ in range(7)]

    assert guesses in ([401, 401, 401, 429], [401] * 4), guesses
    assert honest[:6] == [202] * 6
    assert honest[6] in {202, 429}


async def test_a_secret_that_can_be_guessed_or_does_not_travel_is_refused(
    connected: dict[str, Any], admin: httpx.AsyncClient
) -> None:
    for secret in ("guess me", "a long one with an é in it"):
        answer = await admin.patch("/api/integrations/petrel", json={"credentials": {"webhook_secret": secret}})

        assert answer.status_code == 422
        assert secret not in answer.text
        assert list(answer.json()["fields"]) == ["credentials.webhook_secret"]


async def test_a_job_of_webhooks_can_be_looked_up(
    hooked: dict[str, Any], anonymous: httpx.AsyncClient, reader: httpx.AsyncClient, starter: RecordingStarter
) -> None:
    await send(anonymous, call_of("jira", UPDATED))
    ((job_id, _),) = starter.started

    shown = (await reader.get(f"/api/import/status/{job_id}")).json()
    (delivery,) = (await reader.get("/api/webhooks/petrel/deliveries")).json()["items"]

    assert (shown["requested_by"], shown["priority"]) == ("webhook", "normal")
    assert delivery["issues"] == [{"id": "10001", "key": "HARBOR-1", "scope": None, "stream": "issues"}]
    assert UUID(delivery["job_id"]) == job_id
