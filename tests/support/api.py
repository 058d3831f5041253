"""The HTTP API in this process: the real application on a real database and store; only the orchestrations are not."""

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx

# The triggers read the environment when they are imported; the tests bring their own settings.
os.environ.setdefault("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")  # noqa: TID251

from functions.activities import import_job as import_activities
from functions.api import paging
from functions.api.app import create_app
from functions.api.context import Context
from functions.api.errors import answer, status_of
from functions.orchestrators import sync_job as orchestrators
from functions.runtime import Runtime
from shared.blobs import Blobs
from shared.domain.caller import Caller, Role
from shared.domain.job import Turn
from shared.security.entra import EntraVerifier
from shared.services.manage_api_keys import create_api_key
from shared.settings import Settings
from shared.store.database import Database
from tests.support.sync import TEST_KEY, connectors_for_tests

# Tests import the application from here, so that its environment is set before.
__all__ = [
    "AsgiApp",
    "RecordingStarter",
    "answer",
    "api_app",
    "client_of",
    "create_app",
    "finish_import",
    "list_batches",
    "make_key",
    "paging",
    "status_of",
    "sync_job",
]

# The steps and the generator behind what the platform calls.
list_batches: Callable[..., Any] = import_activities.list_batches._function.get_user_function()  # type: ignore[attr-defined]
finish_import: Callable[..., Any] = inspect.unwrap(import_activities.finish_job._function.get_user_function())  # type: ignore[attr-defined]
sync_job: Callable[..., Any] = orchestrators.sync_job._function.get_user_function().orchestrator_function  # type: ignore[attr-defined]

Message = MutableMapping[str, Any]
AsgiApp = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

ROOT = Caller(id="key:setup", name="setup", role=Role.ADMIN)


@dataclass
class RecordingStarter:
    """Notes which orchestrations would be started."""

    started: list[tuple[UUID, int]] = field(default_factory=list[tuple[UUID, int]])

    async def __call__(self, turn: Turn) -> None:
        self.started.append((turn.job_id, turn.attempt))


def runtime_of(settings: Settings, database: Database, blobs: Blobs, keys: str = TEST_KEY) -> Runtime:
    """What a worker of these would share; `keys` are the master keys."""
    verifier = EntraVerifier(settings) if settings.entra_tenant_id else None
    return Runtime(settings, database, blobs, verifier, connectors_for_tests(database, keys), asyncio.Semaphore(1))


def api_app(
    settings: Settings, database: Database, blobs: Blobs, starter: RecordingStarter, keys: str = TEST_KEY
) -> AsgiApp:
    """The application, given its context as the triggers give it."""
    app = create_app(settings)
    context = Context(runtime_of(settings, database, blobs, keys), starter)

    async def with_context(scope: Message, receive: Any, send: Any) -> None:
        await app({**scope, "state": {"context": context}}, receive, send)

    return with_context


def client_of(app: AsgiApp, key: str | None = None) -> httpx.AsyncClient:
    """A client of the application; `key` is sent as X-API-Key."""
    headers = {"X-API-Key": key} if key else {}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api.example", headers=headers)


async def make_key(database: Database, role: Role) -> str:
    """The secret of a new key."""
    now = datetime.now(UTC)
    _, secret = await create_api_key(database, ROOT, name=f"{role} of a test", role=role, expires_at=None, now=now)
    return secret
