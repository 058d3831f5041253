"""GitHub's lists while they change: whatever is created, edited or deleted meanwhile, nothing that exists is missed."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from local.trackers.github import GitHubTracker
from local.trackers.service import Call, Fault
from local.trackers.world import START, Issue, World, seeded
from shared.connectors._github_walk import fixed_page
from shared.connectors._http import Answer
from shared.connectors._protocol import Page, Part, PartKind
from shared.connectors.github import GitHubConnector, GitHubCredentials, GitHubSettings
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Record, Stream

MOST_PAGES = 400


class Walked:
    """What a whole walk brought."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.seen: dict[str, datetime | None] = {}
        self.gaps: list[str] = []
        self.pages = 0

    def add(self, connector: GitHubConnector, page: Page) -> None:
        for sent in page.records:
            record = connector.normalize(sent)
            self.records[record.external_id] = record
        self.seen |= dict(page.seen)
        self.gaps += [gap.detail for gap in page.gaps]
        self.pages += 1


@asynccontextmanager
async def connected(
    world: World, *, paging: str = "cursor", **settings: object
) -> AsyncIterator[tuple[GitHubTracker, Callable[[], GitHubConnector]]]:
    async with GitHubTracker(world) as tracker, httpx.AsyncClient() as client:
        tracker.cursors_from = {"cursor": 1, "late cursor": 2, "numbers": None}[paging]
        tracker.page_cap = 4

        def connect() -> GitHubConnector:
            credentials = GitHubCredentials(token=tracker.token)  # type: ignore[arg-type]
            return GitHubConnector(client, tracker.url, GitHubSettings(**settings), credentials)  # type: ignore[arg-type]

        yield tracker, connect


async def walk(connect: Callable[[], GitHubConnector], part: Part) -> Walked:
    """Read a part to its end, each page by a new connector and from a position that was stored as JSON."""
    walked = Walked()
    position: Mapping[str, Any] | None = None
    while walked.pages < MOST_PAGES:
        connector = connect()
        page = await connector.fetch(part, position)
        walked.add(connector, page)
        if page.next is None:
            return walked
        position = orjson.loads(orjson.dumps(page.next))
    raise AssertionError("The walk does not end")


def part(tracker: GitHubTracker, stream: Stream, key: str = "HARBOR", **values: Any) -> Part:
    return Part(**{"kind": PartKind.WINDOW, "stream": stream, "scope": str(tracker.repository(key).id), **values})


def ids(world: World, project: str = "HARBOR") -> set[str]:
    return {str(issue.id) for issue in world.all_current(project)}


def comment_ids(world: World, project: str = "HARBOR") -> set[str]:
    return {str(comment.id) for issue in world.all_current(project) for comment in issue.comments}


def in_one_second(count: int, *, around: int = 30) -> World:
    """Issues of which most were changed in the same second, as after an import or a change of labels in bulk."""
    world = World()
    world.add_project("HARBOR")
    for _ in range(around):
        world.advance(60)
        world.create("HARBOR")
    world.advance(60)
    for _ in range(count):
        world.create("HARBOR")
    for _ in range(around):
        world.advance(60)
        world.create("HARBOR")
    return world


def busy(world: World, *, deletes: bool = True) -> Callable[[Call], None]:
    """A tracker at work: before every request something is edited, created and deleted, old and new."""

    def work(_: Call) -> None:
        pick = world.random
        world.advance(pick.choice((0.2, 1, 3)))
        existing: list[Issue] = world.all_current("HARBOR")
        for issue in pick.sample(existing[: len(existing) // 2], 3):
            world.edit(issue.id, status=pick.choice(("open", "done")))
        world.comment(pick.choice(existing).id)
        world.create("HARBOR")
        if deletes:
            for issue in pick.sample(existing, 4):
                world.delete(issue.id)

    return work


async def test_first_reading_brings_every_issue_and_no_pull_request() -> None:
    world = seeded(460, comments=1)

    async with connected(world) as (tracker, connect):
        walked = await walk(connect, part(tracker, Stream.ISSUES))

        assert walked.records.keys() == ids(world)
        assert tracker.repository("HARBOR").pulls


async def test_since_includes_its_second_and_what_is_before_stays_away() -> None:
    world = seeded(120)
    world.advance(10.9)
    edited = world.edit(world.all_current("HARBOR")[7].id, status="done")

    async with connected(world) as (tracker, connect):
        at_once = await walk(connect, part(tracker, Stream.ISSUES, since=world.now))
        later = await walk(connect, part(tracker, Stream.ISSUES, since=world.now + timedelta(seconds=1)))

    assert at_once.records.keys() == {str(edited.id)}
    assert later.records == {}


@pytest.mark.parametrize("paging", ["cursor", "late cursor", "numbers"])
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_issues_edited_created_and_deleted_meanwhile_are_not_missed(paging: str, seed: int) -> None:
    world = seeded(900, projects=("HARBOR",), comments=0, seed=seed)
    before = ids(world)

    async with connected(world, paging=paging) as (tracker, connect):
        tracker.before_request = busy(world)
        walked = await walk(connect, part(tracker, Stream.ISSUES))
        tracker.before_request = None

    assert before & ids(world) <= walked.records.keys()
    stale = [
        issue.key
        for issue in world.all_current("HARBOR")
        if issue.updated < world.now - timedelta(seconds=4)
        and walked.records[str(issue.id)].source_updated_at != issue.updated.replace(microsecond=0)
    ]
    assert stale == []


@pytest.mark.parametrize("paging", ["cursor", "late cursor", "numbers"])
@pytest.mark.parametrize("quiet", [True, False], ids=["quiet", "busy"])
async def test_twelve_hundred_issues_in_one_second(paging: str, quiet: bool) -> None:
    world = in_one_second(1_200)
    before = ids(world)

    async with connected(world, paging=paging) as (tracker, connect):
        tracker.page_cap = 100
        if not quiet:
            tracker.before_request = busy(world)
        walked = await walk(connect, part(tracker, Stream.ISSUES))
        tracker.before_request = None

    assert before & ids(world) <= walked.records.keys()
    assert walked.pages < 60


async def test_older_issue_edited_while_a_full_second_is_walked_comes_as_it_is_now() -> None:
    world = in_one_second(700)
    older = world.all_current("HARBOR")[3]

    async with connected(world, paging="numbers") as (tracker, connect):

        def edit(_: Call) -> None:
            if tracker.count() == 5:
                world.advance(30)
                world.edit(older.id, title="Written anew")

        tracker.before_request = edit
        walked = await walk(connect, part(tracker, Stream.ISSUES, since=START + timedelta(minutes=31)))

    assert walked.records[str(older.id)].payload["title"] == "Written anew"


async def test_all_issues_in_the_present_second_come_to_an_end() -> None:
    world = in_one_second(450, around=0)

    async with connected(world, paging="numbers") as (tracker, connect):
        walked = await walk(connect, part(tracker, Stream.ISSUES, since=START))

    assert walked.records.keys() == ids(world)


async def test_refused_cursor_is_walked_around() -> None:
    world = in_one_second(350)

    async with connected(world) as (tracker, connect):
        tracker.faults.append(Fault("status", path="/issues", after=2, status=422))
        walked = await walk(connect, part(tracker, Stream.ISSUES))

    assert walked.records.keys() == ids(world)


async def test_deep_pages_are_reached_by_cursor_not_by_number() -> None:
    world = in_one_second(900)

    async with connected(world) as (tracker, connect), httpx.AsyncClient() as browser:
        by_number = await browser.get(
            f"{tracker.url}/repos/tidewater/harbor/issues",
            params={"page": 4},
            headers={"Authorization": f"Bearer {tracker.token}"},
        )
        walked = await walk(connect, part(tracker, Stream.ISSUES))

    assert by_number.status_code == 422
    assert walked.records.keys() == ids(world)


async def test_deep_pages_without_cursors_are_an_error_not_a_gap() -> None:
    world = in_one_second(900)

    async with connected(world, paging="late cursor") as (tracker, connect):
        tracker.cursors_from = 50
        with pytest.raises(SourceError) as refused:
            await walk(connect, part(tracker, Stream.ISSUES))

    assert (refused.value.trouble, refused.value.status) == (Trouble.BAD_REQUEST, 422)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_comments_written_edited_and_deleted_meanwhile_are_not_missed(seed: int) -> None:
    world = seeded(400, projects=("HARBOR",), comments=5, seed=seed)
    before = comment_ids(world)

    def chat(_: Call) -> None:
        world.advance(2)
        for issue in world.random.sample([each for each in world.all_current() if each.comments], 5):
            world.edit_comment(issue.id, world.random.choice(issue.comments).id, "On second thought.")
            world.delete_comment(issue.id, world.random.choice(issue.comments).id)
            world.comment(issue.id)

    async with connected(world) as (tracker, connect):
        tracker.before_request = chat
        walked = await walk(connect, part(tracker, Stream.COMMENTS))
        tracker.before_request = None

    assert before & comment_ids(world) <= walked.records.keys()


async def test_comment_edited_during_the_walk_comes_as_it_is_now() -> None:
    world = seeded(300, projects=("HARBOR",), comments=2)
    issue = next(each for each in world.all_current() if each.comments)
    comment = issue.comments[0]

    async with connected(world) as (tracker, connect):

        def edit(_: Call) -> None:
            if tracker.count() == 3:
                world.advance(5)
                world.edit_comment(issue.id, comment.id, "Corrected.")

        tracker.before_request = edit
        walked = await walk(connect, part(tracker, Stream.COMMENTS))

    assert walked.records[str(comment.id)].payload["body"] == "Corrected."


@pytest.mark.parametrize("quiet", [True, False], ids=["quiet", "busy"])
async def test_comments_of_a_bulk_change_in_one_second(quiet: bool) -> None:
    world = World()
    world.add_project("HARBOR")
    issues = [world.create("HARBOR") for _ in range(130)]
    world.advance(60)
    for number in range(520):
        world.comment(issues[number % 130].id)
    before = comment_ids(world)

    async with connected(world) as (tracker, connect):
        if not quiet:
            tracker.before_request = busy(world)
        walked = await walk(connect, part(tracker, Stream.COMMENTS))
        tracker.before_request = None

    assert before & comment_ids(world) <= walked.records.keys()


async def test_renaming_a_repository_during_the_walk_changes_names_only() -> None:
    world = seeded(450, projects=("HARBOR",), comments=0)

    async with connected(world) as (tracker, connect):

        def rename(_: Call) -> None:
            if tracker.count() == 3:
                tracker.rename("HARBOR", "tidewater/quay")

        tracker.before_request = rename
        walked = await walk(connect, part(tracker, Stream.ISSUES))

    assert walked.records.keys() == ids(world)
    assert {record.project for record in walked.records.values()} == {"tidewater/harbor", "tidewater/quay"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("stream", [Stream.ISSUES, Stream.COMMENTS])
async def test_census_names_everything_with_its_time(stream: Stream) -> None:
    world = seeded(260, projects=("HARBOR",))
    expected = ids(world) if stream is Stream.ISSUES else comment_ids(world)

    async with connected(world) as (tracker, connect):
        counted = await walk(connect, part(tracker, stream, kind=PartKind.CENSUS, since=world.now))

    assert counted.seen.keys() == expected
    assert counted.records.keys() == expected
    assert None not in counted.seen.values()


async def test_census_of_a_changing_repository_misses_nothing_that_stays() -> None:
    world = seeded(500, projects=("HARBOR",), comments=0)
    before = ids(world)

    async with connected(world) as (tracker, connect):
        tracker.before_request = busy(world)
        counted = await walk(connect, part(tracker, Stream.ISSUES, kind=PartKind.CENSUS))
        tracker.before_request = None

    assert before & ids(world) <= counted.seen.keys()


async def test_pull_requests_changed_behind_the_walk_are_read_again() -> None:
    world = seeded(2_600, projects=("HARBOR",), comments=0)

    async with connected(world) as (tracker, connect):
        pulls = tracker.repository("HARBOR").pulls
        for _ in range(180):
            world.advance(2)
            tracker.open_pull("HARBOR")

        def touch(_: Call) -> None:
            if tracker.count() in {2, 4}:
                world.advance(5)
                tracker.edit_pull(pulls[tracker.count()], merged=True)
                tracker.open_pull("HARBOR")

        tracker.before_request = touch
        walked = await walk(connect, part(tracker, Stream.PULL_REQUESTS))
        expected = {str(pull.id): "merged" if pull.merged else "open" for pull in pulls}

    assert {id_: record.state for id_, record in walked.records.items()} == expected  # type: ignore[attr-defined]


async def test_pull_requests_since_stop_at_the_first_older_page() -> None:
    world = seeded(2_600, projects=("HARBOR",), comments=0)

    async with connected(world) as (tracker, connect):
        world.advance(100)
        pull = tracker.repository("HARBOR").pulls[0]
        tracker.edit_pull(pull)
        walked = await walk(connect, part(tracker, Stream.PULL_REQUESTS, since=world.now))

        assert str(pull.id) in walked.records
        assert tracker.count("/pulls") == 1


async def test_late_push_of_an_older_commit_is_seen() -> None:
    world = seeded(10, projects=("HARBOR",))

    async with connected(world) as (tracker, connect):
        repository = tracker.repository("HARBOR")
        pushed = repository.push(world.users[0], world.now - timedelta(days=5), "Written on a journey")
        walked = await walk(connect, part(tracker, Stream.COMMITS, since=world.now))

    assert f"{repository.id}:{pushed.sha}" in walked.records


async def test_commits_are_walked_from_where_the_branch_stood() -> None:
    world = seeded(10, projects=("HARBOR",))

    async with connected(world) as (tracker, connect):
        repository = tracker.repository("HARBOR")
        for number in range(300):
            repository.push(world.users[0], world.now, f"Change {number}")
        before = {f"{repository.id}:{each.sha}" for each in repository.commits}

        def push(_: Call) -> None:
            repository.push(world.users[1], world.now, f"Meanwhile {tracker.count()}")

        tracker.before_request = push
        walked = await walk(connect, part(tracker, Stream.COMMITS))

    assert before <= walked.records.keys()
    assert tracker.count("/commits") == 5


async def test_forced_push_during_the_walk_hides_no_commit() -> None:
    world = seeded(10, projects=("HARBOR",))

    async with connected(world) as (tracker, connect):
        repository = tracker.repository("HARBOR")
        for number in range(300):
            repository.push(world.users[0], world.now, f"Change {number}")
        before = {f"{repository.id}:{each.sha}" for each in repository.commits}
        tracker.before_request = lambda _: repository.rewrite(7) if tracker.count("/commits") > 1 else None
        walked = await walk(connect, part(tracker, Stream.COMMITS))

    assert walked.records.keys() == before


async def test_followed_branches_are_read_one_after_another_and_missing_ones_told() -> None:
    world = seeded(10, projects=("HARBOR",))

    async with connected(world, branches=("main", "nowhere", "release/1.x", "gone")) as (tracker, connect):
        walked = await walk(connect, part(tracker, Stream.COMMITS))

    assert len(walked.records) == 30
    # A gap takes the place of the one before it in the same repository.
    assert walked.gaps[-1] == "There is no branch nowhere, gone"


async def test_empty_repository_has_no_commits_and_no_gap() -> None:
    world = seeded(10, projects=("HARBOR",))

    async with connected(world) as (tracker, connect):
        tracker.repository("HARBOR").commits.clear()
        walked = await walk(connect, part(tracker, Stream.COMMITS))

    assert (walked.records, walked.gaps) == ({}, [])


@pytest.mark.parametrize("branches", [(), ("main",)], ids=["default branch", "named branch"])
async def test_commits_of_a_repository_that_is_hidden_now_are_refused(branches: tuple[str, ...]) -> None:
    world = seeded(10, projects=("HARBOR",))

    async with connected(world, branches=branches) as (tracker, connect):
        tracker.refuse[f"/{tracker.repository('HARBOR').id}"] = "hidden"
        with pytest.raises(SourceError) as refused:
            await walk(connect, part(tracker, Stream.COMMITS))

    assert refused.value.trouble is Trouble.NOT_FOUND


async def test_branches_deleted_during_the_walk_hide_no_other() -> None:
    world = seeded(10, projects=("HARBOR",))

    async with connected(world) as (tracker, connect):
        branches = tracker.repository("HARBOR").branches
        branches |= {f"topic-{number:03}": branches["main"] for number in range(330)}

        def prune(_: Call) -> None:
            for name in world.random.sample(sorted(branches), 20):
                branches.pop(name)
            branches[f"anew-{tracker.count()}"] = "0" * 40

        branches_before = set(branches)
        tracker.before_request = prune
        walked = await walk(connect, part(tracker, Stream.BRANCHES, kind=PartKind.SNAPSHOT))

    read = {record.name for record in walked.records.values()}  # type: ignore[attr-defined]
    assert branches_before & set(branches) <= read


@pytest.mark.parametrize("seed", range(20))
async def test_numbered_pages_of_a_fixed_order_overlap_until_nothing_is_between(seed: int) -> None:
    pick = World(seed=seed).random
    rows = sorted(pick.sample(range(100_000), 700))
    before = set(rows)
    read: set[int] = set()

    async def get(path: str, params: Mapping[str, Any] | None) -> Answer:
        for gone in pick.sample(rows, min(len(rows), pick.choice((0, 3, 120)))):
            rows.remove(gone)
        rows.extend(pick.sample(range(100_000, 200_000), 2))
        rows.insert(0, -pick.randrange(10**9))
        rows.sort()
        number, size = (params or {}).get("page", 1), (params or {})["per_page"]
        chosen = rows[(number - 1) * size : number * size]
        link = {"next": {"url": "http://x/?page=2"}} if number * size < len(rows) else {}
        data = [{"id": each} for each in chosen]
        return Answer(status=200, headers=httpx.Headers(), data=data, read_at=START, url=path, links=link)

    position: Mapping[str, Any] | None = None
    while True:
        step = await fixed_page(get, "rows", {}, position)
        read |= {row["id"] for row in step.rows}
        if step.next is None:
            break
        position = step.next

    assert before & set(rows) <= read


async def test_preview_asks_for_no_more_than_it_shows() -> None:
    world = seeded(120)

    async with connected(world) as (tracker, connect):
        page = await connect().fetch(part(tracker, Stream.ISSUES), None, most=5)

        assert 0 < len(page.records) <= 5
        assert "per_page=5" in tracker.calls[-1].query
