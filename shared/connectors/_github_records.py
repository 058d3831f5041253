"""GitHub's JSON in our words. Pure: no request, no clock.

A record names its repository only in its addresses, so keys are read from them: they show the present name even where
the request used an old one. https://docs.github.com/en/rest/issues/issues#list-repository-issues
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from shared.connectors._traces import find_environment, find_stack_trace
from shared.domain.issue import Severity, StatusCategory, severity_of, status_category
from shared.domain.stream import (
    Branch,
    Comment,
    Commit,
    Issue,
    Person,
    Project,
    PullRequest,
    Release,
    to_utc,
)

_MOST_TOP_LEVEL = 200
_MOST_EXTENSIONS = 50
# Read-only parts of a repository that would put a working clone token into the database.
# https://docs.github.com/en/rest/repos/repos#get-a-repository
_SECRETS = ("temp_clone_token",)
# Of a milestone inside an issue, what changes with every other issue of it.
_OF_OTHERS = ("open_issues", "closed_issues", "updated_at")
# Of a repository inside a pull request, what does not change with every push to it.
_STILL = ("id", "node_id", "name", "full_name", "private", "fork", "html_url", "url")


def repository_of(url: str | None) -> str | None:
    """`owner/name` from the address of anything in a repository, on github.com and on Enterprise Server."""
    found = re.search(r"/repos/([^/]+/[^/?#]+)", urlsplit(url or "").path)
    return unquote(found[1]) if found else None


def key_of(url: str | None) -> str | None:
    """`owner/name#12` from the address of an issue or pull request in the API."""
    found = re.search(r"/repos/([^/]+/[^/]+)/(?:issues|pulls)/(\d+)$", urlsplit(url or "").path)
    return f"{unquote(found[1])}#{found[2]}" if found else None


def is_pull_request(raw: Mapping[str, Any]) -> bool:
    """Whether a row of an issue list is a pull request: that list mixes both."""
    return "pull_request" in raw


def parse_issue(
    raw: dict[str, Any], *, status_labels: Sequence[str], priority_labels: Sequence[str], type_labels: Sequence[str]
) -> Issue:
    labels = _label_names(raw)
    status, category = _status(raw, _labelled(labels, status_labels))
    priority = _labelled(labels, priority_labels)
    closed = to_utc(raw.get("closed_at"))
    description = raw.get("body") or None
    return Issue(
        external_id=str(raw["id"]),
        payload=_own_issue(raw),
        source_created_at=to_utc(raw.get("created_at")),
        source_updated_at=to_utc(raw.get("updated_at")),
        key=key_of(raw.get("url")),
        title=raw["title"],
        description=description,
        type=_part(raw, "type").get("name") or _labelled(labels, type_labels),
        status=status,
        status_category=category,
        priority=priority,
        severity=_severity(priority),
        assignee=_login(raw.get("assignee")) or next(map(_login, raw.get("assignees") or []), None),
        reporter=_login(raw.get("user")),
        labels=labels,
        project=repository_of(raw.get("repository_url") or raw.get("url")),
        parent=key_of(raw.get("parent_issue_url")),
        sprint=_part(raw, "milestone").get("title"),
        environment=find_environment(description) if description else None,
        stack_trace=find_stack_trace(description) if description else None,
        url=raw.get("html_url"),
        resolution=raw.get("state_reason") if closed else None,
        resolved_at=closed,
    )


def parse_comment(raw: dict[str, Any]) -> Comment:
    return Comment(
        external_id=str(raw["id"]),
        payload=raw,
        source_created_at=to_utc(raw.get("created_at")),
        source_updated_at=to_utc(raw.get("updated_at")),
        issue_key=key_of(raw["issue_url"]),
        author=_login(raw.get("user")),
        body=raw.get("body") or "",
        url=raw.get("html_url"),
    )


def parse_pull_request(raw: dict[str, Any]) -> PullRequest:
    merged = to_utc(raw.get("merged_at"))
    return PullRequest(
        external_id=str(raw["id"]),
        payload=_own_pull_request(raw),
        source_created_at=to_utc(raw.get("created_at")),
        source_updated_at=to_utc(raw.get("updated_at")),
        key=key_of(raw.get("url")),
        project=repository_of(raw.get("url")),
        title=raw["title"],
        description=raw.get("body") or None,
        state="merged" if merged else raw["state"],
        draft=bool(raw.get("draft")),
        author=_login(raw.get("user")),
        labels=_label_names(raw),
        source_branch=_part(raw, "head").get("ref"),
        target_branch=_part(raw, "base").get("ref"),
        url=raw.get("html_url"),
        merged_at=merged,
        closed_at=to_utc(raw.get("closed_at")),
    )


def parse_commit(raw: dict[str, Any], scope: str) -> Commit:
    """A commit. Forks share commits, so the repository is part of the identity."""
    commit: dict[str, Any] = raw["commit"]
    author = _part(commit, "author")
    committed = to_utc(_part(commit, "committer").get("date"))
    return Commit(
        external_id=f"{scope}:{raw['sha']}",
        payload=raw,
        source_created_at=to_utc(author.get("date")),
        source_updated_at=committed,
        project=repository_of(raw.get("url")),
        sha=raw["sha"],
        message=commit.get("message") or "",
        author=_login(raw.get("author")) or author.get("name"),
        author_email=author.get("email"),
        url=raw.get("html_url"),
        committed_at=committed,
    )


def parse_release(raw: dict[str, Any]) -> Release:
    return Release(
        external_id=str(raw["id"]),
        payload=raw,
        source_created_at=to_utc(raw.get("created_at")),
        source_updated_at=to_utc(raw.get("updated_at") or raw.get("published_at") or raw.get("created_at")),
        project=repository_of(raw.get("url")),
        tag=raw["tag_name"],
        name=raw.get("name") or None,
        description=raw.get("body") or None,
        author=_login(raw.get("author")),
        draft=bool(raw.get("draft")),
        prerelease=bool(raw.get("prerelease")),
        url=raw.get("html_url"),
        published_at=to_utc(raw.get("published_at")),
    )


def parse_branch(raw: dict[str, Any], scope: str) -> Branch:
    commit = _part(raw, "commit")
    return Branch(
        external_id=f"{scope}:{raw['name']}",
        payload=raw,
        project=repository_of(commit.get("url")),
        name=raw["name"],
        sha=commit.get("sha"),
        protected=bool(raw.get("protected")),
        default=bool(raw.get("default")),
    )


def parse_person(raw: dict[str, Any]) -> Person:
    return Person(
        external_id=str(raw["id"]),
        payload=raw,
        name=raw.get("name"),
        login=raw["login"],
        email=raw.get("email"),
    )


def parse_project(raw: dict[str, Any]) -> Project:
    changed = [moment for name in ("updated_at", "pushed_at") if (moment := to_utc(raw.get(name)))]
    return Project(
        external_id=str(raw["id"]),
        payload=raw,
        source_created_at=to_utc(raw.get("created_at")),
        source_updated_at=max(changed, default=None),
        name=raw["name"],
        key=raw["full_name"],
        repository_url=raw.get("html_url"),
        description=raw.get("description") or None,
        owner=_login(raw.get("owner")),
    )


def without_secrets(repository: Mapping[str, Any]) -> dict[str, Any]:
    """The repository as sent, but for the token to clone it."""
    return {name: value for name, value in repository.items() if name not in _SECRETS}


def _own_issue(raw: dict[str, Any]) -> dict[str, Any]:
    """An issue without what changes when others do: else every census would find it changed, and missed until then."""
    milestone = _part(raw, "milestone")
    if not milestone:
        return raw
    return {**raw, "milestone": {name: value for name, value in milestone.items() if name not in _OF_OTHERS}}


def _own_pull_request(raw: dict[str, Any]) -> dict[str, Any]:
    """A pull request whose repositories are named, not described: a push would change all that are read again."""
    own = _own_issue(raw)
    for side in ("head", "base"):
        branch = _part(raw, side)
        if repository := _part(branch, "repo"):
            named = {name: repository[name] for name in _STILL if name in repository}
            own = {**own, side: {**branch, "repo": named}}
    return own


def summarize_tree(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What a repository consists of: https://docs.github.com/en/rest/git/trees#get-a-tree."""
    entries: list[dict[str, Any]] = tree.get("tree") or []
    files = [PurePosixPath(entry["path"]) for entry in entries if entry.get("type") == "blob"]
    extensions = Counter(path.suffix.lower() or "(none)" for path in files)
    top = sorted(
        f"{entry['path']}/" if entry.get("type") == "tree" else entry["path"]
        for entry in entries
        if "/" not in entry["path"]
    )
    return {
        "top_level": top[:_MOST_TOP_LEVEL],
        "files": len(files),
        "directories": sum(entry.get("type") == "tree" for entry in entries),
        "extensions": dict(extensions.most_common(_MOST_EXTENSIONS)),
        # GitHub cuts at 100,000 entries or 7 MB: counts are then of what it sent.
        "truncated": bool(tree.get("truncated")),
    }


def parse_expiry(text: str | None) -> datetime | None:
    """The GitHub-Authentication-Token-Expiration header: `2027-01-31 12:00:00 UTC` or with an offset."""
    try:
        return to_utc((text or "").replace(" UTC", "+00:00").replace(" +", "+").strip())
    except ValueError:
        return None


def _status(raw: Mapping[str, Any], label: str | None) -> tuple[str, StatusCategory]:
    state: str = raw["state"]
    if state != "open":
        return state, StatusCategory.DONE
    if label is None:
        return state, StatusCategory.OPEN
    # An issue GitHub holds open is not done, whatever a label says.
    started = status_category(label) is StatusCategory.IN_PROGRESS
    return label, StatusCategory.IN_PROGRESS if started else StatusCategory.OPEN


def _severity(priority: str | None) -> Severity | None:
    return severity_of(priority) if priority else None


def _label_names(raw: Mapping[str, Any]) -> tuple[str, ...]:
    names: Iterable[Any] = (
        cast("dict[str, Any]", label).get("name") if isinstance(label, dict) else label
        for label in cast("list[Any]", raw.get("labels") or [])
    )
    return tuple(str(name) for name in names if name)


def _labelled(labels: Iterable[str], prefixes: Sequence[str]) -> str | None:
    """What the first label with one of the prefixes says, without the prefix."""
    for label in labels:
        for prefix in prefixes:
            if label.lower().startswith(prefix.lower()) and (rest := label[len(prefix) :].strip()):
                return rest
    return None


def _part(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object inside a record, or an empty one where GitHub sent null or nothing."""
    return raw.get(name) or {}


def _login(user: Any) -> str | None:
    """The login; accounts that were deleted come as null."""
    return cast("dict[str, Any]", user).get("login") if isinstance(user, dict) else None
