"""One page of each kind of part: what to ask GitHub for, and what the answer amounts to."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from shared.connectors import _github_walk as walks
from shared.connectors._github_api import REFUSED, GitHubAPI
from shared.connectors._github_records import is_pull_request, key_of, summarize_tree, without_secrets
from shared.connectors._github_walk import Step
from shared.connectors._http import Answer, together
from shared.connectors._protocol import Absence, Children, Gap, Gone, KeyForm, Page, Part, PartKind, Sent
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Stream, to_utc

# A push may bring commits that were made days before; `since` goes by when they were made.
_LATE_PUSHES = timedelta(days=7)
_KEYS_A_PAGE = 25
_PROJECTS_A_PAGE = 10
KEY_FORM = KeyForm(re.compile(r"([\w.-]+/[\w.-]+)#(\d+)"), "owner/name#12")
_PATHS = {
    Stream.ISSUES: "issues",
    Stream.COMMENTS: "issues/comments",
    Stream.PULL_REQUESTS: "pulls",
    Stream.RELEASES: "releases",
    Stream.USERS: "assignees",
}
# What of a repository is looked at, beside its own record, and the name for people.
_LANGUAGES, _STRUCTURE, _ACTIVITY = "languages", "structure", "activity"

Position = Mapping[str, Any]


@dataclass(frozen=True)
class Choices:
    """What of the settings decides over what is read."""

    branches: Sequence[str] = ()
    comments: bool = True


@dataclass
class _Found:
    """What reading something by its key brought."""

    records: list[Sent] = field(default_factory=list[Sent])
    complete: list[Children] = field(default_factory=list[Children])
    gone: list[Gone] = field(default_factory=list[Gone])
    gaps: list[Gap] = field(default_factory=list[Gap])


async def fetch_page(api: GitHubAPI, part: Part, position: Position | None, most: int | None, choices: Choices) -> Page:
    """One page of any part."""
    if part.kind is PartKind.KEYS:
        return await _keys_page(api, part, position or {}, choices)
    if part.stream is Stream.COMMITS:
        return await _commits_page(api, part, position or {}, most, choices)
    if part.stream not in _READERS:
        raise SourceError(Trouble.BAD_REQUEST, f"GitHub has no stream {part.stream}")
    return await _READERS[part.stream](api, part, position, most)


async def _changed_page(api: GitHubAPI, part: Part, position: Position | None, most: int | None) -> Page:
    """Issues or comments. Both lists carry whole records, so a census costs what a first reading does.

    https://docs.github.com/en/rest/issues/issues#list-repository-issues
    https://docs.github.com/en/rest/issues/comments#list-issue-comments-for-a-repository
    """
    census = part.kind is PartKind.CENSUS
    since = None if census else walks.to_since(part.since)
    step = await walks.changed_page(api.get, _path(part), since, position, most)
    rows = [row for row in step.rows if not is_pull_request(row)]
    seen = tuple((str(row["id"]), to_utc(row.get("updated_at"))) for row in rows) if census else ()
    return _page(part, Step(rows, step.answer, step.next), most, seen)


async def _pull_requests_page(api: GitHubAPI, part: Part, position: Position | None, most: int | None) -> Page:
    """Pull requests, last change first: their list has no `since`. They cannot be deleted.

    https://docs.github.com/en/rest/pulls/pulls#list-pull-requests
    """
    get = api.get if position else api.get_seldom_changed
    step = await walks.newest_page(get, _path(part), walks.to_since(part.since), position, most)
    return _page(part, step, most)


async def _list_page(api: GitHubAPI, part: Part, position: Position | None, most: int | None) -> Page:
    return _page(part, await walks.fixed_page(api.get_seldom_changed, _path(part), {}, position, most=most), most)


async def _branches_page(api: GitHubAPI, part: Part, position: Position | None, most: int | None) -> Page:
    """Branches, by name; which one is the default only the repository knows."""
    position = position or {}
    get = api.get_seldom_changed
    repository = None if position else await get(f"repositories/{part.scope}")
    default: str = repository.data["default_branch"] if repository else position["default"]
    path = f"repositories/{part.scope}/branches"
    step = await walks.fixed_page(get, path, {}, position.get("list"), name="name", most=most)
    rows = [{**row, "default": row["name"] == default} for row in step.rows]
    onward = {"default": default, "list": step.next} if step.next else None
    return _page(part, Step(rows, step.answer, onward), most, first=repository)


async def _commits_page(api: GitHubAPI, part: Part, position: Position, most: int | None, choices: Choices) -> Page:
    """Commits of one followed branch after another, each from the commit it stands at when its walk begins.

    A walk from a commit cannot shift under pushes. https://docs.github.com/en/rest/commits/commits#list-commits
    """
    path = f"repositories/{part.scope}/commits"
    branches: Sequence[str | None] = choices.branches or (None,)
    number: int = position.get("branch", 0)
    absent: Sequence[str] = position.get("absent", ())
    onward = {"branch": number + 1, "absent": absent} if number + 1 < len(branches) else None
    head: Answer | SourceError | None = None
    if "url" in position:
        answer = await api.get(position["url"])
    else:
        head = await _head(api, path, branches[number])
        if isinstance(head, SourceError):
            # Raises where the whole repository cannot be seen any more.
            repository = await api.get(f"repositories/{part.scope}")
            # No commits in an empty repository is how it should be; a followed branch that is not there has to be told.
            if head.status == 409:
                return Page(read_at=repository.read_at, next=onward)
            absent = [*absent, branches[number] or "that is the default one"]
            gap = Gap(
                part.stream, part.scope, Trouble.NOT_FOUND, f"There is no branch {', '.join(absent)}", head.status
            )
            return Page(read_at=repository.read_at, next=onward and {**onward, "absent": absent}, gaps=[gap])
        since = {"since": walks.to_since(part.since - _LATE_PUSHES)} if part.since else {}
        size = min(most or walks.PAGE_SIZE, walks.PAGE_SIZE)
        answer = await api.get(path, {"sha": walks.rows_of(head)[0]["sha"], "per_page": size, **since})
    if link := answer.link("next"):
        onward = {"branch": number, "url": link, "absent": absent}
    return _page(part, Step(walks.rows_of(answer), answer, onward), most, first=head)


async def _head(api: GitHubAPI, path: str, branch: str | None) -> Answer | SourceError:
    """The newest commit of a branch; an error where there is none. An empty repository answers 409."""
    try:
        return await api.get_seldom_changed(path, {"per_page": 1, **({"sha": branch} if branch else {})})
    except SourceError as error:
        if error.status in {404, 409}:
            return error
        raise


async def _projects_page(api: GitHubAPI, part: Part, position: Position | None, most: int | None) -> Page:
    """Repositories with what they consist of, in the order of their numbers.

    Where GitHub only begins to compute something when it is asked, the repository comes when all others were read.
    """
    position = position or {}
    read_at = (await api.ping()).read_at
    found, gaps = await api.repositories(known_will_do=bool(position))
    after, again = int(position.get("after", 0)), list[int](position.get("again", ()))
    first = [row for row in found if row["id"] > after]
    left = first or [row for row in found if row["id"] in again]
    chosen = left[: min(most or _PROJECTS_A_PAGE, _PROJECTS_A_PAGE)]
    analyzed = await together(_analyzed(api, row, part.scope) for row in chosen)
    later = [each for each in analyzed if each.computing] if first and most is None else []
    shown = [each for each in analyzed if each not in later]
    asked = {row["id"] for row in chosen}
    again = [each for each in again if each not in asked] + [each.sent.raw["id"] for each in later]
    onward = {"after": chosen[-1]["id"] if first else after, "again": again} if chosen else None
    return Page(
        read_at=read_at,
        records=[each.sent for each in shown],
        next=onward if len(left) > len(chosen) or again else None,
        gaps=[*(gaps if not position else ()), *(gap for each in shown for gap in each.gaps)],
    )


@dataclass(frozen=True)
class _Analyzed:
    """A repository with what it consists of."""

    sent: Sent
    gaps: list[Gap]
    # Whether GitHub has only begun to compute some of it.
    computing: bool


async def _analyzed(api: GitHubAPI, row: dict[str, Any], scope: str) -> _Analyzed:
    base = f"repositories/{row['id']}"
    get = api.get_seldom_changed
    reads = {
        _LANGUAGES: get(f"{base}/languages"),
        _STRUCTURE: get(f"{base}/git/trees/{quote(row['default_branch'] or 'HEAD', safe='')}", {"recursive": "1"}),
        _ACTIVITY: get(f"{base}/stats/participation"),
    }
    answers = await together(map(_or_error, reads.values()))
    analysis: dict[str, Any] = {}
    notes: list[str] = []
    gaps: list[Gap] = []
    computing = False
    for name, answer in zip(reads, answers, strict=True):
        if isinstance(answer, SourceError):
            if answer.status in {404, 409} and name == _STRUCTURE:
                notes.append("The repository is empty")
                continue
            detail = f"{name.capitalize()} of {row['full_name']}: {answer.detail}"
            gaps.append(Gap(Stream.PROJECTS, str(row["id"]), answer.trouble, detail, answer.status))
        elif answer.status == 202:
            # https://docs.github.com/en/rest/metrics/statistics#best-practices-for-caching
            notes.append(f"GitHub was still computing {name}; the next sync brings it")
            computing = True
        else:
            analysis[name] = summarize_tree(answer.data) if name == _STRUCTURE else answer.data
    raw = {**without_secrets(row), "analysis": {**analysis, "notes": notes}}
    return _Analyzed(Sent(Stream.PROJECTS, raw, scope), gaps, computing)


# What the analysis of one repository may fail with again and again while all others can be read: statistics answer 422
# for long histories, trees of the largest repositories take GitHub too long.
_NOT_ANALYZED = REFUSED | {Trouble.BAD_REQUEST, Trouble.SERVER_ERROR, Trouble.TIMEOUT, Trouble.PAYLOAD_INVALID}


async def _or_error(call: Awaitable[Answer]) -> Answer | SourceError:
    try:
        return await call
    except SourceError as error:
        if error.trouble not in _NOT_ANALYZED:
            raise
        return error


_READERS: Mapping[Stream, Callable[[GitHubAPI, Part, Position | None, int | None], Awaitable[Page]]] = {
    Stream.ISSUES: _changed_page,
    Stream.COMMENTS: _changed_page,
    Stream.PULL_REQUESTS: _pull_requests_page,
    Stream.RELEASES: _list_page,
    Stream.USERS: _list_page,
    Stream.BRANCHES: _branches_page,
    Stream.PROJECTS: _projects_page,
}


# Reading by key


@dataclass(frozen=True)
class _Asked:
    """A record that was asked for: by its id and key, or by its key alone."""

    name: str
    id: str | None
    key: str | None


async def _keys_page(api: GitHubAPI, part: Part, position: Position, choices: Choices) -> Page:
    """Named records. REST knows issues and pull requests by number only, comments by id only."""
    asked = _asked(part)
    done: int = position.get("done", 0)
    some = asked[done : done + _KEYS_A_PAGE]
    read_at = (await api.ping()).read_at
    if part.stream is Stream.COMMENTS:
        found = await together(_read_comment(api, part, each) for each in some)
    else:
        found = await together(_read_numbered(api, part, each, choices) for each in some)
    if part.scope.isdecimal() and any(each.gone for each in found):
        # Raises where the whole repository cannot be seen any more: that says nothing of its records.
        await api.get(f"repositories/{part.scope}")
    return Page(
        read_at=read_at,
        records=[sent for each in found for sent in each.records],
        next={"done": done + len(some)} if done + len(some) < len(asked) else None,
        complete=[children for each in found for children in each.complete],
        gone=[gone for each in found for gone in each.gone],
        gaps=[gap for each in found for gap in each.gaps],
    )


def _asked(part: Part) -> list[_Asked]:
    query = part.query
    if part.stream is Stream.COMMENTS and part.scope.isdecimal():
        return [_Asked(str(each), str(each), None) for each in query.get("ids", ())]
    if part.stream not in {Stream.ISSUES, Stream.PULL_REQUESTS}:
        raise SourceError(Trouble.BAD_REQUEST, f"GitHub cannot be asked for single records of {part.stream}")
    known = query.get("issues", ())
    asked = [_Asked(str(each["id"]), str(each["id"]), each["key"]) for each in known]
    asked += [_Asked(str(key), None, str(key)) for key in query.get("keys", ())]
    if not asked and query.get("ids"):
        hint = "Name them by keys such as owner/name#12"
        raise SourceError(Trouble.BAD_REQUEST, "GitHub finds issues by number, not by id", hint=hint)
    return asked


async def _read_comment(api: GitHubAPI, part: Part, asked: _Asked) -> _Found:
    try:
        answer = await api.get(f"repositories/{part.scope}/issues/comments/{asked.id}")
    except SourceError as error:
        return _refused(part, asked, error)
    return _Found(records=[Sent(Stream.COMMENTS, answer.data, part.scope)])


async def _read_numbered(api: GitHubAPI, part: Part, asked: _Asked, choices: Choices) -> _Found:
    """An issue with its comments, or a pull request.

    Deleted: 410. Transferred: 301 to where it is now, under another id. https://docs.github.com/en/rest/issues/issues
    """
    if asked.key is None:
        detail = f"Record {asked.id} is known by its id only, by which GitHub finds nothing"
        return _Found(gaps=[Gap(part.stream, part.scope, Trouble.BAD_REQUEST, detail)])
    named = KEY_FORM.pattern.fullmatch(asked.key)
    if named is None:
        raise SourceError(Trouble.BAD_REQUEST, f"{asked.key!r} is no key", hint=f"Keys look like {KEY_FORM.example}")
    try:
        known = asked.id is not None and part.scope.isdecimal()
        scope = part.scope if known else await api.repository_id(named[1])
        answer = await api.get(f"repositories/{scope}/{_PATHS[part.stream]}/{named[2]}")
    except SourceError as error:
        return _refused(part, asked, error)
    raw: dict[str, Any] = answer.data
    now_in = re.search(r"/repositories/(\d+)/", answer.url)
    if asked.id not in {None, str(raw["id"])}:
        moved = now_in is None or now_in[1] != scope
        absence = Absence.MOVED if moved else Absence.DELETED_OR_HIDDEN
        return _Found(gone=[Gone(part.stream, asked.name, absence)])
    if part.stream is Stream.ISSUES and is_pull_request(raw):
        detail = f"{asked.key} is a pull request"
        return _Found(gaps=[Gap(part.stream, scope, Trouble.BAD_REQUEST, detail)])
    scope = now_in[1] if now_in else scope
    found = _Found(records=[Sent(part.stream, raw, scope)])
    if part.stream is Stream.ISSUES and choices.comments:
        await _add_comments(api, found, raw, scope)
    return found


async def _add_comments(api: GitHubAPI, found: _Found, issue: dict[str, Any], scope: str) -> None:
    """All comments of an issue, so that those deleted since are noticed."""
    rows: walks.Rows = []
    if issue.get("comments"):
        path = f"repositories/{scope}/issues/{issue['number']}/comments"
        rows, _ = await walks.every_row(api.get, path, {})
    found.records += [Sent(Stream.COMMENTS, row, scope) for row in rows]
    ids = frozenset(str(row["id"]) for row in rows)
    found.complete.append(Children(Stream.COMMENTS, str(issue["id"]), ids, issue_key=key_of(issue["url"])))


def _refused(part: Part, asked: _Asked, error: SourceError) -> _Found:
    if error.status in {404, 410}:
        absence = Absence.DELETED if error.status == 410 else Absence.DELETED_OR_HIDDEN
        return _Found(gone=[Gone(part.stream, asked.name, absence)])
    if error.trouble is not Trouble.PERMISSION_DENIED:
        raise error
    detail = f"{asked.key or asked.id}: {error.detail}"
    return _Found(gaps=[Gap(part.stream, part.scope, error.trouble, detail, error.status)])


def _path(part: Part) -> str:
    return f"repositories/{part.scope}/{_PATHS[part.stream]}"


def _page(
    part: Part,
    step: Step,
    most: int | None,
    seen: Sequence[tuple[str, datetime | None]] = (),
    *,
    first: Answer | None = None,
) -> Page:
    """A page of rows; `first` is the answer to an earlier request that belongs to it."""
    rows = step.rows if most is None else step.rows[:most]
    return Page(
        read_at=(first or step.answer).read_at,
        records=[Sent(part.stream, row, part.scope) for row in rows],
        next=step.next,
        seen=seen,
    )
