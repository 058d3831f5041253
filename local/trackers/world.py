"""What a simulated tracker knows: projects, people and issues that are created, edited, deleted and moved over time.

The clock is the world's own. Every write makes a new version of an issue, and lists may lag behind: `listed` shows each
issue as the search index knew it `index_lag` ago, `current` as it is. A service turns versions into its tracker's JSON.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

_NAMES = ("Noor Aldana", "Iva Brandt", "Teo Castel", "Mika Dorn", "Rae Ellison", "Sol Ferrer", "Uma Gatti", "Wim Hald")
_PARTS = ("checkout", "search", "ledger", "gateway", "mobile app", "scheduler", "report", "login", "importer", "mailer")
_FAULTS = (
    "times out under load",
    "shows the wrong total",
    "loses the last line",
    "crashes on empty input",
    "rejects a valid date",
    "is slow after an update",
    "sends the mail twice",
    "ignores the filter",
)
_TYPES = ("Bug", "Task", "Story")
_PRIORITIES = ("Highest", "High", "Medium", "Low")
_LABELS = ("backend", "frontend", "regression", "customer", "flaky")
START = datetime(2025, 3, 3, 9, 0, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class User:
    id: int
    login: str
    name: str
    email: str


@dataclass(frozen=True, kw_only=True)
class Project:
    id: int
    key: str
    name: str
    created: datetime
    readable: bool = True


@dataclass(frozen=True, kw_only=True)
class Comment:
    id: int
    author: User
    body: str
    created: datetime
    updated: datetime
    internal: bool = False


@dataclass(frozen=True, kw_only=True)
class Worklog:
    id: int
    author: User
    seconds: int
    started: datetime
    updated: datetime
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class Change:
    id: int
    author: User
    at: datetime
    field: str
    old: str | None
    new: str | None


@dataclass(frozen=True, kw_only=True)
class Sprint:
    id: int
    project: str
    name: str
    state: str
    starts: datetime
    ends: datetime


@dataclass(frozen=True, kw_only=True)
class Issue:
    """One version of an issue. `at` is when it was written, which is not always what `updated` says."""

    id: int
    project: str
    number: int
    title: str
    body: str
    status: str  # open, in_progress or done
    type: str
    priority: str
    reporter: User
    assignee: User | None
    labels: tuple[str, ...]
    created: datetime
    updated: datetime
    at: datetime
    resolved: datetime | None = None
    sprint: int | None = None
    points: float | None = None
    comments: tuple[Comment, ...] = ()
    worklogs: tuple[Worklog, ...] = ()
    changes: tuple[Change, ...] = ()
    mod_count: int = 0
    hidden: bool = False  # exists, but this account may not see the row
    deleted: bool = False

    @property
    def key(self) -> str:
        return f"{self.project}-{self.number}"


# Told of an issue before and after a write: None before it is created, and after it is deleted.
Listener = Callable[[Issue | None, Issue | None], None]


@dataclass
class World:
    """All of a tracker's data, and the ways in which it changes. Same seed and same calls, same world."""

    seed: int = 1
    index_lag: timedelta = timedelta(0)
    # Writes within this time of the last update leave `updated` alone, as GitLab does with notes.
    note_throttle: timedelta = timedelta(0)
    now: datetime = START
    users: list[User] = field(default_factory=list[User])
    projects: dict[str, Project] = field(default_factory=dict[str, Project])
    sprints: dict[int, Sprint] = field(default_factory=dict[int, Sprint])
    deletions: list[tuple[int, datetime]] = field(default_factory=list[tuple[int, datetime]])
    # Old keys of moved issues → issue id.
    former_keys: dict[str, int] = field(default_factory=dict[str, int])
    listeners: list[Listener] = field(default_factory=list[Listener])
    _versions: dict[int, list[Issue]] = field(default_factory=dict[int, list[Issue]])
    _numbers: dict[str, int] = field(default_factory=dict[str, int])
    _next_id: int = 10_000
    _revision: int = 0
    _listed: dict[str | None, tuple[object, list[Issue]]] = field(
        default_factory=dict[str | None, tuple[object, list[Issue]]]
    )
    _by_key: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.users = [
            User(
                id=index + 1,
                login=name.split()[0].lower(),
                name=name,
                email=f"{name.split()[0].lower()}@tidewater.example",
            )
            for index, name in enumerate(_NAMES)
        ]

    # Reading

    def current(self, issue_id: int) -> Issue | None:
        """The issue as it is, or None if it never was or is deleted; hidden ones are returned."""
        versions = self._versions.get(issue_id)
        return None if versions is None or versions[-1].deleted else versions[-1]

    def all_current(self, project: str | None = None) -> list[Issue]:
        """Every issue that exists, hidden ones too, by id."""
        found = (versions[-1] for versions in self._versions.values())
        return [i for i in found if not i.deleted and (project is None or i.project == project)]

    @property
    def state(self) -> object:
        """Equal as long as lists show the same: services may keep sorted copies under it."""
        return (self._revision, self.now if self.index_lag else None)

    def listed(self, project: str | None = None) -> list[Issue]:
        """Every issue as the search index knows it, hidden ones too, by id. Do not change the list."""
        held = self._listed.get(project)
        if held is None or held[0] != self.state:
            as_of = self.now - self.index_lag
            found = [i for i in self._as_of(as_of) if not i.deleted and (project is None or i.project == project)]
            self._listed[project] = held = (self.state, found)
        return held[1]

    def find(self, project: str, number: int) -> Issue | None:
        """The issue with this key as it is; a moved one is not found under its old key."""
        issue = self.current(self._by_key.get((project, number), 0))
        return issue if issue and (issue.project, issue.number) == (project, number) else None

    def _as_of(self, moment: datetime) -> Iterator[Issue]:
        for versions in self._versions.values():
            if versions[-1].at <= moment:
                yield versions[-1]
                continue
            for version in reversed(versions):
                if version.at <= moment:
                    yield version
                    break

    # Writing

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    def next_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def add_project(self, key: str, name: str | None = None) -> Project:
        project = Project(id=self.next_id(), key=key, name=name or key.title(), created=self.now)
        self.projects[key] = project
        return project

    def add_sprint(self, project: str, name: str, *, state: str = "active") -> Sprint:
        sprint = Sprint(
            id=self.next_id(),
            project=project,
            name=name,
            state=state,
            starts=self.now,
            ends=self.now + timedelta(days=14),
        )
        self.sprints[sprint.id] = sprint
        return sprint

    def create(self, project: str, **values: object) -> Issue:
        """A new issue, now; `values` override what is made up."""
        self._numbers[project] = number = self._numbers.get(project, 0) + 1
        pick = self.random.choice
        made: dict[str, object] = {
            "title": f"{pick(_PARTS).capitalize()} {pick(_FAULTS)}",
            "body": f"Seen since build {self.random.randrange(400)}.\n\nSteps:\n\n1. open it\n2. wait\n",
            "status": "open",
            "type": pick(_TYPES),
            "priority": pick(_PRIORITIES),
            "reporter": pick(self.users),
            "assignee": pick([None, *self.users]),
            "labels": tuple(sorted(self.random.sample(_LABELS, self.random.randrange(3)))),
            "created": self.now,
            "updated": self.now,
            "at": self.now,
        }
        issue = Issue(id=self.next_id(), project=project, number=number, **{**made, **values})  # type: ignore[arg-type]
        self._versions[issue.id] = [issue]
        self._by_key[project, number] = issue.id
        self._changed(None, issue)
        return issue

    def edit(self, issue_id: int, *, bump: bool = True, **values: object) -> Issue:
        """Change fields; with `bump=False` the time of change stays, as trackers do for some fields."""
        issue = self._last(issue_id)
        changes = issue.changes
        for name in ("title", "status", "priority"):
            if name in values and values[name] != getattr(issue, name):
                changes += (
                    Change(
                        id=self.next_id(),
                        author=self.random.choice(self.users),
                        at=self.now,
                        field=name,
                        old=str(getattr(issue, name)),
                        new=str(values[name]),
                    ),
                )
        if values.get("status", issue.status) != issue.status and "resolved" not in values:
            values["resolved"] = self.now if values["status"] == "done" else None
        return self._write(issue, bump=bump, changes=changes, **values)

    def comment(self, issue_id: int, body: str = "Looked into it.", *, internal: bool = False) -> Comment:
        """A new comment."""
        made = Comment(
            id=self.next_id(),
            author=self.random.choice(self.users),
            body=body,
            created=self.now,
            updated=self.now,
            internal=internal,
        )
        issue = self._last(issue_id)
        self._write(issue, bump=self._may_bump(issue), comments=(*issue.comments, made))
        return made

    def edit_comment(self, issue_id: int, comment_id: int, body: str) -> None:
        issue = self._last(issue_id)
        comments = tuple(
            replace(each, body=body, updated=self.now) if each.id == comment_id else each for each in issue.comments
        )
        self._write(issue, bump=self._may_bump(issue), comments=comments)

    def delete_comment(self, issue_id: int, comment_id: int) -> None:
        issue = self._last(issue_id)
        self._write(issue, comments=tuple(each for each in issue.comments if each.id != comment_id))

    def log_work(self, issue_id: int, seconds: int = 3_600) -> Worklog:
        made = Worklog(
            id=self.next_id(),
            author=self.random.choice(self.users),
            seconds=seconds,
            started=self.now,
            updated=self.now,
        )
        issue = self._last(issue_id)
        self._write(issue, worklogs=(*issue.worklogs, made))
        return made

    def delete_worklog(self, issue_id: int, worklog_id: int) -> None:
        issue = self._last(issue_id)
        self._write(issue, worklogs=tuple(each for each in issue.worklogs if each.id != worklog_id))

    def delete(self, issue_id: int) -> None:
        issue = self._last(issue_id)
        self._versions[issue_id].append(replace(issue, deleted=True, at=self.now))
        self.deletions.append((issue_id, self.now))
        self._changed(issue, None)

    def move(self, issue_id: int, project: str) -> Issue:
        """Move to another project: a new key, the same id."""
        issue = self._last(issue_id)
        self.former_keys[issue.key] = issue_id
        self._numbers[project] = number = self._numbers.get(project, 0) + 1
        return self._write(issue, project=project, number=number)

    def _last(self, issue_id: int) -> Issue:
        last = self._versions[issue_id][-1]
        if last.deleted:
            raise KeyError(issue_id)
        return last

    def _may_bump(self, issue: Issue) -> bool:
        return not self.note_throttle or self.now - issue.updated >= self.note_throttle

    def _write(self, issue: Issue, *, bump: bool = True, **values: object) -> Issue:
        written = replace(
            issue,
            at=self.now,
            updated=self.now if bump else issue.updated,
            mod_count=issue.mod_count + 1,
            **values,  # type: ignore[arg-type]
        )
        self._versions[issue.id].append(written)
        self._by_key[written.project, written.number] = written.id
        self._changed(issue, written)
        return written

    def _changed(self, before: Issue | None, after: Issue | None) -> None:
        self._revision += 1
        for listener in self.listeners:
            listener(before, after)


def seeded(
    issues: int, *, projects: tuple[str, ...] = ("HARBOR", "PETREL"), seed: int = 1, comments: int = 3, **world: object
) -> World:
    """A world with so many issues, made over the past year, a few with long threads, many with work logged."""
    made = World(seed=seed, **world)  # type: ignore[arg-type]
    end = made.now
    made.now = end - timedelta(days=365)
    step = (end - made.now).total_seconds() / (issues + 1)
    for key in projects:
        made.add_project(key)
        made.add_sprint(key, f"{key.title()} sprint 1", state="closed")
        made.add_sprint(key, f"{key.title()} sprint 2")
    sprints = {key: [s.id for s in made.sprints.values() if s.project == key] for key in projects}
    for index in range(issues):
        made.advance(step)
        key = projects[index % len(projects)]
        issue = made.create(
            key, sprint=made.random.choice([None, *sprints[key]]), points=made.random.choice([None, 1, 2, 5])
        )
        for _ in range(made.random.randrange(comments + 1)):
            made.comment(issue.id)
        if made.random.random() < 0.3:
            made.log_work(issue.id, 900 * made.random.randrange(1, 20))
        if made.random.random() < 0.6:
            made.edit(issue.id, status=made.random.choice(("in_progress", "done")))
    made.now = end
    _forget_history(made)
    return made


def _forget_history(world: World) -> None:
    """Only last versions matter of what nobody has seen change; a large world keeps to its memory."""
    for versions in world._versions.values():  # noqa: SLF001 - same module
        del versions[:-1]
