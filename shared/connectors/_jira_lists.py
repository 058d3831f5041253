"""The lists of a whole site: sprints by their boards, users and projects. Each is read whole, every time."""

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from shared.connectors._http import Answer
from shared.connectors._jira_records import as_count, as_object, is_object
from shared.connectors._jira_site import JiraSite, rows_of, told
from shared.connectors._protocol import EVERYTHING, Gap, Page, Sent
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Stream

_BOARDS = 25
# Up to so many, the boards of each are asked for by themselves.
_FEW_PROJECTS = 10
_USERS = 1_000
_PROJECTS = 50
# Rows read twice at each seam, so that as many may vanish meanwhile without hiding another.
_OVERLAP = 5
_NO_SPRINTS = "support sprints"
_REFUSED = frozenset({Trouble.PERMISSION_DENIED, Trouble.NOT_FOUND, Trouble.BAD_REQUEST})


class Lists:
    """Pages of the streams that belong to a whole connection."""

    def __init__(self, site: JiraSite, projects: frozenset[str]) -> None:
        self._site = site
        self._projects = projects
        self._boards: dict[str, str] = {}

    async def page(self, stream: Stream, position: Mapping[str, Any] | None, most: int | None) -> Page:
        """One page of a stream."""
        start = int((position or {}).get("start", 0))
        match stream:
            case Stream.SPRINTS:
                return await self._sprints(position or {})
            case Stream.USERS:
                return await self._users(start, most or _USERS)
            case _:
                return await self._project_page(start)

    async def refused(self, stream: Stream) -> str:
        """Why a stream cannot be read, found out by asking for a little of it; "" if it can."""
        try:
            if stream is Stream.SPRINTS:
                board = await self._site.get("rest/agile/1.0/board", {"type": "scrum", "maxResults": 1})
                for row in rows_of(board, "id"):
                    await self._site.get(f"{_board(row['id'])}/sprint", {"maxResults": 1})
            else:
                await self.page(stream, None, 1)
        except SourceError as error:
            if error.trouble not in _REFUSED:
                raise
            return error.detail
        return ""

    async def _sprints(self, position: Mapping[str, Any]) -> Page:
        """The sprints of some boards.

        https://developer.atlassian.com/cloud/jira/software/rest/api-group-board/#api-rest-agile-1-0-board-get
        """
        queries = await self._board_queries()
        number, start = int(position.get("list", 0)), int(position.get("start", 0))
        query = queries[number] if number < len(queries) else {}
        gaps: list[Gap] = []
        try:
            answer = await self._site.get("rest/agile/1.0/board", {**query, "startAt": start, "maxResults": _BOARDS})
            boards = rows_of(answer, "id")
            onward = _onward(answer, start, len(boards))
        except SourceError as error:
            if error.trouble not in _REFUSED or not query:
                raise
            # Of one project of several; the others have boards too.
            gaps.append(Gap(Stream.SPRINTS, _name_of(query), error.trouble, error.detail, error.status))
            answer = await self._site.get(await self._site.api("myself"))
            boards, onward = [], None
        self._boards |= {str(board["id"]): str(board.get("name") or board["id"]) for board in boards}
        read = {str(each) for each in position.get("read", ())}
        wanted = [board for board in boards if str(board["id"]) not in read and self._wanted(board, query)]
        found = await asyncio.gather(*map(self._sprints_of, wanted))
        if onward is None and number + 1 < len(queries):
            onward = {"list": number + 1, "start": 0}
        if onward and query:
            read |= {str(board["id"]) for board in wanted}
            onward = {"list": number, **onward, "read": sorted(read)}
        return Page(
            read_at=answer.read_at,
            records=[sprint for sprints, _ in found for sprint in sprints],
            gaps=[*gaps, *(gap for _, gap in found if gap)],
            next=onward,
        )

    async def _board_queries(self) -> list[dict[str, str]]:
        """What lists the boards of the projects that are read: those about them, and on Cloud those that live in them.

        For many projects the list of all boards is shorter; which ones are about a project is not known from it.
        """
        names = sorted(self._projects)
        if not 0 < len(names) <= _FEW_PROJECTS:
            return [{}]
        cloud, _ = await self._site.about()
        about = [{"projectKeyOrId": name} for name in names]
        return [*about, *({"projectLocation": name} for name in names)] if cloud else about

    def _wanted(self, board: Mapping[str, Any], query: Mapping[str, str]) -> bool:
        place = as_object(board.get("location"))
        project = {str(place.get("projectKey", "")).upper(), str(place.get("projectId", ""))}
        # Older Data Center does not say where a board is.
        elsewhere = not query and self._projects and place.get("projectKey") and not project & self._projects
        return board.get("type") != "kanban" and not elsewhere

    async def _sprints_of(self, board: Mapping[str, Any]) -> tuple[list[Sent], Gap | None]:
        """The sprints a board shows; of boards without sprints Jira says so in a refusal.

        https://developer.atlassian.com/cloud/jira/software/rest/api-group-board/#api-rest-agile-1-0-board-boardid-sprint-get
        """
        try:
            rows = await self._site.whole_list(f"{_board(board['id'])}/sprint", "values")
        except SourceError as error:
            if error.status == 400 and _NO_SPRINTS in error.detail:
                return [], None
            if error.trouble not in _REFUSED:
                raise
            name = f"{EVERYTHING}:board {board['id']}"
            return [], Gap(Stream.SPRINTS, name, error.trouble, error.detail, error.status)
        return [await self._sent(row) for row in rows], None

    async def _sent(self, sprint: dict[str, Any]) -> Sent:
        """A sprint with the name of the board it was made on, whichever board shows it."""
        origin = str(sprint.get("originBoardId") or "")
        if not origin:
            return Sent(Stream.SPRINTS, sprint, EVERYTHING)
        if origin not in self._boards:
            try:
                board = told(await self._site.get(_board(origin)))
                self._boards[origin] = str(board.get("name") or origin)
            except SourceError as error:
                if error.trouble not in _REFUSED:
                    raise
                self._boards[origin] = origin
        return Sent(Stream.SPRINTS, sprint, EVERYTHING, {"board": self._boards[origin]})

    async def _users(self, start: int, most: int) -> Page:
        """Accounts, active or not.

        Cloud filters a page after cutting it, so that only an empty one is the last.
        https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-users/#api-rest-api-3-users-search-get
        Data Center finds no more than 1,000: https://jira.atlassian.com/browse/JRASERVER-65089
        """
        cloud, _ = await self._site.about()
        path = await self._site.api("users/search" if cloud else "user/search")
        params: dict[str, Any] = {"startAt": start, "maxResults": min(most, _USERS)}
        answer = await self._site.get(path, params if cloud else {"username": ".", "includeInactive": "true", **params})
        rows = rows_of(answer)
        gaps: list[Gap] = []
        if not cloud and len(rows) >= _USERS:
            detail = "Data Center lists the first 1,000 users only; the others are known by what they wrote"
            gaps.append(Gap(Stream.USERS, EVERYTHING, Trouble.BAD_REQUEST, detail, answer.status))
        onward = {"start": start + _step(len(rows))} if rows and cloud else None
        records = [Sent(Stream.USERS, row, EVERYTHING) for row in rows]
        return Page(read_at=answer.read_at, records=records, gaps=gaps, next=onward)

    async def _project_page(self, start: int) -> Page:
        """Projects whose issues the account may see.

        https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-projects/#api-rest-api-3-project-search-get
        https://docs.atlassian.com/software/jira/docs/api/REST/9.17.0/#api/2/project-getAllProjects
        """
        cloud, _ = await self._site.about()
        params: dict[str, Any] = {"expand": "description,lead"}
        if cloud:
            params |= {"action": "browse", "orderBy": "key", "startAt": start, "maxResults": _PROJECTS}
        answer = await self._site.get(await self._site.api("project/search" if cloud else "project"), params)
        rows = rows_of(answer, "id", "key")
        records = [
            Sent(Stream.PROJECTS, row, EVERYTHING)
            for row in rows
            if not self._projects or {str(row["key"]).upper(), str(row["id"])} & self._projects
        ]
        return Page(read_at=answer.read_at, records=records, next=_onward(answer, start, len(rows)))


def _name_of(query: Mapping[str, str]) -> str:
    return f"{EVERYTHING}:boards of {next(iter(query.values()))}"


def _board(board_id: object) -> str:
    return f"rest/agile/1.0/board/{quote(str(board_id), safe='')}"


def _step(rows: int) -> int:
    return rows - _OVERLAP if rows > 2 * _OVERLAP else rows


def _onward(answer: Answer, start: int, rows: int) -> dict[str, Any] | None:
    """Where the next page of a counted list begins; None after the last."""
    page: dict[str, Any] = answer.data if is_object(answer.data) else {"isLast": True}
    total = as_count(page.get("total"))
    if page.get("isLast") is True or not rows or (total is not None and start + rows >= total):
        return None
    return {"start": start + _step(rows)}
