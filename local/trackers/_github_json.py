"""How GitHub shows a world: the JSON of its records and refusals, and the code a repository holds."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from local.trackers.world import Comment, Issue, User

WEB = "https://github.example"
_DOCS = "https://docs.github.com/rest"
_FILES = (
    "README.md",
    "pyproject.toml",
    "src/app.py",
    "src/ledger/__init__.py",
    "src/ledger/book.py",
    "src/ledger/table.sql",
    "tests/test_book.py",
    "web/index.html",
    "web/main.ts",
    "Makefile",
)


@dataclass
class Pull:
    """A pull request: a row of the issue list with one id, and of its own list with another."""

    id: int
    issue_id: int
    number: int
    title: str
    author: User
    created: datetime
    updated: datetime
    merged: datetime | None = None
    closed: datetime | None = None
    draft: bool = False


@dataclass(frozen=True)
class Revision:
    sha: str
    date: datetime
    message: str
    author: User


@dataclass
class Repository:
    """A project of the world as GitHub holds it, with its code. Commits are newest first."""

    id: int
    key: str
    full_name: str
    created: datetime
    private: bool = True
    pulls: list[Pull] = field(default_factory=list[Pull])
    commits: list[Revision] = field(default_factory=list[Revision])
    branches: dict[str, str] = field(default_factory=dict[str, str])
    releases: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    statistics_ready: bool = False
    # Histories that were pushed over; their commits can still be asked for.
    abandoned: list[list[Revision]] = field(default_factory=list[list[Revision]])

    def push(self, author: User, date: datetime, message: str, branch: str = "main") -> Revision:
        """A commit on top of all others."""
        sha = hashlib.sha1(f"{self.id} {len(self.commits)} {message}".encode()).hexdigest()
        revision = Revision(sha, date, message, author)
        self.commits.insert(0, revision)
        self.branches[branch] = sha
        return revision

    def rewrite(self, drop: int) -> None:
        """A forced push that takes the newest commits away."""
        self.abandoned.append(self.commits)
        self.commits = self.commits[drop:]
        self.branches["main"] = self.commits[0].sha

    def release(self, number: int, tag: str, at: datetime, author: User) -> None:
        self.releases.insert(0, {"id": number, "tag": tag, "at": at, "author": author})


def fill(repository: Repository, users: list[User], since: datetime, until: datetime, first_id: int) -> None:
    """Give a repository commits, branches and releases."""
    step = (until - since) / 31
    for number in range(30):
        author = users[(repository.id + number) % len(users)]
        repository.push(author, since + step * (number + 1), f"Handle case {number + 1}\n\nSeen in the field.")
    repository.branches["release/1.x"] = repository.commits[12].sha
    repository.branches["try-ledger"] = repository.commits[3].sha
    for number, age in enumerate((20, 6)):
        repository.release(first_id + number, f"v1.{number}.0", repository.commits[age].date, users[number])


def instant(moment: datetime | None) -> str | None:
    """A time as GitHub writes it: whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


class Renderer:
    """Records as JSON. `root` is the address of the API, without a slash at the end."""

    def __init__(self, root: str, ghosts: frozenset[str]) -> None:
        self._root = root
        self._ghosts = ghosts

    def user(self, user: User | None) -> dict[str, Any] | None:
        """An account; one that was deleted is null."""
        if user is None or user.login in self._ghosts:
            return None
        return {
            "login": user.login,
            "id": user.id,
            "node_id": f"U_{user.id}",
            "avatar_url": f"https://avatars.example/u/{user.id}",
            "url": f"{self._root}/users/{user.login}",
            "html_url": f"{WEB}/{user.login}",
            "type": "User",
            "site_admin": False,
        }

    def issue(self, repository: Repository, issue: Issue, number_of: int) -> dict[str, Any]:
        url = f"{self._root}/repos/{repository.full_name}/issues/{issue.number}"
        assignee = self.user(issue.assignee)
        closed = issue.resolved if issue.status == "done" else None
        labels = [*issue.labels, f"priority: {issue.priority.lower()}", f"type: {issue.type.lower()}"]
        if issue.status == "in_progress":
            labels.append("status: in progress")
        return {
            **self._common(url, repository, issue.number, number_of, "issues"),
            "title": issue.title,
            "user": self.user(issue.reporter),
            "labels": [self._label(repository, name) for name in labels],
            "state": "closed" if issue.status == "done" else "open",
            "assignee": assignee,
            "assignees": [assignee] if assignee else [],
            "milestone": None,
            "comments": len(issue.comments),
            "created_at": instant(issue.created),
            "updated_at": instant(issue.updated),
            "closed_at": instant(closed or (issue.updated if issue.status == "done" else None)),
            "body": issue.body or None,
            "state_reason": "completed" if issue.status == "done" else None,
        }

    def pull_as_issue(self, repository: Repository, pull: Pull) -> dict[str, Any]:
        url = f"{self._root}/repos/{repository.full_name}/issues/{pull.number}"
        return {
            **self._common(url, repository, pull.number, pull.issue_id, "pull"),
            "title": pull.title,
            "user": self.user(pull.author),
            "labels": [],
            "state": "closed" if pull.closed else "open",
            "assignee": None,
            "assignees": [],
            "milestone": None,
            "comments": 0,
            "created_at": instant(pull.created),
            "updated_at": instant(pull.updated),
            "closed_at": instant(pull.closed),
            "body": None,
            "state_reason": None,
            "draft": pull.draft,
            "pull_request": {"url": url.replace("/issues/", "/pulls/"), "merged_at": instant(pull.merged)},
        }

    def pull(self, repository: Repository, pull: Pull) -> dict[str, Any]:
        base = {"id": repository.id, "full_name": repository.full_name}
        return {
            "url": f"{self._root}/repos/{repository.full_name}/pulls/{pull.number}",
            "id": pull.id,
            "html_url": f"{WEB}/{repository.full_name}/pull/{pull.number}",
            "number": pull.number,
            "state": "closed" if pull.closed else "open",
            "title": pull.title,
            "user": self.user(pull.author),
            "body": None,
            "created_at": instant(pull.created),
            "updated_at": instant(pull.updated),
            "closed_at": instant(pull.closed),
            "merged_at": instant(pull.merged),
            "labels": [],
            "draft": pull.draft,
            # The fork a pull request came from may be gone.
            "head": {"ref": f"change-{pull.number}", "sha": "0" * 40, "user": self.user(pull.author), "repo": None},
            "base": {"ref": "main", "sha": "1" * 40, "repo": base},
        }

    def comment(self, repository: Repository, issue: Issue, comment: Comment) -> dict[str, Any]:
        repos = f"{self._root}/repos/{repository.full_name}"
        return {
            "url": f"{repos}/issues/comments/{comment.id}",
            "html_url": f"{WEB}/{repository.full_name}/issues/{issue.number}#issuecomment-{comment.id}",
            "issue_url": f"{repos}/issues/{issue.number}",
            "id": comment.id,
            "user": self.user(comment.author),
            "created_at": instant(comment.created),
            "updated_at": instant(comment.updated),
            "author_association": "MEMBER",
            "body": comment.body,
        }

    def commit(self, repository: Repository, revision: Revision) -> dict[str, Any]:
        person = {"name": revision.author.name, "email": revision.author.email, "date": instant(revision.date)}
        return {
            "sha": revision.sha,
            "commit": {"author": person, "committer": person, "message": revision.message},
            "url": f"{self._root}/repos/{repository.full_name}/commits/{revision.sha}",
            "html_url": f"{WEB}/{repository.full_name}/commit/{revision.sha}",
            "author": self.user(revision.author),
            "committer": None,
        }

    def branch(self, repository: Repository, name: str) -> dict[str, Any]:
        sha = repository.branches[name]
        url = f"{self._root}/repos/{repository.full_name}/commits/{sha}"
        return {"name": name, "commit": {"sha": sha, "url": url}, "protected": name == "main"}

    def release(self, repository: Repository, release: Mapping[str, Any]) -> dict[str, Any]:
        tag = release["tag"]
        return {
            "url": f"{self._root}/repos/{repository.full_name}/releases/{release['id']}",
            "html_url": f"{WEB}/{repository.full_name}/releases/tag/{tag}",
            "id": release["id"],
            "author": self.user(release["author"]),
            "tag_name": tag,
            "name": f"Release {tag}",
            "body": "What is new.",
            "draft": False,
            "prerelease": False,
            "created_at": instant(release["at"]),
            "published_at": instant(release["at"] + timedelta(minutes=5)),
            "assets": [],
        }

    def repository(self, repository: Repository, pushed: datetime) -> dict[str, Any]:
        owner, name = repository.full_name.split("/")
        return {
            "id": repository.id,
            "name": name,
            "full_name": repository.full_name,
            "private": repository.private,
            "owner": {"login": owner, "id": 77, "type": "Organization"},
            "html_url": f"{WEB}/{repository.full_name}",
            "description": f"All about the {name}",
            "fork": False,
            "url": f"{self._root}/repos/{repository.full_name}",
            "created_at": instant(repository.created),
            "updated_at": instant(repository.created),
            "pushed_at": instant(pushed),
            "language": "Python",
            "has_issues": True,
            "archived": False,
            "default_branch": "main",
            "temp_clone_token": "clone-me-not",
        }

    def _common(self, url: str, repository: Repository, number: int, issue_id: int, kind: str) -> dict[str, Any]:
        return {
            "url": url,
            "repository_url": f"{self._root}/repos/{repository.full_name}",
            "comments_url": f"{url}/comments",
            "html_url": f"{WEB}/{repository.full_name}/{kind}/{number}",
            "id": issue_id,
            "node_id": f"I_{issue_id}",
            "number": number,
            "locked": False,
            "author_association": "MEMBER",
        }

    def _label(self, repository: Repository, name: str) -> dict[str, Any]:
        number = int(hashlib.sha1(name.encode()).hexdigest()[:6], 16)
        url = f"{self._root}/repos/{repository.full_name}/labels/{name}"
        return {"id": number, "url": url, "name": name, "color": "ededed", "default": False, "description": None}


def tree(sha: str) -> dict[str, Any]:
    """All files and folders of a repository; every one holds the same."""
    folders = sorted({parent for path in _FILES for parent in _parents(path)})
    entries = [{"path": path, "type": "tree", "mode": "040000"} for path in folders]
    entries += [{"path": path, "type": "blob", "mode": "100644", "size": 120} for path in _FILES]
    return {"sha": sha, "tree": entries, "truncated": False}


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def problem(message: str, status: int) -> dict[str, Any]:
    """The body of a refusal; the status is a text."""
    return {"message": message, "documentation_url": _DOCS, "status": str(status)}


NO_USER_AGENT = "Request forbidden by administrative rules. Please make sure your request has a User-Agent header."
_SECONDARY = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
_SAML = "Resource protected by organization SAML enforcement. You must grant your token access to this organization."
_ALLOW_LIST = (
    "Although you appear to have the correct authorization credentials, the `tidewater` organization has an IP allow "
    "list enabled, and your IP address is not permitted to access this resource."
)
# What a path may be refused with: status, message, headers.
REFUSALS: Mapping[str, tuple[int, str, Mapping[str, str]]] = {
    "sso": (403, _SAML, {"X-GitHub-SSO": "required; url=https://github.example/orgs/tidewater/sso?request=x"}),
    "permission": (
        403,
        "Resource not accessible by personal access token",
        {"X-Accepted-GitHub-Permissions": "issues=read"},
    ),
    "app": (403, "Resource not accessible by integration", {}),
    "address": (403, _ALLOW_LIST, {}),
    "suspended": (403, "This installation has been suspended", {}),
    "blocked": (403, "Repository access blocked", {}),
    "lockout": (403, "Maximum number of login attempts exceeded. Please try again later.", {}),
    "secondary": (403, _SECONDARY, {"Retry-After": "60"}),
    "secondary-bare": (403, _SECONDARY, {}),
    "secondary-429": (429, _SECONDARY, {}),
    "abuse": (403, "You have triggered an abuse detection mechanism. Please wait a few minutes.", {}),
    "agent": (403, NO_USER_AGENT, {}),
    "hidden": (404, "Not Found", {}),
    "empty": (409, "Git Repository is empty.", {}),
    "deleted": (410, "This issue was deleted", {}),
    "invalid": (422, "Validation Failed", {}),
    "legal": (451, "Repository access blocked", {}),
    "failing": (500, "Server Error", {}),
}
DEEP_PAGE = (
    "Pagination with the page parameter is not supported for large datasets, "
    "please use cursor based pagination (after/before)"
)
