"""A connector to a simulated GitLab, and what it reads."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from local.trackers.gitlab import GitLabTracker
from local.trackers.world import World
from shared.connectors._gitlab_settings import GitLabCredentials, GitLabSettings
from shared.connectors._protocol import Page
from shared.connectors.gitlab import GitLabConnector
from shared.domain.stream import Stream

FIXTURES = Path(__file__).parents[1] / "fixtures" / "gitlab"


def connector_for(client: httpx.AsyncClient, url: str, **settings: Any) -> GitLabConnector:
    credentials = GitLabCredentials(token="glpat-valid", kind=settings.pop("kind", "access_token"))
    return GitLabConnector(client, url, GitLabSettings(**{"concurrency": 8, **settings}), credentials)


@asynccontextmanager
async def connected(world: World, **settings: Any) -> AsyncIterator[tuple[GitLabTracker, GitLabConnector]]:
    async with GitLabTracker(world) as tracker, httpx.AsyncClient() as client:
        yield tracker, connector_for(client, tracker.url, **settings)


def shown(pages: Sequence[Page], stream: Stream = Stream.ISSUES) -> set[int]:
    return {sent.raw["id"] for page in pages for sent in page.records if sent.stream is stream}


def two_projects() -> World:
    """A world in which a note is written a minute after the last one at the earliest."""
    made = World(note_throttle=timedelta(seconds=60))
    made.add_project("HARBOR")
    made.add_project("PETREL")
    return made
