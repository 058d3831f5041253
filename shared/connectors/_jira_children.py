"""What a page of issues becomes: the issues, and their comments, worklogs and changes, all of them.

Jira embeds the first few of each list only. What the embedded list lacks is read issue by issue.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.connectors._jira_records import as_count, as_list, as_object, is_object, scope_of, stripped
from shared.connectors._jira_site import JiraSite
from shared.connectors._protocol import Absence, Children, Gap, Gone, Sent
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Stream
from shared.domain.turns import in_turns

_REFUSED = frozenset({Trouble.PERMISSION_DENIED, Trouble.NOT_FOUND, Trouble.BAD_REQUEST})


@dataclass(frozen=True)
class Embedded:
    """Where the rows of a child stream are: embedded under `inside`, or in a list of their own."""

    inside: tuple[str, ...]
    rows: str
    path: str
    own_rows: str
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def read(self, issue: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool]:
        """The embedded rows, and whether they are all."""
        place: Any = issue
        for name in self.inside:
            place = place.get(name) if is_object(place) else None
        if not is_object(place):
            return [], False
        rows: list[dict[str, Any]] = as_list(place.get(self.rows))
        total = as_count(place.get("total"))
        known = all(is_object(row) and row.get("id") for row in rows)
        return rows, known and total is not None and len(rows) >= total


# https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issue-comments/
# https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issue-worklogs/
# https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issues/#api-rest-api-3-issue-issueidorkey-changelog-get
CHILDREN: Mapping[Stream, Embedded] = {
    Stream.COMMENTS: Embedded(("fields", "comment"), "comments", "comment", "comments", {"orderBy": "created"}),
    Stream.WORKLOGS: Embedded(("fields", "worklog"), "worklogs", "worklog", "worklogs"),
    Stream.HISTORY: Embedded(("changelog",), "histories", "changelog", "values"),
}


@dataclass
class Family:
    """The records of some issues, and what is known of their completeness."""

    records: list[Sent] = field(default_factory=list[Sent])
    complete: list[Children] = field(default_factory=list[Children])
    gone: list[Gone] = field(default_factory=list[Gone])
    gaps: list[Gap] = field(default_factory=list[Gap])

    def add(self, other: "Family") -> None:
        """Take in another one; one gap a stream and scope is enough."""
        self.records += other.records
        self.complete += other.complete
        self.gone += other.gone
        known = {(gap.stream, gap.scope) for gap in self.gaps}
        self.gaps += [gap for gap in other.gaps if (gap.stream, gap.scope) not in known]


def _take(
    family: Family,
    stream: Stream,
    issue: Mapping[str, Any],
    context: Mapping[str, Any],
    rows: Sequence[dict[str, Any]],
    *,
    whole: bool,
) -> None:
    issue_id, scope = str(issue["id"]), scope_of(issue)
    about = {"issue_id": issue_id, "issue_key": issue.get("key"), "site": context["site"]}
    family.records += [Sent(stream, row, scope, about) for row in rows]
    if whole:
        family.complete.append(Children(stream, issue_id, frozenset(str(row["id"]) for row in rows)))


class Families:
    """Reads the child streams that are wanted."""

    def __init__(self, site: JiraSite, wanted: frozenset[Stream]) -> None:
        self._site = site
        self.wanted = [stream for stream in CHILDREN if stream in wanted]

    def fields(self) -> list[str]:
        """The fields to ask for: all, but no list that nobody wants."""
        unwanted = [stream for stream in (Stream.COMMENTS, Stream.WORKLOGS) if stream not in self.wanted]
        return ["*all", *(f"-{CHILDREN[stream].path}" for stream in unwanted)]

    def expand(self) -> list[str]:
        """What to expand."""
        return ["changelog"] if Stream.HISTORY in self.wanted else []

    async def read(self, issues: Sequence[Mapping[str, Any]], *, preview: bool) -> Family:
        """The issues with their children; a preview shows what is embedded and claims nothing."""
        fields = await self._site.fields()
        _, address = await self._site.about()
        context = {"site": address, "fields": fields.context()}
        embedded = [self._embedded(issue, context, preview=preview) for issue in issues]
        # Of most issues everything is embedded; a task for each would cost more than to take it.
        in_part = (issue for issue, family in zip(issues, embedded, strict=True) if family is None)
        asked = iter(await asyncio.gather(*(self._one(issue, context) for issue in in_part)))
        all_of_them = Family()
        async for issue, found in in_turns(zip(issues, embedded, strict=True)):
            family = found or next(asked)
            if not family.gone:
                sent = stripped(issue, fields.names)
                all_of_them.records.append(Sent(Stream.ISSUES, sent, scope_of(issue), context))
            all_of_them.add(family)
        return all_of_them

    def _embedded(self, issue: Mapping[str, Any], context: Mapping[str, Any], *, preview: bool) -> Family | None:
        """The children of an issue if they are all embedded; of a preview those that are. None: Jira must be asked."""
        family = Family()
        for stream in self.wanted:
            rows, whole = CHILDREN[stream].read(issue)
            if not whole and not preview:
                return None
            _take(family, stream, issue, context, rows, whole=whole and not preview)
        return family

    async def _one(self, issue: Mapping[str, Any], context: Mapping[str, Any]) -> Family:
        family = Family()
        issue_id = str(issue["id"])
        scope = scope_of(issue)
        for stream in self.wanted:
            rows, whole = CHILDREN[stream].read(issue)
            if not whole and await self._is_off(stream, issue):
                detail = "Time tracking is switched off in this Jira, so it shows no worklogs"
                family.gaps.append(Gap(stream, scope, Trouble.NOT_FOUND, detail))
            elif not whole:
                try:
                    rows = await self._rest(stream, issue_id)
                    whole = True
                except SourceError as error:
                    if error.trouble not in _REFUSED:
                        raise
                    if error.status == 404 and not await self._site.exists(issue_id):
                        return Family(gone=[Gone(Stream.ISSUES, issue_id, Absence.DELETED_OR_HIDDEN)])
                    family.gaps.append(Gap(stream, scope, error.trouble, error.detail, error.status))
            _take(family, stream, issue, context, rows, whole=whole)
        return family

    async def _is_off(self, stream: Stream, issue: Mapping[str, Any]) -> bool:
        """Whether an issue has no such list because the whole site has none; asking for each would be in vain."""
        missing = stream is Stream.WORKLOGS and "worklog" not in as_object(issue.get("fields"))
        return missing and not await self._site.tracks_time()

    async def _rest(self, stream: Stream, issue_id: str) -> list[dict[str, Any]]:
        cloud, _ = await self._site.about()
        listed = CHILDREN[stream]
        if stream is Stream.HISTORY and not cloud:
            # Data Center has no list of changes; an issue asked for by itself carries all of them.
            # https://docs.atlassian.com/software/jira/docs/api/REST/9.17.0/#api/2/issue-getIssue
            return await self._site.whole_history(issue_id)
        return await self._site.whole_list(
            await self._site.api(f"issue/{issue_id}/{listed.path}"), listed.own_rows, listed.params
        )
