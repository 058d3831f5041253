"""Walk a connector through a part, as lanes do."""

import json
from typing import Any

from local.trackers.world import World
from shared.connectors._protocol import Connector, Page, Part, PartKind
from shared.domain.stream import Stream


async def walk(connector: Connector, part: Part, *, most_pages: int = 400) -> list[Page]:
    """Every page, each from a position that went through JSON."""
    pages: list[Page] = []
    position = None
    for _ in range(most_pages):
        pages.append(await connector.fetch(part, position))
        if pages[-1].next is None:
            return pages
        position = json.loads(json.dumps(pages[-1].next))
    raise AssertionError("The walk does not end")


def issues_of(world: World, key: str = "HARBOR", **values: Any) -> Part:
    """The part that reads the issues of a project."""
    return Part(**{"kind": PartKind.WINDOW, "stream": Stream.ISSUES, "scope": str(world.projects[key].id), **values})
