"""Whatever a source answers: a classified error or a page, and never anything else."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from local.trackers.jira import JiraTracker
from local.trackers.known import connection_to
from local.trackers.service import Tracker
from local.trackers.servicenow import ServiceNowTracker
from local.trackers.world import World, seeded
from shared.connectors import connectors
from shared.connectors._protocol import EVERYTHING, Connector, Part, PartKind, Walk
from shared.domain.errors import SourceError

CASES = 50
ODD: list[Any] = [None, "", 0, -1, "x", [], {}, True, [None], {"a": 1}, 3.5, "2026-13-01"]
BODIES = [
    "",
    "<html><body>no</body></html>",
    "no",
    '"no"',
    "null",
    "[]",
    '{"errorMessages": "no", "errors": []}',
    '{"errorMessages": 3, "errors": {"a": [1]}}',
    '{"message": {"a": ["b"]}, "error": [1]}',
    '{"error": {"message": 1, "detail": {}}}',
    '{"errorMessages": [',
]
HEADERS = ["retry-after", "x-ratelimit-reset", "x-ratelimit-limit", "x-ratelimit-remaining", "ratelimit", "date"]
NUMBERS = ["", "0", "-5", "1e400", "nan", "99999999999999999", "soon", '"q";r=x;t=-1', "Mon, 99 Foo", "2026-13-40T99Z"]
STATUSES = [400, 401, 402, 403, 404, 409, 410, 418, 429, 500, 502, 503]
Path = tuple[str | int, ...]


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where something stands in JSON; of long lists the beginning."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for name, each in inside:
        yield from places(each, (*path, name))


def bent(value: Any, pick: random.Random) -> Any:
    """The JSON with one value of another kind, or without it."""
    path = pick.choice(list(places(value)))
    odd = pick.choice(ODD)
    if not path:
        return odd
    holder = value
    for name in path[:-1]:
        holder = holder[name]
    if isinstance(holder, dict) and pick.random() < 0.3:
        del holder[path[-1]]
    else:
        holder[path[-1]] = odd
    return value


def odd_refusal(pick: random.Random) -> httpx.Response:
    kind = pick.choice(["application/json", "text/html", "text/plain"])
    odd = {name: pick.choice(NUMBERS) for name in pick.sample(HEADERS, 3)}
    return httpx.Response(pick.choice(STATUSES), headers={"content-type": kind, **odd}, text=pick.choice(BODIES))


class Bending(httpx.AsyncBaseTransport):
    """Passes calls on; one of the first answers is bent, or is a refusal instead."""

    def __init__(self, pick: random.Random) -> None:
        self._inner = httpx.AsyncHTTPTransport()
        self._pick = pick
        self._calls_before = pick.randrange(6)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        content = await response.aread()
        self._calls_before -= 1
        if self._calls_before < 0 and response.is_success:
            self._calls_before = 1_000
            if self._pick.random() < 0.4:
                return odd_refusal(self._pick)
            content = json.dumps(bent(json.loads(content), self._pick)).encode()
        for name in ("content-length", "content-encoding", "transfer-encoding"):
            response.headers.pop(name, None)
        return httpx.Response(response.status_code, headers=response.headers, content=content)

    async def aclose(self) -> None:
        await self._inner.aclose()


async def use(connector: Connector, world: World, pick: random.Random) -> None:
    """Something the engine does with a connector."""
    match pick.choice(["check", "scopes", "discover", "walk", "walk", "walk"]):
        case "check":
            await connector.check()
        case "scopes":
            await connector.scopes()
        case "discover":
            await connector.discover(pick.choice(["projects", "users", "boards"]))
        case _:
            await walk(connector, a_part(connector, world, pick))


def a_part(connector: Connector, world: World, pick: random.Random) -> Part:
    stream, traits = pick.choice([each for each in connector.streams.items() if each[1].walk is not Walk.CHILD])
    scope = "incident" if connector.source == "servicenow" else str(world.projects["HARBOR"].id)
    kind = PartKind.SNAPSHOT if traits.walk is Walk.SNAPSHOT else PartKind.WINDOW
    if traits.census:
        kind = pick.choice([PartKind.WINDOW, PartKind.CENSUS, PartKind.KEYS])
    return Part(
        kind=kind,
        stream=stream,
        scope=scope if traits.per_scope else EVERYTHING,
        since=pick.choice([None, world.now.replace(year=2020)]) if kind is PartKind.WINDOW else None,
        query={"ids": ["10007"], "keys": ["HARBOR-1", "HARBOR-99"]} if kind is PartKind.KEYS else {},
    )


async def walk(connector: Connector, part: Part) -> None:
    position = None
    for _ in range(20):
        page = await connector.fetch(part, position)
        assert all(isinstance(external_id, str) for external_id, _ in page.seen)
        position = json.loads(json.dumps(page.next))
        if position is None:
            return


@pytest.mark.parametrize(
    "start",
    [JiraTracker, lambda world: JiraTracker(world, cloud=False), ServiceNowTracker],
    ids=["jira", "jira-data-center", "servicenow"],
)
async def test_an_odd_answer_is_a_page_or_a_classified_error(
    start: Callable[[World], Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.connectors._http.wait_random_exponential", lambda **_: lambda _: 0)
    world = seeded(30)
    refused = 0
    async with start(world) as tracker:
        known = connection_to(tracker)
        found = connectors()[tracker.source]
        for case in range(CASES):
            pick = random.Random(case)
            async with httpx.AsyncClient(transport=Bending(pick)) as client:
                settings = found.Settings.model_validate(known.settings)
                credentials = found.Credentials.model_validate(known.credentials)
                try:
                    await use(found(client, tracker.url, settings, credentials), world, pick)
                except SourceError:
                    refused += 1

    assert 0 < refused < CASES
