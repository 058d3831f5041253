"""A connector to a simulated Sentry, and what it reads."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from local.trackers.sentry import SentryTracker
from local.trackers.world import World
from shared.connectors._protocol import Page, Sent
from shared.connectors.sentry import SentryConnector, SentryCredentials, SentrySettings
from shared.domain.stream import Issue, Stream

FIXTURES = Path(__file__).parents[1] / "fixtures" / "sentry"
NEVER = timedelta.max


def load(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_text())


def connector_for(client: httpx.AsyncClient, url: str, **settings: Any) -> SentryConnector:
    values = {"organization": "tidewater", "concurrency": 8, **settings}
    return SentryConnector(client, url, SentrySettings(**values), SentryCredentials(token="valid-token"))


@asynccontextmanager
async def connected(world: World, **settings: Any) -> AsyncIterator[tuple[SentryTracker, SentryConnector]]:
    async with SentryTracker(world) as tracker, httpx.AsyncClient() as client:
        yield tracker, connector_for(client, tracker.url, **settings)


def shown(pages: Sequence[Page], stream: Stream = Stream.ISSUES) -> set[str]:
    return {sent.raw["id"] for page in pages for sent in page.records if sent.stream is stream}


def normalized(raw: dict[str, Any], **context: Any) -> Issue:
    connector = SentryConnector(
        httpx.AsyncClient(), "https://sentry.io", SentrySettings(organization="tidewater"), SentryCredentials(token="t")
    )
    record = connector.normalize(Sent(Stream.ISSUES, raw, "4507", context))
    assert isinstance(record, Issue)
    return record


def two_projects() -> World:
    """A world in which every note is written at once."""
    made = World(note_throttle=NEVER)
    made.add_project("HARBOR")
    made.add_project("PETREL")
    return made
