"""How a walk over Sentry's issue list goes on safely.

The list is walked by `sort=new`: first seen, newest first, which no edit changes. A cursor is `value:offset:is_prev`:
the value is the sort key in milliseconds, the offset counts within the issues that share it. It is a keyset as long as
few do: https://docs.sentry.io/api/pagination/ and `SequencePaginator` in getsentry/sentry, src/sentry/api/paginator.py.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from shared.domain.errors import SourceError, Trouble

OVERLAP = 20
"""How many issues of an unfinished run of equal keys are read again, to see that none above them was removed."""
_MOST_RESTARTS = 3
_CURSOR = re.compile(r"(-?\d+):(\d+):0")


@dataclass(frozen=True)
class Place:
    """Where a walk stands. `anchors`: the last issues read, one of which has to show up again on the next page."""

    cursor: str | None = None
    anchors: tuple[str, ...] = ()
    restarts: int = 0

    @classmethod
    def of(cls, position: Mapping[str, Any] | None) -> "Place":
        """The place a stored position names."""
        stored = position or {}
        return cls(stored.get("cursor"), tuple(stored.get("anchors", ())), stored.get("restarts", 0))

    def position(self) -> dict[str, Any]:
        """The place as JSON."""
        return {"cursor": self.cursor, "anchors": list(self.anchors), "restarts": self.restarts}


@dataclass(frozen=True)
class Step:
    """What follows a page. `torn`: issues of one second moved while they were read, so that some may be missing."""

    place: Place | None
    torn: bool = False


def step(place: Place, ids: Sequence[str], following: str | None) -> Step:
    """Where to go on after the page read at `place`, which showed `ids` and names the cursor `following`.

    Inside a run of equal keys an issue that is deleted or merged moves all after it up by one. So the next page begins
    a little above the end of this one; when none of the last issues is there, the run is read from its start again, and
    with more overlap.
    """
    torn = False
    if place.anchors and place.cursor and set(place.anchors).isdisjoint(ids):
        if place.restarts < _MOST_RESTARTS:
            run = place.cursor.split(":")[0]
            return Step(Place(f"{run}:0:0", restarts=place.restarts + 1))
        torn = True
    if following is None:
        return Step(None, torn)
    target = _CURSOR.fullmatch(following)
    if following == place.cursor or (target and not _leads_on(place.cursor, target)):
        raise circling()
    if target is None:
        return Step(Place(following), torn)
    value, offset = target[1], int(target[2])
    restarts = place.restarts if place.cursor and place.cursor.startswith(f"{value}:") else 0
    overlap = min(OVERLAP << restarts, len(ids) // 2)
    back = offset - overlap
    if back <= 0:
        return Step(Place(f"{value}:0:0", restarts=restarts), torn)
    # Issues deleted just now are counted but not shown: a page may have nothing to hold on to.
    return Step(Place(f"{value}:{back}:0", tuple(ids[-overlap:]) if overlap else (), restarts), torn or not overlap)


def _leads_on(cursor: str | None, target: re.Match[str]) -> bool:
    came = _CURSOR.fullmatch(cursor or "")
    if came is None:
        return True
    return (-int(target[1]), int(target[2])) > (-int(came[1]), int(came[2]))


def circling() -> SourceError:
    """A list that leads back to where it was."""
    return SourceError(Trouble.SERVER_ERROR, "The source's next page is one that was read already")


def next_cursor(links: Mapping[str | None, Mapping[str, str]]) -> str | None:
    """The cursor of the next page. Both relations are always there; only `results="true"` means that more follows."""
    link = links.get("next", {})
    if link.get("results") != "true":
        return None
    return link.get("cursor") or httpx.URL(link.get("url", "")).params.get("cursor")
