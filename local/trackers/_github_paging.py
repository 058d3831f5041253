"""The two ways of paging at GitHub: numbers are offsets into a list as it is now; cursors stay at a row."""

import base64
import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

import orjson
from aiohttp import web

from local.trackers._github_json import DEEP_PAGE, REFUSALS, problem
from local.trackers.service import json_response

_MOST = 100


class Row(NamedTuple):
    """A place in a sorted list: seconds, then number."""

    at: int
    id: int
    of: Any


def changed_since(rows: Sequence[Row], since: int | None) -> Sequence[Row]:
    """The rows of a list by time of change that are not older; the second itself belongs to them."""
    return rows if since is None else rows[bisect_left(rows, since, key=lambda row: row.at) :]


def paged[R](
    request: web.Request,
    rows: Sequence[R],
    show: Callable[[R], dict[str, Any]],
    path: str,
    *,
    cursors_from: int | None = None,
    page_cap: int | None = None,
    wrap: str | None = None,
) -> web.Response:
    """One page with its Link header. `path` is where the links lead: to the repository's number, whatever was asked."""
    query = dict(request.query)
    size = min(int(query.get("per_page", 30)), _MOST)
    page = int(query.get("page", 1))
    after = query.get("after")
    if page_cap is not None and after is None and page >= page_cap:
        return json_response(problem(DEEP_PAGE, 422), status=422)
    start = (page - 1) * size if after is None else _place(rows, after, query)
    chosen = rows[start : start + size]
    links: dict[str, dict[str, Any]] = {}
    if start + size < len(rows):
        links["next"] = {**query, "page": page + 1}
        if cursors_from is not None and page >= cursors_from:
            links["next"]["after"] = _cursor(chosen[-1])
        else:
            links["last"] = {**query, "page": -(-len(rows) // size)}
    if page > 1 and after is None:
        links |= {"prev": {**query, "page": page - 1}, "first": {**query, "page": 1}}
    shown: Any = [show(row) for row in chosen]
    headers = (
        {"Link": ", ".join(f'<{path}?{urlencode(to)}>; rel="{rel}"' for rel, to in links.items())} if links else {}
    )
    return json_response({"total_count": len(rows), wrap: shown} if wrap else shown, headers=headers)


def _cursor(row: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([row.at, row.id])).decode()


def _place(rows: Sequence[Any], after: str, query: dict[str, str]) -> int:
    at, number = orjson.loads(base64.urlsafe_b64decode(after))
    if query.get("direction", "desc") == "asc":
        return bisect_right(rows, (at, number), key=lambda row: (row.at, row.id))
    return bisect_right(rows, (-at, -number), key=lambda row: (-row.at, -row.id))


def refused(kind: str) -> web.Response:
    """A refusal by its name."""
    status, message, headers = REFUSALS[kind]
    return json_response(problem(message, status), status=status, headers=headers)


def conditional(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """304 where the caller has what it would get."""
    if not isinstance(response, web.Response) or response.status != 200:
        return response
    etag = f'W/"{hashlib.sha1(bytes(response.body or b"")).hexdigest()}"'  # type: ignore[arg-type]
    if request.headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return response
