"""One page of each kind of part: what to ask GitLab for, and what the answer amounts to."""

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared.connectors._gitlab_api import REFUSED, GitLabAPI, gap_of
from shared.connectors._gitlab_records import entry_id, key_of, seconds_spent, total_id
from shared.connectors._gitlab_time import time_entries
from shared.connectors._gitlab_walk import Rows, changed_page, every_row, issues_page, rows_of, to_moment
from shared.connectors._http import together
from shared.connectors._protocol import EVERYTHING, Absence, Children, Gap, Gone, KeyForm, Page, Part, PartKind, Sent
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Stream

_IIDS_PER_CALL = 50
KEY_FORM = KeyForm(re.compile(r"([^#]+)#(\d+)"), "group/project#12")
# What can be read by its key: the list, and what the key looks like.
_BY_KEY = {
    Stream.ISSUES: ("issues", KEY_FORM),
    Stream.PULL_REQUESTS: ("merge_requests", KeyForm(re.compile(r"([^!]+)!(\d+)"), "group/project!12")),
}

Position = Mapping[str, Any]


@dataclass(frozen=True)
class Choices:
    """What of the settings decides over what is read with issues."""

    streams: Collection[Stream] = ()

    def wants(self, stream: Stream) -> bool:
        """Whether a stream is read; all are where none is named."""
        return not self.streams or stream in self.streams

    @property
    def notes(self) -> bool:
        """Whether notes are read at all."""
        return self.wants(Stream.COMMENTS) or self.wants(Stream.HISTORY)

    def notes_of(self, raw: Mapping[str, Any]) -> bool:
        """Whether the notes of an issue are read. GitLab counts those of people, but none of its own.

        To read all for the sake of GitLab's own takes a call per issue: only who names the history wants that.
        """
        return self.notes and (bool(raw.get("user_notes_count")) or Stream.HISTORY in self.streams)


@dataclass
class _Found:
    """What a page brought."""

    records: list[Sent] = field(default_factory=list[Sent])
    complete: list[Children] = field(default_factory=list[Children])
    gone: list[Gone] = field(default_factory=list[Gone])
    gaps: list[Gap] = field(default_factory=list[Gap])
    seen: list[tuple[str, datetime | None]] = field(default_factory=list[tuple[str, datetime | None]])

    def page(self, read_at: datetime, onward: Position | None = None) -> Page:
        """The page."""
        return Page(
            read_at=read_at,
            records=self.records,
            next=onward,
            complete=self.complete,
            gone=self.gone,
            gaps=self.gaps,
            seen=self.seen,
        )


async def fetch_page(api: GitLabAPI, part: Part, position: Position | None, most: int | None, choices: Choices) -> Page:
    """One page of any part."""
    if part.kind is PartKind.KEYS:
        return await _keys_page(api, part, choices)
    if part.stream is Stream.ISSUES:
        return await _issues_page(api, part, position, most, choices)
    if part.stream is Stream.PULL_REQUESTS:
        return await _merge_requests_page(api, part, position, most)
    if part.stream not in _WHOLE:
        raise SourceError(Trouble.BAD_REQUEST, f"GitLab has no stream {part.stream} of its own")
    found = _Found()
    return found.page(await _WHOLE[part.stream](api, part, found))


async def _issues_page(
    api: GitLabAPI, part: Part, position: Position | None, most: int | None, choices: Choices
) -> Page:
    """Issues with the time spent on them and their notes; a preview is without both, a census without notes."""
    step = await issues_page(api.get, f"projects/{part.scope}/issues", _filters(part), position, most)
    found = _Found(seen=_seen(part, step.rows))
    _add_issues(found, step.rows, part.scope)
    if most is None:
        await _add_children(api, found, step.rows, part, part.scope, choices)
    return found.page(step.answer.read_at, step.next)


def _add_issues(found: _Found, rows: Rows, scope: str) -> None:
    found.records += [Sent(Stream.ISSUES, raw, scope) for raw in rows]


async def _add_children(api: GitLabAPI, found: _Found, rows: Rows, part: Part, scope: str, choices: Choices) -> None:
    calls: list[Awaitable[None]] = []
    if choices.wants(Stream.WORKLOGS):
        calls.append(_add_worklogs(api, found, rows, scope))
    if part.kind is not PartKind.CENSUS:
        calls.append(_add_notes(api, found, rows, scope, choices))
    await together(calls)


async def _add_worklogs(api: GitLabAPI, found: _Found, rows: Rows, scope: str) -> None:
    worked = [raw for raw in rows if seconds_spent(raw)]
    entries = await time_entries(api, worked) if worked else {}
    for raw in rows:
        issue = str(raw["id"])
        ids: list[str] = []
        if issue in entries:
            ids = [entry_id(entry) for entry in entries[issue]]
            context = {"issue_id": issue, "issue_key": key_of(raw)}
            found.records += [Sent(Stream.WORKLOGS, entry, scope, context) for entry in entries[issue]]
        elif seconds_spent(raw):
            ids = [total_id(raw)]
            found.records.append(Sent(Stream.WORKLOGS, raw, scope))
        found.complete.append(Children(Stream.WORKLOGS, issue, frozenset(ids)))


async def _add_notes(api: GitLabAPI, found: _Found, rows: Rows, scope: str, choices: Choices) -> None:
    """People's notes as comments, GitLab's own as history."""
    if choices.wants(Stream.COMMENTS):
        silent = [raw for raw in rows if not choices.notes_of(raw)]
        found.complete += [Children(Stream.COMMENTS, str(raw["id"]), frozenset()) for raw in silent]
    told = await together(_notes(api, raw, scope, choices) for raw in rows if choices.notes_of(raw))
    for each in told:
        found.records += each.records
        found.complete += each.complete
        found.gaps += each.gaps


async def _notes(api: GitLabAPI, raw: Mapping[str, Any], scope: str, choices: Choices) -> _Found:
    path = f"projects/{raw['project_id']}/issues/{raw['iid']}/notes"
    found = _Found()
    try:
        notes = await every_row(api.get, path, {"sort": "asc", "order_by": "created_at"})
    except SourceError as error:
        # An issue that was deleted or hidden since the list was made has none; the census tells.
        if error.trouble is not Trouble.NOT_FOUND or await _is_there(api, raw):
            found.gaps.append(gap_of(Stream.COMMENTS, scope, error))
        return found
    issue = str(raw["id"])
    for stream, system in ((Stream.COMMENTS, False), (Stream.HISTORY, True)):
        if not choices.wants(stream):
            continue
        own = [row for row in notes.rows if bool(row.get("system")) is system]
        found.records += [Sent(stream, row, scope, {"issue_id": issue}) for row in own]
        if notes.certain:
            found.complete.append(Children(stream, issue, frozenset(str(row["id"]) for row in own)))
    return found


async def _is_there(api: GitLabAPI, raw: Mapping[str, Any]) -> bool:
    rows = await _numbered(api, f"projects/{raw['project_id']}/issues", [str(raw["iid"])])
    return any(row["id"] == raw["id"] for row in rows)


async def _merge_requests_page(api: GitLabAPI, part: Part, position: Position | None, most: int | None) -> Page:
    """Merge requests; unlike GitHub's they can be deleted, so there is a census of them."""
    path = f"projects/{part.scope}/merge_requests"
    step = await changed_page(api.get, path, {"state": "all", **_filters(part)}, position, most)
    return Page(
        read_at=step.answer.read_at,
        records=[Sent(Stream.PULL_REQUESTS, raw, part.scope) for raw in step.rows],
        next=step.next,
        seen=_seen(part, step.rows),
    )


def _filters(part: Part) -> dict[str, Any]:
    # Without a scope GitLab shows only what the account itself created.
    filters = {"scope": "all", **part.query}
    return {**filters, "updated_after": to_moment(part.since)} if part.since else filters


def _seen(part: Part, rows: Rows) -> list[tuple[str, datetime | None]]:
    if part.kind is not PartKind.CENSUS:
        return []
    return [(str(raw["id"]), datetime.fromisoformat(raw["updated_at"])) for raw in rows]


# Short lists, read whole


async def _sprints(api: GitLabAPI, part: Part, found: _Found) -> datetime:
    """Milestones of the project and of its groups, and iterations where GitLab has them.

    `include_parent_milestones` is the older name of `include_ancestors`; servers of all ages know it.
    https://docs.gitlab.com/api/milestones/ https://docs.gitlab.com/api/iterations/
    """
    params = {"state": "all", "include_parent_milestones": "true"}
    read_at = await _add_whole(api, part, found, "milestones", params)
    try:
        await _add_whole(api, part, found, "iterations", {"state": "all"}, {"iteration": True})
    except SourceError as error:
        # Who may read milestones may read iterations: GitLab refuses only where its plan or edition has none.
        if error.trouble not in REFUSED:
            raise
    return read_at


async def _members(api: GitLabAPI, part: Part, found: _Found) -> datetime:
    return await _add_whole(api, part, found, "members/all", {})


async def _projects(api: GitLabAPI, part: Part, found: _Found) -> datetime:
    read_at = (await api.version()).read_at
    rows, gaps = await api.projects()
    found.records += [Sent(part.stream, raw, EVERYTHING) for raw in rows]
    found.gaps += gaps
    return read_at


# Each adds what it read, and tells when its reading began.
_WHOLE: Mapping[Stream, Callable[[GitLabAPI, Part, _Found], Awaitable[datetime]]] = {
    Stream.SPRINTS: _sprints,
    Stream.USERS: _members,
    Stream.PROJECTS: _projects,
}


async def _add_whole(
    api: GitLabAPI,
    part: Part,
    found: _Found,
    path: str,
    params: Mapping[str, Any],
    context: Mapping[str, Any] | None = None,
) -> datetime:
    whole = await every_row(api.get, f"projects/{part.scope}/{path}", params)
    found.records += [Sent(part.stream, raw, part.scope, context or {}) for raw in whole.rows]
    if not whole.certain:
        detail = f"{path} changed while they were read; the next sync reads them again"
        found.gaps.append(Gap(part.stream, part.scope, Trouble.PAYLOAD_INVALID, detail))
    return whole.read_at


# Reading by key


@dataclass(frozen=True)
class _Asked:
    """A record that was asked for: by its id and key, or by its key alone."""

    id: str | None
    key: str
    iid: str


async def _keys_page(api: GitLabAPI, part: Part, choices: Choices) -> Page:
    """Named records. GitLab finds them by the number they have in their project."""
    found = _Found()
    by_project = _asked(part, found)
    read_at = (await api.version()).read_at
    pages = await together(_of_project(api, part, project, some, choices) for project, some in by_project.items())
    for each in pages:
        found.records += each.records
        found.complete += each.complete
        found.gone += each.gone
        found.gaps += each.gaps
    return found.page(read_at)


def _asked(part: Part, found: _Found) -> dict[str, list[_Asked]]:
    """What is asked for, by project: by its id where that is known, because paths change hands."""
    if part.stream not in _BY_KEY:
        raise SourceError(Trouble.BAD_REQUEST, f"GitLab cannot be asked for single records of {part.stream}")
    _, form = _BY_KEY[part.stream]
    known = [(str(each["id"]), each["key"]) for each in part.query.get("issues", ())]
    named = [(identity, str(key)) for identity, key in known if key]
    if len(named) < len(known):
        detail = f"{len(known) - len(named)} records are known by id only, by which GitLab finds nothing"
        found.gaps.append(Gap(part.stream, part.scope, Trouble.BAD_REQUEST, detail))
    asked: dict[str, list[_Asked]] = {}
    for identity, key in [*named, *((None, str(key)) for key in part.query.get("keys", ()))]:
        match = form.pattern.fullmatch(key)
        if match is None:
            raise SourceError(Trouble.BAD_REQUEST, f"{key!r} is no key", hint=f"Keys look like {form.example}")
        project = part.scope if identity and part.scope.isdecimal() else match[1]
        asked.setdefault(project, []).append(_Asked(identity, key, match[2]))
    return asked


async def _of_project(api: GitLabAPI, part: Part, project: str, asked: Sequence[_Asked], choices: Choices) -> _Found:
    found = _Found()
    try:
        scope = project if project.isdecimal() else await api.project_id(project)
        rows = await _numbered(api, f"projects/{scope}/{_BY_KEY[part.stream][0]}", [each.iid for each in asked])
    except SourceError as error:
        _add_refused(found, part, project, asked, error)
        return found
    wanted = _matching(found, part, asked, rows)
    if part.stream is Stream.ISSUES:
        _add_issues(found, wanted, scope)
        await _add_children(api, found, wanted, part, scope, choices)
    else:
        found.records += [Sent(part.stream, raw, scope) for raw in wanted]
    return found


async def _numbered(api: GitLabAPI, path: str, iids: Sequence[str]) -> Rows:
    rows: Rows = []
    for start in range(0, len(iids), _IIDS_PER_CALL):
        some = iids[start : start + _IIDS_PER_CALL]
        params = {"scope": "all", "state": "all", "iids[]": some, "per_page": _IIDS_PER_CALL}
        rows += rows_of(await api.get(path, params))
    return rows


def _add_refused(found: _Found, part: Part, project: str, asked: Sequence[_Asked], error: SourceError) -> None:
    """A project that cannot be read says nothing of records that are known; a key alone names nothing then."""
    known = [each for each in asked if each.id]
    if known or error.trouble is not Trouble.NOT_FOUND:
        found.gaps.append(gap_of(part.stream, project, error))
    if error.trouble is Trouble.NOT_FOUND:
        alone = [each for each in asked if not each.id]
        found.gone += [Gone(part.stream, each.key, Absence.DELETED_OR_HIDDEN) for each in alone]


def _matching(found: _Found, part: Part, asked: Sequence[_Asked], rows: Rows) -> Rows:
    """The rows that are what was asked for. Under a path that changed hands a number stands for another record."""
    by_iid = {str(row["iid"]): row for row in rows}
    wanted: dict[str, dict[str, Any]] = {}
    for each in asked:
        row = by_iid.get(each.iid)
        if row is not None and each.id in {None, str(row["id"])}:
            wanted[each.iid] = row
        else:
            found.gone.append(Gone(part.stream, each.id or each.key, Absence.DELETED_OR_HIDDEN))
    return list(wanted.values())
