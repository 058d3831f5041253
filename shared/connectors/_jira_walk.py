"""Walking the issues of a project by key, so that nothing that exists is missed whatever changes meanwhile.

Offsets and page tokens shift when issues vanish, so each page is a query of its own that begins at the last issue of
the page before. Jira refuses to compare with a key that is gone, and with one that moved; the walk then steps back to
the nearest issue that is still there.
https://github.com/atlassian-api/atlassian-python-api/pull/752
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from shared.connectors._jira_children import Families
from shared.connectors._jira_query import Mark, number_of, walk
from shared.connectors._jira_records import as_object, scope_of
from shared.connectors._jira_site import Found, JiraSite, Look
from shared.connectors._protocol import Absence, Gap, Gone, Page, Part
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Stream, to_utc

# Asked for more than ids Cloud gives about so many issues, and up to 5,000 of little else.
# https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issue-search/#api-rest-api-3-search-jql-post
PAGE = 100
_CENSUS = Look(fields=["updated"], most=5_000)
# How many key numbers a piece of a first walk spans, and how many keys are tried for each seam between two.
_PIECE = 2_000
_SEAM_KEYS = 10


@dataclass(frozen=True, kw_only=True)
class _Step:
    """The new issues of a page, and where the walk goes on."""

    issues: Sequence[dict[str, Any]]
    next: dict[str, Any] | None
    found: Found

    def gaps(self, scope: str) -> list[Gap]:
        """What Jira warned of: with a warning a search may lack issues."""
        return [Gap(Stream.ISSUES, scope, Trouble.BAD_REQUEST, warning, 200) for warning in self.found.warnings]


class IssueWalk:
    """Pages of issues of a connection."""

    def __init__(self, site: JiraSite, families: Families, filters: Sequence[str], projects: frozenset[str]) -> None:
        self._site = site
        self._families = families
        self._filters = filters
        self._projects = projects

    async def page(self, part: Part, position: Mapping[str, Any] | None, most: int | None) -> Page:
        """Issues with their children."""
        look = Look(fields=self._families.fields(), expand=self._families.expand(), most=min(most or PAGE, PAGE))
        step = await self._step(part, position, look)
        family = await self._families.read(step.issues, preview=most is not None)
        return Page(
            read_at=step.found.read_at,
            records=family.records,
            next=step.next,
            complete=family.complete,
            gone=family.gone,
            gaps=[*step.gaps(part.scope), *family.gaps],
        )

    async def census(self, part: Part, position: Mapping[str, Any] | None) -> Page:
        """Ids and times of change."""
        step = await self._step(part, position, _CENSUS)
        seen = [(str(issue["id"]), _updated(issue)) for issue in step.issues]
        return Page(read_at=step.found.read_at, seen=seen, next=step.next, gaps=step.gaps(part.scope))

    async def named(self, part: Part, *, preview: bool) -> Page:
        """Issues by id or key, from the database behind the search."""
        wanted = [str(name) for name in (*part.query.get("ids", ()), *part.query.get("keys", ()))]
        look = Look(fields=self._families.fields(), expand=self._families.expand())
        issues, absent, read_at = await self._site.read(list(dict.fromkeys(wanted)), look)
        elsewhere = [issue for issue in issues if not self._is_ours(issue)]
        family = await self._families.read([issue for issue in issues if self._is_ours(issue)], preview=preview)
        return Page(
            read_at=read_at,
            records=family.records,
            complete=family.complete,
            gone=[
                *family.gone,
                *(Gone(Stream.ISSUES, str(issue["id"]), Absence.MOVED) for issue in elsewhere),
                *(Gone(Stream.ISSUES, name, Absence.DELETED_OR_HIDDEN) for name in absent),
            ],
            gaps=family.gaps,
        )

    def _is_ours(self, issue: Mapping[str, Any]) -> bool:
        project = {scope_of(issue), str(issue["key"]).rpartition("-")[0].upper()}
        return not self._projects or bool(project & self._projects)

    async def split(self, part: Part) -> list[Part]:
        """Pieces of about 2,000 key numbers. A seam is an issue that exists, since Jira compares with no others."""
        newest = await self._site.search(
            walk(part.scope, self._filters, order="DESC"), Look(fields=["project"], most=1)
        )
        if not newest.issues:
            return [part]
        top = Mark.at(newest.issues[0])
        cuts = range(_PIECE, top.number - _PIECE // 2, _PIECE)
        keys = [key for cut in cuts for key in replace(top, key=f"{top.project_key}-{cut + 1}").below(_SEAM_KEYS)]
        there = await self._site.marks(part.scope, keys)
        seams = [max(near, key=lambda mark: mark.number) for cut in cuts if (near := _near(there, cut))]
        return [_piece(part, start, end) for start, end in zip([None, *seams], [*seams, None], strict=True)]

    async def _step(self, part: Part, position: Mapping[str, Any] | None, look: Look) -> _Step:
        after = Mark.of(position or part.query.get("after"))
        found, fresh = await self._from(part, after, look)
        until = part.query.get("until")
        inside = [issue for issue in fresh if until is None or number_of(issue["key"]) <= until]
        ended = found.ended or len(inside) < len(fresh)
        return _Step(issues=inside, next=None if ended else Mark.at(fresh[-1]).position(), found=found)

    async def _from(self, part: Part, after: Mark | None, look: Look) -> tuple[Found, list[dict[str, Any]]]:
        """The page behind a mark. A page that does not begin at the mark is believed only if the mark still holds.

        An index that lags lists issues that are gone. Where a whole page of those lies behind a foothold, it is read
        on by its token until it passes the mark, else the walk would come back to the same mark for ever.
        """
        mark = after
        while True:
            try:
                found = await self._search(part, after, look)
            except SourceError as error:
                if after is None or error.status != 400:
                    raise
                foothold = await self._site.foothold(after, part.scope)
                if foothold == after:
                    raise
            else:
                issues, fresh = found.issues, _but(found.issues, after)
                if after is None or len(fresh) < len(issues):
                    break
                foothold = await self._site.foothold(after, part.scope)
                if foothold == after:
                    break
            after = foothold
        if not _beyond(fresh, mark) and not found.ended:
            found, fresh = await self._read_ahead(part, after, mark, look, found)
        return found, fresh

    async def _search(self, part: Part, after: Mark | None, look: Look, found: Found | None = None) -> Found:
        jql = walk(part.scope, self._filters, since=part.since, mark=after)
        # The mark comes along, and is not counted.
        size = replace(look, most=look.most + 1) if after and look.most < PAGE else look
        return await self._site.search(jql, size, found.more if found else None)

    async def _read_ahead(
        self, part: Part, after: Mark | None, mark: Mark | None, look: Look, found: Found
    ) -> tuple[Found, list[dict[str, Any]]]:
        """Issues of the same query behind a mark, for a page that brought nothing new and is not the last."""
        followed: list[Mapping[str, Any]] = []
        while found.more is not None and found.more not in followed:
            followed.append(found.more)
            found = await self._search(part, after, look, found)
            fresh = _but(found.issues, after)
            if _beyond(fresh, mark) or found.ended:
                return found, fresh
        raise SourceError(Trouble.SERVER_ERROR, "Jira says that there is more, and gives the same page again and again")


def _updated(issue: Mapping[str, Any]) -> datetime | None:
    with suppress(ValueError, TypeError):
        return to_utc(as_object(issue.get("fields")).get("updated"))
    return None


def _but(issues: Sequence[dict[str, Any]], after: Mark | None) -> list[dict[str, Any]]:
    return [issue for issue in issues if after is None or str(issue["id"]) != after.id]


def _beyond(issues: Sequence[dict[str, Any]], mark: Mark | None) -> bool:
    return any(mark is None or number_of(str(issue["key"])) > mark.number for issue in issues)


def _near(marks: Sequence[Mark], cut: int) -> list[Mark]:
    return [mark for mark in marks if cut - _SEAM_KEYS < mark.number <= cut]


def _piece(part: Part, start: Mark | None, end: Mark | None) -> Part:
    query: dict[str, Any] = {}
    if start:
        query["after"] = start.position()
    if end:
        query["until"] = end.number
    return replace(part, query=query)
