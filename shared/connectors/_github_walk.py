"""Walks over GitHub's lists that miss nothing while the lists change.

A list answers by page number, an offset into its order of that moment, or by an opaque cursor (`after=` in the Link
header), which stands at a row. Which of the two is the server's choice: issues on github.com have cursors and refuse
deep page numbers with 422, comments and Enterprise Server have numbers.
https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from shared.connectors._http import Answer
from shared.domain.errors import SourceError, Trouble

PAGE_SIZE = 100
# Windows that overlap are at least this large; smaller ones would only cost more requests.
_LEAST_PAGE_SIZE = 50

Get = Callable[[str, Mapping[str, Any] | None], Awaitable[Answer]]
Position = Mapping[str, Any]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Step:
    """One page of a walk, and where it goes on; None at its end."""

    rows: Rows
    answer: Answer
    next: dict[str, Any] | None


def rows_of(answer: Answer) -> Rows:
    """The rows of a list."""
    data: Any = answer.data
    if not isinstance(data, list):
        raise SourceError(Trouble.SCHEMA_CHANGED, "GitHub sent no list where its API describes one")
    return cast("Rows", data)


def to_since(moment: datetime | None) -> str | None:
    """A time as `since` takes it: whole seconds, rounded down, for it includes its second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


async def changed_page(get: Get, path: str, since: str | None, position: Position | None, most: int | None) -> Step:
    """A page of all rows updated at or after `since`, oldest change first.

    Each page asks again from the last time seen, so that no page depends on where rows stood before; only where one
    second fills a page does the walk go deeper: by cursor, or else through the whole rest in order of creation.
    """
    at: Position = position if position is not None else {"since": since}
    if "fixed" in at:
        return await _created_page(get, path, at, most)
    if "url" in at:
        try:
            answer = await get(at["url"], None)
        except SourceError as error:
            if error.status != 422 or at["since"] is None:
                raise
            return await _created_page(get, path, {"since": at["since"], "begun": None, "fixed": {}}, most)
    else:
        answer = await get(path, _query(at["since"], "updated", most))
    rows = rows_of(answer)
    link = answer.link("next")
    if link is None:
        return Step(rows, answer, None)
    last = max((row["updated_at"] for row in rows), default=None)
    if last is not None and (at["since"] is None or last > at["since"]):
        return Step(rows, answer, {"since": last})
    if last is None or _is_cursor(link):
        return Step(rows, answer, {"since": at["since"], "url": link})
    begun = to_since(answer.server_time)
    return Step(rows, answer, {"since": at["since"], "begun": begun, "fixed": {}})


async def _created_page(get: Get, path: str, at: Position, most: int | None) -> Step:
    """A page in order of creation, which no edit changes.

    What is edited meanwhile may join behind the walk's back, so it ends by asking for changes since it began.
    """
    step = await fixed_page(get, path, _query(at["since"], "created", None), at["fixed"], most=most)
    if step.next is not None:
        return Step(step.rows, step.answer, {**at, "fixed": step.next})
    return Step(step.rows, step.answer, {"since": max(at["begun"] or "", _next_second(at["since"]))})


async def fixed_page(
    get: Get,
    path: str,
    params: Mapping[str, Any],
    position: Position | None,
    *,
    name: str = "id",
    most: int | None = None,
) -> Step:
    """A page of a list whose order never changes, though rows come and go; `name` is the field that tells rows apart.

    A row that is deleted moves the later ones forward, past the start of the next numbered page. Therefore a page
    overlaps the one before by a row or more, and where it does not begin with a row that page had, it is read from
    further back. Page numbers are made here only as long as the server's own links have them.
    """
    at: Position = position or {}
    if "url" in at:
        answer = await get(at["url"], None)
        link = answer.link("next")
        return Step(rows_of(answer), answer, {"url": link} if link else None)
    known: Sequence[Any] = at.get("ids", ())
    number, size = _window(at.get("covered", 0), most)
    page = {"page": number} if number > 1 else {}
    answer = await get(path, {**params, "per_page": size, **page})
    rows = rows_of(answer)
    link = answer.link("next")
    start = (number - 1) * size
    if start and not (rows and rows[0][name] in known):
        return Step(rows, answer, {"covered": max(start + 1 - PAGE_SIZE, 0), "ids": list(known)})
    if link is None:
        return Step(rows, answer, None)
    if _is_cursor(link) or not rows:
        return Step(rows, answer, {"url": link})
    return Step(rows, answer, {"covered": number * size, "ids": [row[name] for row in rows]})


async def every_row(get: Get, path: str, params: Mapping[str, Any], *, name: str = "id") -> tuple[Rows, Answer]:
    """All rows of a short list with a fixed order, and the first answer."""
    step = first = await fixed_page(get, path, params, None, name=name)
    rows = {row[name]: row for row in step.rows}
    while step.next is not None:
        step = await fixed_page(get, path, params, step.next, name=name)
        rows |= {row[name]: row for row in step.rows}
    return list(rows.values()), first.answer


async def newest_page(get: Get, path: str, since: str | None, position: Position | None, most: int | None) -> Step:
    """A page of a list that knows no `since`, last change first, down to `since`.

    An edit moves a row to the top, and the others towards the part that is still to come: none of those is missed. The
    row itself may be; so the top is read again until one page shows all that changed.
    """
    at: Position = position or {"since": since}
    if "url" in at:
        answer = await get(at["url"], None)
    else:
        answer = await get(path, {**_query(None, "updated", most), "direction": "desc"})
    rows = rows_of(answer)
    link = answer.link("next")
    top: str = at.get("top") or (rows[0]["updated_at"] if rows else "")
    down_to: str | None = at["since"]
    reached = link is None or not rows or (down_to is not None and rows[-1]["updated_at"] < down_to)
    if not reached and not (at.get("again") and top == down_to):
        return Step(rows, answer, {**at, "top": top, "url": link})
    if "url" in at:
        return Step(rows, answer, {"since": top, "again": 1})
    return Step(rows, answer, None)


def _query(since: str | None, sort: str, most: int | None) -> dict[str, Any]:
    query: dict[str, Any] = {"state": "all", "sort": sort, "direction": "asc"}
    query["per_page"] = min(most or PAGE_SIZE, PAGE_SIZE)
    return {**query, "since": since} if since else query


def _window(covered: int, most: int | None) -> tuple[int, int]:
    """Page number and size of the page that reaches furthest and still shows the last of `covered` rows."""
    if covered <= 1:
        return 1, min(most or PAGE_SIZE, PAGE_SIZE)
    sizes = range(_LEAST_PAGE_SIZE, PAGE_SIZE + 1)
    return max((((covered - 1) // size + 1, size) for size in sizes), key=lambda page: page[0] * page[1])


def _is_cursor(link: str) -> bool:
    return "after" in parse_qs(urlsplit(link).query)


def _next_second(moment: str | None) -> str:
    """A walk that went through a whole second goes on behind it, else it would go through it for ever."""
    return to_since(datetime.fromisoformat(moment) + timedelta(seconds=1)) or "" if moment else ""
