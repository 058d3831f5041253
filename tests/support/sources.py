"""What the engine's tests have to know of each source: how to connect, and what its tracker can do and cannot show."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from local.trackers.known import tracker_of
from local.trackers.service import Tracker
from local.trackers.world import Issue, World
from shared.connectors import connectors


@dataclass(frozen=True)
class Source:
    """One source under test."""

    name: str
    settings: Mapping[str, Any]
    credentials: Callable[[Tracker], dict[str, Any]]
    # How late its lists show a change is close to what the connector allows for, so that to hold back less loses some.
    world: Mapping[str, Any] = field(default_factory=dict[str, Any])
    external_id: Callable[[Issue], str] = lambda issue: str(issue.id)
    title: Callable[[Issue], str] = lambda issue: issue.title
    # Whether the tracker has a third state between open and done.
    in_progress: bool = True
    comments: bool = True
    worklogs: bool = False
    moves: bool = False
    # Whether a change of status shows in the time of change; elsewhere only a census finds it.
    status_bumps: bool = True
    # Whether comments can be edited; ServiceNow's journal only grows.
    comment_edits: bool = True
    # Whether a deleted comment shows before the next census.
    comment_deletions: bool = True
    # Whether rows that the account may not see shorten the pages they are on.
    hides: bool = False

    # A server of another kind; fewer histories are tried with it.
    variant: str = ""
    prepare: Callable[[Tracker], object] = lambda tracker: None
    # Page sizes of the connector, made small so that little data has many pages: "module.NAME" → size.
    pages: Mapping[str, int] = field(default_factory=dict[str, int])
    # The sizes from which a first walk is divided, made small likewise.
    pieces: Mapping[str, int] = field(default_factory=dict[str, int])

    def tracker(self, world: World) -> Tracker:
        """The simulated tracker, not running yet."""
        tracker = tracker_of(self.name, world)
        self.prepare(tracker)
        return tracker

    @property
    def streams(self) -> list[str]:
        """Issues and what belongs to them, as far as the source has it."""
        return [each for each in ("issues", "comments", "worklogs") if each in connectors()[self.name].streams]

    @contextmanager
    def small_pages(self, *, divided: bool = False) -> Iterator[None]:
        """Make the connector ask for little at a time, and divide first walks if asked."""
        with ExitStack() as stack:
            for name, size in {**self.pages, **(self.pieces if divided else {})}.items():
                stack.enter_context(patch(f"shared.connectors.{name}", size))
            yield

    def category(self, issue: Issue) -> str:
        """The status category an issue should have here."""
        return issue.status if self.in_progress or issue.status != "in_progress" else "open"


def _token(tracker: Tracker) -> dict[str, Any]:
    return {"token": tracker.token}


SOURCES = {
    f"{each.name}-{each.variant}".rstrip("-"): each
    for each in (
        Source(
            "jira",
            {},
            lambda tracker: {"email": "ada@tidewater.example", "token": tracker.token},
            world={"index_lag": timedelta(seconds=280)},
            worklogs=True,
            moves=True,
            pages={"_jira_walk.PAGE": 4},
            pieces={"_jira_walk._PIECE": 4, "_jira_walk._SEAM_KEYS": 2},
        ),
        Source(
            "jira",
            {},
            lambda tracker: {"token": tracker.token},
            variant="datacenter",
            prepare=lambda tracker: setattr(tracker, "cloud", False),
            world={"index_lag": timedelta(seconds=280)},
            worklogs=True,
            moves=True,
            pages={"_jira_walk.PAGE": 4},
            pieces={"_jira_walk._PIECE": 4, "_jira_walk._SEAM_KEYS": 2},
        ),
        Source(
            "github",
            {},
            _token,
            comment_deletions=False,
            world={"index_lag": timedelta(seconds=50)},
            pages={"_github_walk.PAGE_SIZE": 5, "_github_walk._LEAST_PAGE_SIZE": 2},
        ),
        Source(
            "gitlab",
            {},
            _token,
            world={"note_throttle": timedelta(seconds=60), "index_lag": timedelta(seconds=50)},
            worklogs=True,
            pages={"_gitlab_walk.PAGE_SIZE": 4},
            pieces={"gitlab._ISSUES_PER_PIECE": 4},
        ),
        Source(
            "gitlab",
            {},
            _token,
            variant="old",
            prepare=lambda tracker: setattr(tracker, "keyset", False),
            world={"note_throttle": timedelta(seconds=60), "index_lag": timedelta(seconds=50)},
            worklogs=True,
            pages={"_gitlab_walk.PAGE_SIZE": 4},
            pieces={"gitlab._ISSUES_PER_PIECE": 4},
        ),
        Source(
            "servicenow",
            {"tables": ["incident", "problem"]},
            lambda tracker: {"username": "tributary.reader", "password": tracker.token},
            world={"index_lag": timedelta(seconds=50)},
            pages={"servicenow._ISSUES_A_PAGE": 4},
            pieces={"servicenow._MANY_ROWS": 4, "_servicenow_walk.ROWS_A_PAGE": 4},
            external_id=lambda issue: hashlib.md5(f"issue:{issue.id}".encode()).hexdigest(),
            comment_edits=False,
            comment_deletions=False,
            hides=True,
        ),
        Source(
            "sentry",
            {"organization": "tidewater"},
            _token,
            in_progress=False,
            title=lambda issue: f"Failure: {issue.title}",
            pages={"sentry.PAGE": 4},
            status_bumps=False,
            world={"note_throttle": timedelta.max, "index_lag": timedelta(minutes=9)},
        ),
    )
}


def new_world(source: Source, *, seed: int = 1, projects: tuple[str, ...] = ("HARBOR", "PETREL"), **more: Any) -> World:
    """A world with projects and nothing in them, as this source's tracker behaves."""
    world = World(seed=seed, **{**source.world, **more})
    for key in projects:
        world.add_project(key)
    return world
