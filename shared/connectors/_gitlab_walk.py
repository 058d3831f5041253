"""Walks over GitLab's lists that miss nothing while the lists change.

Since 18.3 project issues have keyset pages: the order is that of creation, a page begins behind a row, and nothing can
slide. Other lists, and older servers, have offsets only: there every page asks again from the last time seen.
https://docs.gitlab.com/api/rest/#pagination
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from shared.connectors._http import Answer
from shared.domain.errors import SourceError, Trouble

PAGE_SIZE = 100
_TRIES = 3

Get = Callable[[str, Mapping[str, Any] | None], Awaitable[Answer]]
Position = Mapping[str, Any]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Step:
    """One page of a walk, and where it goes on; None at its end."""

    rows: Rows
    answer: Answer
    next: dict[str, Any] | None


@dataclass(frozen=True)
class Whole:
    """All rows of a list. `certain`: no row that went while pages turned can have hidden another."""

    rows: Rows
    certain: bool
    read_at: datetime


def rows_of(answer: Answer) -> Rows:
    """The rows of a list."""
    data: Any = answer.data
    if not isinstance(data, list):
        raise SourceError(Trouble.SCHEMA_CHANGED, "GitLab sent no list where its API describes one")
    return cast("Rows", data)


def to_moment(moment: datetime | None) -> str | None:
    """A time as filters take it; `Z` instead of an offset, whose `+` would have to be escaped."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if moment else None


def onward(answer: Answer, path: str) -> str | None:
    """Where a list goes on: what the next link asks for, at the address that is known to work.

    Behind a proxy GitLab's links may name another scheme or host than the one it is reached by.
    """
    link = answer.link("next")
    return f"{path}?{urlsplit(link).query}" if link else None


async def issues_page(
    get: Get, path: str, filters: Mapping[str, Any], position: Position | None, most: int | None
) -> Step:
    """A page of issues. `filters` may hold updated_after and created_after, created_before."""
    at: Position = position or {}
    if "url" in at and at.get("keyset"):
        return _keyset_step(await get(at["url"], None), path)
    if at:
        return await changed_page(get, path, filters, at, most)
    keyset = {"pagination": "keyset", "order_by": "created_at", "sort": "asc", "per_page": most or PAGE_SIZE}
    try:
        step = _keyset_step(await get(path, {**filters, **keyset}), path)
    except SourceError as error:
        # How servers refuse keyset pages of what has none; most versions take no notice instead.
        if error.status != 405:
            raise
        return await changed_page(get, path, filters, None, most)
    if step.next is None or step.next.get("keyset"):
        return step
    # An older server took no notice of `pagination` and counts pages: start again, by time of change.
    return Step(step.rows, step.answer, {"after": filters.get("updated_after")})


def _keyset_step(answer: Answer, path: str) -> Step:
    url = onward(answer, path)
    if url is None:
        return Step(rows_of(answer), answer, None)
    by_key = "cursor" in (query := parse_qs(urlsplit(url).query)) or "id_after" in query
    return Step(rows_of(answer), answer, {"url": url, "keyset": 1} if by_key else {"url": url})


async def changed_page(
    get: Get, path: str, filters: Mapping[str, Any], position: Position | None, most: int | None
) -> Step:
    """A page of all rows changed at or after a time, oldest change first, asked anew from the last time seen.

    Where one instant fills a page, the rest of the list is read in order of creation, in which edited rows stay where
    they are; there too a page begins at a time, not at a number, so that deletions hide nothing.
    """
    at: Position = position or {"after": filters.get("updated_after")}
    if "born" in at:
        return await _born_page(get, path, filters, at, most)
    answer = await get(path, _query(filters, at, "updated_at", most))
    rows = rows_of(answer)
    if answer.link("next") is None:
        return Step(rows, answer, None)
    last = max((str(row["updated_at"]) for row in rows), default=None)
    if last is not None and (at["after"] is None or _time(last) > _time(at["after"])):
        return Step(rows, answer, {"after": last})
    return Step(rows, answer, {"after": at["after"], "born": filters.get("created_after")})


async def _born_page(get: Get, path: str, filters: Mapping[str, Any], at: Position, most: int | None) -> Step:
    """A page in order of creation; numbered pages are followed only through an instant that fills one."""
    born = {**filters, "created_after": at["born"]} if at["born"] else filters
    asked = (at["url"], None) if "url" in at else (path, _query(born, at, "created_at", most))
    answer = await get(*asked)
    rows = rows_of(answer)
    url = onward(answer, path)
    if url is None:
        return Step(rows, answer, None)
    last = max((str(row["created_at"]) for row in rows), default=None)
    if last is not None and (at["born"] is None or _time(last) > _time(at["born"])):
        return Step(rows, answer, {"after": at["after"], "born": last})
    return Step(rows, answer, {"after": at["after"], "born": at["born"], "url": url})


def _query(filters: Mapping[str, Any], at: Position, order: str, most: int | None) -> dict[str, Any]:
    rest = {name: value for name, value in filters.items() if name != "updated_after"}
    after = {"updated_after": at["after"]} if at["after"] else {}
    return {**rest, **after, "order_by": order, "sort": "asc", "per_page": most or PAGE_SIZE}


async def every_row(get: Get, path: str, params: Mapping[str, Any]) -> Whole:
    """All rows of a short list. One that changed under the pages is read again; `x-total` of every page tells."""
    for left in reversed(range(_TRIES)):
        first = answer = await get(path, {**params, "per_page": PAGE_SIZE})
        rows = {row["id"]: row for row in rows_of(answer)}
        totals = {answer.headers.get("x-total", "")}
        while (url := onward(answer, path)) is not None:
            answer = await get(url, None)
            rows |= {row["id"]: row for row in rows_of(answer)}
            totals.add(answer.headers.get("x-total", ""))
        certain = answer is first or totals == {str(len(rows))}
        if certain or not left or "" in totals:
            return Whole(list(rows.values()), certain, first.read_at)
    raise AssertionError("the last try returns")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
