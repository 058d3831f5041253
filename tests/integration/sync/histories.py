"""Made-up histories of a tracker and of the syncs that read it, and how one is played.

A history has a number and is always the same. Its draws are independent of those of others, because losses take several
things that meet. Hypothesis likes to repeat what it drew: of 1,141 syncs in 500 histories of its making 202 differed.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random

from local.trackers.service import Call, Fault, Tracker
from local.trackers.world import START, Issue, World
from tests.support.sources import Source, new_world

EDITS = (
    *("create", "rename", "status", "comment", "edit_comment", "delete_comment", "delete", "move", "work"),
    # Several at once: they share their instant, and fill more than a page.
    *("create_many", "create_many", "change_many", "change_many", "change_many", "comment_many", "delete_many"),
)
SECONDS = (0.4, 1, 7, 31, 59, 61, 130, 250, 300, 4_000)
DISTURBANCES = (
    *("edit", "edit", "edit", "pass", "crash", "crash", "fault"),
    # Longer than a request is tried again for: the part is put off, and goes on from its last page.
    "down",
    # The sync fails in the middle. Nobody retries it, and the next one has to read what it left; or somebody does.
    *("refuse", "refuse", "refuse and retry"),
    # A webhook tells of an issue, which is read by its key while the sync is at work.
    *("name", "name"),
)
# Zones of the account, each with a time shortly before its clocks change.
CLOCKS = {
    "UTC": START,
    "America/Los_Angeles": datetime(2025, 11, 2, 8, 30, tzinfo=UTC),
    "Europe/Berlin": datetime(2025, 10, 26, 0, 30, tzinfo=UTC),
    "Asia/Tokyo": START,
}


@dataclass(frozen=True)
class Edit:
    """A change at the source; which issue and which value `choice` says."""

    kind: str
    choice: int


@dataclass(frozen=True)
class Disturbance:
    """What happens at the n-th request of a sync, from the start of its plan or of its walk."""

    walking: bool
    at: int
    kind: str
    edit: Edit
    seconds: float
    fault: str


@dataclass(frozen=True)
class Sync:
    """A sync that is disturbed."""

    full: bool
    disturbances: tuple[Disturbance, ...]


@dataclass(frozen=True)
class Named:
    """A webhook tells of an issue; which one `choice` says, mostly one that has just changed."""

    choice: int


Step = Edit | float | Sync | Named
"""A change, seconds that pass, a sync, or an issue that is read by its key."""


@dataclass(frozen=True)
class History:
    """What a tracker begins with, and what happens then."""

    seed: int
    projects: tuple[str, ...]
    issues: int
    # Whether these issues were made in one instant.
    at_once: bool
    zone: str
    # Seconds by which the tracker's clock is ahead of the one that stamps its records; the overlap has to absorb it.
    skew: int
    # Whether first walks are divided into parts that are walked side by side.
    divided: bool
    # Whether every step runs twice.
    twins: bool
    steps: tuple[Step, ...]

    def world(self, source: Source) -> World:
        """The world before the first step."""
        world = new_world(source, seed=self.seed, now=CLOCKS[self.zone], projects=self.projects)
        for number in range(self.issues):
            _create(world, source, self.projects[number % 3 % len(self.projects)], self.seed + number)
            world.advance(0 if self.at_once else 7)
        return world


def imagine(name: str, number: int) -> History:
    """The history with this number."""
    pick = Random(f"{name} {number}")
    return History(
        seed=number,
        projects=("HARBOR",) if pick.random() < 0.6 else ("HARBOR", "PETREL"),
        issues=pick.choice((0, 4, 8, 12)),
        at_once=pick.random() < 0.3,
        zone=pick.choice(sorted(CLOCKS)),
        skew=pick.choice((0, 0, -60, 60)),
        divided=pick.random() < 0.2,
        twins=pick.random() < 0.125,
        steps=tuple(step for _ in range(pick.choice((1, 2, 2))) for step in _round(pick)),
    )


def _round(pick: Random) -> Iterator[Step]:
    """Some changes, some time, a sync."""
    yield from (_edit(pick) for _ in range(pick.choice((1, 1, 2, 3))))
    if pick.random() < 0.15:
        yield Named(pick.randrange(1_000))
    if pick.random() < 0.6:
        yield pick.choice(SECONDS)
    disturbances = tuple(_disturbance(pick) for _ in range(pick.choice((0, 1, 1, 2, 3))))
    yield Sync(full=pick.random() < 0.2, disturbances=disturbances)


def _edit(pick: Random) -> Edit:
    return Edit(pick.choice(EDITS), pick.randrange(1_000))


def _disturbance(pick: Random) -> Disturbance:
    # Most requests of a walk turn pages.
    walking = pick.random() < 0.8
    at = pick.choice((pick.randint(1, 3), pick.randint(2, 5), pick.randint(3, 9))) if walking else pick.randint(1, 4)
    return Disturbance(
        walking,
        at,
        pick.choice(DISTURBANCES),
        _edit(pick),
        pick.choice(SECONDS),
        pick.choice(("reset", "truncated", "status")),
    )


def shortened(history: History, fails: Callable[[History], bool]) -> History:
    """The history without every step and disturbance that it fails without as well."""
    for at in reversed(range(len(history.steps))):
        before, step, after = history.steps[:at], history.steps[at], history.steps[at + 1 :]
        without = [(*before, *after)]
        if isinstance(step, Sync):
            rests = (step.disturbances[:n] + step.disturbances[n + 1 :] for n in range(len(step.disturbances)))
            without += [(*before, replace(step, disturbances=rest), *after) for rest in rests]
        for steps in without:
            shorter = replace(history, steps=steps)
            if fails(shorter):
                history = shorter
                break
    return history


def apply(edit: Edit, world: World, source: Source) -> None:
    """Make a change at the source."""
    world.advance(0.001)
    issues = sorted(world.all_current(), key=lambda issue: issue.id)
    if edit.kind == "create" or not issues:
        _create(world, source, list(world.projects)[edit.choice % len(world.projects)], edit.choice)
        return
    issue = issues[edit.choice % len(issues)]
    if edit.kind in _OF_MANY:
        _OF_MANY[edit.kind](world, source, issues, issue, edit.choice)
    elif "comment" in edit.kind:
        _of_comments(edit, world, source, issue)
    else:
        _of_one(edit, world, source, issue)


def _of_one(edit: Edit, world: World, source: Source, issue: Issue) -> None:
    choice = edit.choice
    match edit.kind:
        case "rename":
            world.edit(issue.id, title=f"{issue.title} ({choice})")
        case "status":
            world.edit(issue.id, bump=source.status_bumps, status=("open", "in_progress", "done")[choice % 3])
        case "delete":
            world.delete(issue.id)
        case "move" if source.moves and len(world.projects) > 1:
            others = [key for key in world.projects if key != issue.project]
            world.move(issue.id, others[choice % len(others)])
        case "work" if source.worklogs:
            world.log_work(issue.id, 60 * (1 + choice % 90))
        case _:
            pass


def _of_comments(edit: Edit, world: World, source: Source, issue: Issue) -> None:
    if edit.kind == "comment":
        world.comment(issue.id, f"Remark {edit.choice}.")
    elif issue.comments and source.comment_edits:
        comment = issue.comments[edit.choice % len(issue.comments)]
        if edit.kind == "edit_comment":
            world.edit_comment(issue.id, comment.id, f"Second thought {edit.choice}.")
        else:
            world.delete_comment(issue.id, comment.id)


def _create(world: World, source: Source, project: str, choice: int) -> None:
    world.create(project, hidden=source.hides and choice % 3 == 0)


def _create_many(world: World, source: Source, _issues: Sequence[Issue], issue: Issue, choice: int) -> None:
    for number in range(5 + choice % 4):
        _create(world, source, issue.project, choice + number)


def _change_many(world: World, _source: Source, issues: Sequence[Issue], issue: Issue, choice: int) -> None:
    for each in _neighbours(issues, issue, 9):
        world.edit(each.id, title=f"{each.title} [{choice}]")


def _comment_many(world: World, _source: Source, issues: Sequence[Issue], issue: Issue, choice: int) -> None:
    for each in _neighbours(issues, issue, 9):
        world.comment(each.id, f"Remark {choice} to all.")


def _delete_many(world: World, _source: Source, issues: Sequence[Issue], issue: Issue, choice: int) -> None:
    for each in _neighbours(issues, issue, 1 + choice % 3):
        world.delete(each.id)


_OF_MANY = {
    "create_many": _create_many,
    "change_many": _change_many,
    "comment_many": _comment_many,
    "delete_many": _delete_many,
}


def _neighbours(issues: Sequence[Issue], issue: Issue, most: int) -> list[Issue]:
    """An issue and those of its project that were made just before it; of the first ones those after it."""
    own = [each for each in issues if each.project == issue.project]
    return own[max(own.index(issue) + 1 - most, 0) :][:most]


@dataclass
class Disturber:
    """Does things while a sync is at work, at the n-th request from its start."""

    tracker: Tracker
    source: Source
    due: list[Disturbance]
    name: Callable[[Named], object]
    crash: Callable[[], object] = field(default=lambda: None)
    requests: int = 0
    walking: bool = False
    # Whether somebody retries the sync if it fails.
    patient: bool = False

    def __call__(self, _call: Call) -> None:
        self.requests += 1
        for each in [each for each in self.due if (each.walking, each.at) == (self.walking, self.requests)]:
            self.due.remove(each)
            self._do(each)

    def begin(self, *, walking: bool) -> None:
        """Count from here."""
        self.walking, self.requests = walking, 0

    def _do(self, disturbance: Disturbance) -> None:
        faults = self.tracker.faults
        match disturbance.kind:
            case "edit":
                apply(disturbance.edit, self.tracker.world, self.source)
            case "pass":
                self.tracker.world.advance(disturbance.seconds)
            case "fault":
                faults.append(Fault(kind=disturbance.fault, status=502))
            case "down":
                faults.append(Fault(kind="status", status=502, times=4))
            case "name":
                self.name(Named(disturbance.edit.choice))
            case "crash":
                asyncio.get_running_loop().call_soon(self.crash)
            case _:
                self.patient = disturbance.kind == "refuse and retry"
                faults.append(Fault(kind="status", status=401, body="{}"))


def tracker_of(history: History, source: Source) -> Tracker:
    """The tracker of a history, not running yet."""
    tracker = source.tracker(history.world(source))
    tracker.skew = history.skew
    if hasattr(tracker, "time_zone"):
        vars(tracker)["time_zone"] = history.zone
    return tracker
