"""The API keeps what its OpenAPI document promises, whatever it is sent."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from azure.functions._http_asgi import AsgiResponse
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from shared.blobs import Blobs
from shared.settings import Settings
from shared.store.database import Database
from tests.support.api import RecordingStarter, api_app, create_app
from tests.support.settings import make_settings

BOOTSTRAP_KEY = "trib_of-the-installation-itself-for-tests"
CONFIG: dict[str, Any] = {
    "seed": 20250331,
    "auth": {"openapi": {"api_key": {"api_key": BOOTSTRAP_KEY}}},
    "generation": {"max-examples": 25, "deterministic": True, "database": "none"},
    # A file, a mapping or a cursor that fits its schema may still be nonsense, and is then refused.
    "checks": {
        "positive_data_acceptance": {"enabled": False},
        # A source that does not answer is a documented 502; the connections of this test lead nowhere.
        "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "502"]},
    },
}


@pytest.fixture
def api_settings(azurite: str) -> Settings:
    return make_settings(storage_connection=azurite, requests_per_minute=10_000_000, bootstrap_api_key=BOOTSTRAP_KEY)


def served_by(loop: asyncio.AbstractEventLoop, app: Any) -> Any:
    """The application for clients of other threads, which runs on the loop its database belongs to.

    It is given one whole request and gives one whole response, as Azure Functions calls it.
    """

    async def serve(
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        answer = asyncio.run_coroutine_threadsafe(AsgiResponse.from_app(app, dict(scope), body), loop)
        response = (await asyncio.wrap_future(answer)).to_func_response()
        headers = [(name.encode(), value.encode()) for name, value in response.headers.items()]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": response.get_body()})

    return serve


def failures_of(app: Any, operations: int) -> list[str]:
    """Run Schemathesis over every operation and tell what it found."""
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app, config=SchemathesisConfig.from_dict(CONFIG))
    found: dict[str, None] = {}
    tested: set[str | None] = set()
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            found[repr(event)] = None
        if isinstance(event, events.ScenarioFinished):
            tested.add(event.label)
            found |= dict.fromkeys(_failures(event))
    assert len(tested) >= operations, tested
    return list(found)


def _failures(scenario: events.ScenarioFinished) -> Iterator[str]:
    for checks in scenario.recorder.checks.values():
        for check in checks:
            if check.failure_info is not None:
                failure = check.failure_info.failure
                told = f"{check.name}: {failure.title}: {failure.message}"
                yield f"{scenario.label}: {told}\n{check.failure_info.code_sample}"


async def test_every_operation_keeps_its_promises(api_settings: Settings, database: Database, blobs: Blobs) -> None:
    app = api_app(api_settings, database, blobs, RecordingStarter())

    paths = create_app(api_settings).openapi()["paths"].values()

    failures = await asyncio.to_thread(
        failures_of, served_by(asyncio.get_running_loop(), app), operations=sum(map(len, paths))
    )

    assert not failures, "\n\n".join(failures)


def test_every_body_has_an_example_that_fits_its_schema(api_settings: Settings) -> None:
    document = create_app(api_settings).openapi()

    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, body in bodies_of(operation):
                where = f"{method} {path} {status}"
                schema = body.get("schema", {}) | {"components": document["components"]}
                problems = list(jsonschema_rs.Draft202012Validator(schema).iter_errors(body["example"]))
                assert not problems, f"{where}: {problems[0].message}"


def bodies_of(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from (("request", body) for body in operation.get("requestBody", {}).get("content", {}).values())
    for status, response in operation["responses"].items():
        yield from ((status, body) for body in response.get("content", {}).values())


def test_problems_of_records_and_of_requests_are_told_apart(api_settings: Settings) -> None:
    schemas = create_app(api_settings).openapi()["components"]["schemas"]

    assert {"code", "column", "value", "reason", "hint"} == set(schemas["Problem"]["properties"])
    assert {"type", "title", "status", "detail"} <= set(schemas["ProblemDetails"]["properties"])
