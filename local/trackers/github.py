"""GitHub's REST API over a world, with its traps.

Lists are sorted anew for every request, so page numbers drift; issues have cursors and refuse deep page numbers; pull
requests are rows of the issue list; a name that changed answers 301; a deleted issue answers 410.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from aiohttp import web

from local.trackers._github_access import OWNER, GitHubAccess
from local.trackers._github_hooks import GitHubHooks
from local.trackers._github_json import (
    Pull,
    Repository,
    Revision,
    fill,
    instant,
    tree,
)
from local.trackers._github_paging import Row, changed_since, paged, refused
from local.trackers.service import Handler, json_response
from local.trackers.world import START, Issue, World

# A transferred issue gets a new id; worlds keep theirs.
_TRANSFERRED = 50_000_000


class GitHubTracker(GitHubAccess):
    """github.com, or Enterprise Server under /api/v3."""

    kind_of_hooks = GitHubHooks

    def __init__(self, world: World, *, token: str = "github_pat_valid", latency: float = 0.0) -> None:
        super().__init__(world, token=token, latency=latency)
        # The page from which the issue list's links carry cursors, as all of github.com's do; None: never.
        self.cursors_from: int | None = 1
        # The first page number that lists with cursors refuse.
        self.page_cap = 100
        self.former_names: dict[str, int] = {}
        self._repositories: dict[str, Repository] = {}
        self._revision = 0
        self._kept_at: object = None
        self._kept: dict[object, Any] = {}
        for key in world.projects:
            self.repository(key)

    # What happens at GitHub

    def repository(self, key: str) -> Repository:
        """The repository of a project of the world."""
        if key not in self._repositories:
            self._repositories[key] = self._make(key)
        return self._repositories[key]

    def rename(self, key: str, full_name: str) -> None:
        """Rename a repository; its former name leads to it."""
        repository = self.repository(key)
        self.former_names[repository.full_name] = repository.id
        repository.full_name = full_name

    def open_pull(self, key: str, at: datetime | None = None) -> Pull:
        """A new pull request. It takes the next number of the repository's issues."""
        numbers = self.world._numbers  # noqa: SLF001 - issues and pull requests share their numbers
        numbers[key] = number = numbers.get(key, 0) + 1
        made = Pull(
            id=self.world.next_id(),
            issue_id=self.world.next_id(),
            number=number,
            title=f"Change {number}",
            author=self.world.users[number % len(self.world.users)],
            created=at or self.world.now,
            updated=at or self.world.now,
        )
        self.repository(key).pulls.append(made)
        self._revision += 1
        return made

    def edit_pull(self, pull: Pull, *, merged: bool = False) -> None:
        """Touch a pull request, or merge it."""
        pull.updated = self.world.now
        if merged:
            pull.merged = pull.closed = self.world.now
        self._revision += 1

    def _make(self, key: str) -> Repository:
        project = self.world.projects[key]
        made = Repository(project.id, key, f"{OWNER}/{key.lower()}", project.created)
        self._repositories[key] = made
        begin = min(project.created, START - timedelta(days=30))
        fill(made, self.world.users, begin, max(self.world.now, START), first_id=project.id * 1_000)
        issues = self.world.all_current(key)
        pick = random.Random(self.world.seed)
        for _ in range(min(max(3, len(issues) // 10), 100)):
            pull = self.open_pull(key, pick.choice(issues).created if issues else None)
            if pick.random() < 0.5:
                pull.merged = pull.closed = pull.updated = pull.updated + timedelta(hours=2)
        return made

    # Addresses

    def add_routes(self, router: web.UrlDispatcher) -> None:
        alone = {
            **self.account_routes(),
            "/user/repos": self._repositories_of_user,
            "/installation/repositories": self._repositories_of_app,
        }
        inside: dict[str, Callable[[web.Request, Repository], web.StreamResponse]] = {
            "": self._repository,
            "/issues": self._issues,
            "/issues/comments": self._comments,
            "/issues/comments/{id}": self._comment,
            r"/issues/{number:\d+}": self._issue,
            r"/issues/{number:\d+}/comments": self._comments_of_issue,
            "/pulls": self._pulls,
            r"/pulls/{number:\d+}": self._pull,
            "/commits": self._commits,
            "/branches": self._branches,
            "/releases": self._releases,
            "/assignees": self._assignees,
            "/languages": self._languages,
            "/git/trees/{sha}": self._tree,
            "/stats/participation": self._participation,
        }
        for prefix in ("", "/api/v3"):
            for path, handler in alone.items():
                router.add_get(prefix + path, self.guarded(handler))
            router.add_post(f"{prefix}/app/installations/{{installation}}/access_tokens", self.guarded(self.mint))
            for path, shown in inside.items():
                handler = self.guarded(self._in_repository(shown))
                router.add_get(f"{prefix}/repos/{{owner}}/{{name}}{path}", handler)
                router.add_get(f"{prefix}/repositories/{{id_of_repository}}{path}", handler)

    def _in_repository(self, shown: Callable[[web.Request, Repository], web.StreamResponse]) -> Handler:
        async def found(request: web.Request) -> web.StreamResponse:
            place = request.match_info
            number = int(place.get("id_of_repository") or 0)
            name = f"{place.get('owner')}/{place.get('name')}"
            for repository in self._readable():
                if number == repository.id or name.lower() == repository.full_name.lower():
                    return shown(request, repository)
            if name in self.former_names:
                _, _, rest = request.path_qs.partition(f"/repos/{name}")
                return self.moved(request, f"/repositories/{self.former_names[name]}{rest}")
            return refused("hidden")

        return found

    def _readable(self) -> list[Repository]:
        return [self.repository(key) for key, project in self.world.projects.items() if project.readable]

    # Lists

    def _keep[T](self, name: object, make: Callable[[], T]) -> T:
        """What `make` gives, kept as long as the lists show the same."""
        state = (self.world.state, self._revision)
        if self._kept_at != state:
            self._kept_at = state
            self._kept.clear()
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def id_of(self, issue: Issue, transfers: int = 0) -> int:
        """The id after all its transfers, or so many more of them."""
        moves = self._keep("moves", lambda: Counter(self.world.former_keys.values()))
        return issue.id + _TRANSFERRED * (moves[issue.id] + transfers)

    def _issue_rows(self, repository: Repository, sort: str) -> list[Row]:
        def rows() -> list[Row]:
            issues = [each for each in self.world.listed(repository.key) if not each.hidden]
            made = [Row(int(getattr(each, sort).timestamp()), self.id_of(each), each) for each in issues]
            made += [Row(int(getattr(each, sort).timestamp()), each.issue_id, each) for each in repository.pulls]
            return sorted(made, key=lambda row: row[:2])

        return self._keep((repository.id, "issues", sort), rows)

    def _comment_rows(self, repository: Repository, sort: str) -> list[Row]:
        def rows() -> list[Row]:
            issues = [each for each in self.world.listed(repository.key) if not each.hidden]
            made = [
                Row(int(getattr(each, sort).timestamp()), each.id, (issue, each))
                for issue in issues
                for each in issue.comments
            ]
            return sorted(made, key=lambda row: row[:2])

        return self._keep((repository.id, "comments", sort), rows)

    def _ordered(
        self, request: web.Request, repository: Repository, make: Callable[[Repository, str], list[Row]]
    ) -> Sequence[Row]:
        """The rows a query asks for, in its order."""
        query = request.query
        sort = "updated" if query.get("sort") == "updated" else "created"
        since = int(datetime.fromisoformat(query["since"]).timestamp()) if "since" in query else None
        state = query.get("state", "open") if make == self._issue_rows else "all"
        found = changed_since(make(repository, "updated"), since)
        if sort == "created":
            found = self._keep((repository.id, make.__name__, since), lambda: _in(found, make(repository, "created")))
        if state != "all":
            found = [row for row in found if _state(row.of) == state]
        return found[::-1] if query.get("direction", "desc") == "desc" else found

    def _issues(self, request: web.Request, repository: Repository) -> web.Response:
        rows = self._ordered(request, repository, self._issue_rows)
        path = f"{self.root(request)}/repositories/{repository.id}/issues"
        show = self._issue_shown(request, repository)
        cap = None if self.cursors_from is None else self.page_cap
        return paged(request, rows, lambda row: show(row.of), path, cursors_from=self.cursors_from, page_cap=cap)

    def _issue_shown(self, request: web.Request, repository: Repository) -> Callable[[Any], dict[str, Any]]:
        shown = self.shown(request)

        def show(found: Any) -> dict[str, Any]:
            if isinstance(found, Pull):
                return shown.pull_as_issue(repository, found)
            return shown.issue(repository, found, self.id_of(found))

        return show

    def _comments(self, request: web.Request, repository: Repository) -> web.Response:
        rows = self._ordered(request, repository, self._comment_rows)
        path = f"{self.root(request)}/repositories/{repository.id}/issues/comments"
        shown = self.shown(request)
        return paged(request, rows, lambda row: shown.comment(repository, *row.of), path)

    def _pulls(self, request: web.Request, repository: Repository) -> web.Response:
        query = request.query
        sort = "updated" if query.get("sort") == "updated" else "created"
        chosen = [each for each in repository.pulls if query.get("state", "open") in {"all", _state(each)}]
        chosen.sort(key=lambda each: (instant(getattr(each, sort)), each.id), reverse=query.get("direction") == "desc")
        path = f"{self.root(request)}/repositories/{repository.id}/pulls"
        shown = self.shown(request)
        return paged(request, chosen, lambda pull: shown.pull(repository, pull), path)

    def _commits(self, request: web.Request, repository: Repository) -> web.Response:
        if not repository.commits:
            return refused("empty")
        asked = request.query.get("sha", "main")
        sha = repository.branches.get(asked, asked)
        known = [
            history[place:]
            for history in (repository.commits, *repository.abandoned)
            for place, each in enumerate(history)
            if each.sha == sha
        ]
        if not known:
            return refused("hidden")
        since = request.query.get("since", "")
        found: list[Revision] = [each for each in known[0] if (instant(each.date) or "") >= since]
        path = f"{self.root(request)}/repositories/{repository.id}/commits"
        shown = self.shown(request)
        return paged(request, found, lambda revision: shown.commit(repository, revision), path)

    def _branches(self, request: web.Request, repository: Repository) -> web.Response:
        path = f"{self.root(request)}/repositories/{repository.id}/branches"
        shown = self.shown(request)
        return paged(request, sorted(repository.branches), lambda name: shown.branch(repository, name), path)

    def _releases(self, request: web.Request, repository: Repository) -> web.Response:
        path = f"{self.root(request)}/repositories/{repository.id}/releases"
        shown = self.shown(request)
        return paged(request, repository.releases, lambda release: shown.release(repository, release), path)

    def _assignees(self, request: web.Request, repository: Repository) -> web.Response:
        shown = self.shown(request)
        people = [user for each in self.world.users if (user := shown.user(each))]
        return paged(request, people, dict, f"{self.root(request)}/repositories/{repository.id}/assignees")

    # Single records

    def _issue(self, request: web.Request, repository: Repository) -> web.Response:
        number = int(request.match_info["number"])
        show = self._issue_shown(request, repository)
        issue = self.world.find(repository.key, number)
        if issue is not None:
            return refused("hidden") if issue.hidden else json_response(show(issue))
        for pull in repository.pulls:
            if pull.number == number:
                return json_response(show(pull))
        return self._former_issue(request, repository, number)

    def _former_issue(self, request: web.Request, repository: Repository, number: int) -> web.Response:
        moved = self.world.current(self.world.former_keys.get(f"{repository.key}-{number}", 0))
        if moved is not None:
            target = self.repository(moved.project)
            return self.moved(request, f"/repositories/{target.id}/issues/{moved.number}")
        once = self.world._by_key.get((repository.key, number))  # noqa: SLF001 - only it remembers deleted keys
        return refused("hidden" if once is None else "deleted")

    def _comments_of_issue(self, request: web.Request, repository: Repository) -> web.Response:
        issue = self.world.find(repository.key, int(request.match_info["number"]))
        if issue is None or issue.hidden:
            return refused("hidden")
        path = f"{self.root(request)}/repositories/{repository.id}/issues/{issue.number}/comments"
        shown = self.shown(request)
        return paged(request, issue.comments, lambda comment: shown.comment(repository, issue, comment), path)

    def _comment(self, request: web.Request, repository: Repository) -> web.Response:
        for row in self._comment_rows(repository, "created"):
            if str(row.id) == request.match_info["id"]:
                return json_response(self.shown(request).comment(repository, *row.of))
        return refused("hidden")

    def _pull(self, request: web.Request, repository: Repository) -> web.Response:
        for pull in repository.pulls:
            if pull.number == int(request.match_info["number"]):
                return json_response(self.shown(request).pull(repository, pull))
        return refused("hidden")

    def _repository(self, request: web.Request, repository: Repository) -> web.Response:
        return json_response(self._repository_shown(request)(repository))

    def _repository_shown(self, request: web.Request) -> Callable[[Repository], dict[str, Any]]:
        shown = self.shown(request)
        return lambda each: shown.repository(each, each.commits[0].date if each.commits else each.created)

    def _languages(self, request: web.Request, repository: Repository) -> web.Response:
        return json_response({"Python": 40_120, "TypeScript": 9_800, "HTML": 700} if repository.commits else {})

    def _tree(self, request: web.Request, repository: Repository) -> web.Response:
        sha = repository.branches.get(request.match_info["sha"])
        return json_response(tree(sha)) if sha else refused("empty")

    def _participation(self, request: web.Request, repository: Repository) -> web.Response:
        """GitHub computes statistics when they are first asked for, and says so."""
        if not repository.statistics_ready:
            repository.statistics_ready = True
            return json_response({}, status=202)
        weeks = [index % 4 for index in range(52)]
        return json_response({"all": weeks, "owner": [0] * 52})

    async def _repositories_of_user(self, request: web.Request) -> web.Response:
        if not self.is_person(request):
            return refused("app")
        path = f"{self.root(request)}/user/repos"
        response = paged(request, self._readable(), self._repository_shown(request), path)
        if self.partial_sso:
            response.headers["X-GitHub-SSO"] = f"partial-results; organizations={self.partial_sso}"
        return response

    async def _repositories_of_app(self, request: web.Request) -> web.Response:
        if self.is_person(request):
            return refused("permission")
        path = f"{self.root(request)}/installation/repositories"
        return paged(request, self._readable(), self._repository_shown(request), path, wrap="repositories")


def _in(chosen: Sequence[Row], ordered: Sequence[Row]) -> Sequence[Row]:
    ids = {row.id for row in chosen}
    return [row for row in ordered if row.id in ids]


def _state(found: Any) -> str:
    closed = found.closed is not None if isinstance(found, Pull) else found.status == "done"
    return "closed" if closed else "open"
