"""ServiceNow over a simulated instance: refusals, log-ins, and walks while it hides, changes and breaks off."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from local.trackers._servicenow_tables import sys_id
from local.trackers.service import Call, Fault
from local.trackers.servicenow import ACCOUNT, CLIENT, ServiceNowTracker
from local.trackers.world import World, seeded
from shared.connectors._protocol import Absence, Gone, Page, Part, PartKind, Sent
from shared.connectors.servicenow import ServiceNowConnector
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import Stream

Settings, Credentials = ServiceNowConnector.Settings, ServiceNowConnector.Credentials


def connector_of(
    client: httpx.AsyncClient, tracker: ServiceNowTracker, credentials: dict[str, str] | None = None, **values: Any
) -> ServiceNowConnector:
    given_ = credentials or {"username": ACCOUNT, "password": tracker.token}
    return ServiceNowConnector(client, tracker.url, Settings(**values), Credentials(**given_))


@asynccontextmanager
async def instance(world: World, **values: Any) -> AsyncIterator[tuple[ServiceNowTracker, ServiceNowConnector]]:
    async with ServiceNowTracker(world) as tracker, httpx.AsyncClient() as client:
        yield tracker, connector_of(client, tracker, **values)


def a_part(stream: Stream = Stream.ISSUES, scope: str = "incident", **values: Any) -> Part:
    return Part(stream=stream, scope=scope, **{"kind": PartKind.WINDOW, **values})


async def walk(connector: ServiceNowConnector, part: Part, *, most: int | None = None) -> list[Page]:
    """Every page, each from a position that went through JSON."""
    pages: list[Page] = []
    position = None
    while not pages or position:
        pages.append(await connector.fetch(part, position, most=most))
        position = json.loads(json.dumps(pages[-1].next))
    return pages


def ids_in(pages: list[Page]) -> set[str]:
    return {connector_id(sent) for page in pages for sent in page.records}


def connector_id(sent: Sent) -> str:
    held = sent.raw["sys_id"]
    return held["value"] if isinstance(held, dict) else held


def ids_of(world: World, project: str = "HARBOR", *, hidden: bool = False) -> set[str]:
    return {sys_id("issue", issue.id) for issue in world.all_current(project) if issue.hidden == hidden}


# Refusals


_IN_2031 = str(int(datetime(2031, 1, 1, tzinfo=UTC).timestamp()))
_CANCELLED = '{"result":[],"error":{"message":"Transaction cancelled","detail":"x"},"status":"failure"}'
_CANCELLED_500 = '{"error":{"message":"Transaction cancelled: maximum execution time exceeded","detail":null}}'
_FAULTS = {
    "limited": {"kind": "limited", "seconds": 1_800},
    "reset only": {"status": 429, "body": "{}", "headers": {"X-RateLimit-Limit": "9", "X-RateLimit-Reset": _IN_2031}},
    "sleeping": {"kind": "maintenance"},
    "cut": {"kind": "truncated"},
    "error in 200": {"status": 200, "body": _CANCELLED},
    "rows in 200": {"status": 200, "body": '{"result":["row"]}'},
    "no count": {"status": 200, "body": '{"result":[]}'},
    "no result": {"status": 200, "body": "[]"},
    "no instance": {"status": 404, "body": "<html>", "headers": {"Content-Type": "text/html"}},
    "cancelled": {"status": 500, "body": _CANCELLED_500},
    "reset": {"kind": "reset"},
}


def refuses(tracker: ServiceNowTracker, what: str) -> None:
    match what:
        case "password":
            tracker.token = "another"
        case "mfa":
            tracker.mfa = True
        case "acl":
            tracker.refused.add("incident")
        case _:
            fault: dict[str, Any] = _FAULTS.get(what) or {"status": int(what), "body": "<html>"}
            tracker.faults.append(Fault(**{"kind": "status", "times": 9, **fault}))


@pytest.mark.parametrize(
    ("what", "trouble"),
    [
        ("password", Trouble.AUTH_INVALID),
        ("mfa", Trouble.AUTH_INVALID),
        ("acl", Trouble.PERMISSION_DENIED),
        ("limited", Trouble.RATE_LIMIT),
        ("reset only", Trouble.RATE_LIMIT),
        ("sleeping", Trouble.MAINTENANCE),
        ("cut", Trouble.PAYLOAD_INVALID),
        ("error in 200", Trouble.PAYLOAD_INVALID),
        ("rows in 200", Trouble.PAYLOAD_INVALID),
        ("no result", Trouble.PAYLOAD_INVALID),
        ("no count", Trouble.PAYLOAD_INVALID),
        ("no instance", Trouble.AUTH_INVALID),
        ("cancelled", Trouble.TIMEOUT),
        ("400", Trouble.BAD_REQUEST),
        ("404", Trouble.NOT_FOUND),
        ("500", Trouble.SERVER_ERROR),
        ("502", Trouble.SERVER_ERROR),
        ("503", Trouble.MAINTENANCE),
        ("reset", Trouble.NETWORK_GLITCH),
    ],
)
async def test_refusal_is_classified(what: str, trouble: Trouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.connectors._servicenow_walk.FEWEST_ROWS", 500)
    monkeypatch.setattr("shared.connectors._http.wait_random_exponential", lambda **_: lambda _: 0)
    async with instance(seeded(4)) as (tracker, connector):
        refuses(tracker, what)

        with pytest.raises(SourceError) as raised:
            await connector.fetch(a_part(), None)

    assert raised.value.trouble is trouble
    assert (raised.value.retry_at is not None) == (trouble is Trouble.RATE_LIMIT)
    assert tracker.token not in raised.value.detail
    if what == "limited":
        assert connector.quota
        assert connector.quota.limit == 100
    if what == "mfa":
        assert "second factor" in raised.value.detail


async def test_unknown_table_is_a_gap_and_the_others_go_on() -> None:
    async with instance(seeded(4), tables=("incident", "u_gone", "problem")) as (tracker, connector):
        tracker.refused |= {"problem", "sys_user"}

        scopes, gaps = await connector.scopes()

    assert [scope.id for scope in scopes] == ["incident"]
    assert {(gap.stream, gap.scope, gap.trouble) for gap in gaps} == {
        (Stream.ISSUES, "u_gone", Trouble.NOT_FOUND),
        (Stream.COMMENTS, "u_gone", Trouble.NOT_FOUND),
        (Stream.ISSUES, "problem", Trouble.PERMISSION_DENIED),
        (Stream.COMMENTS, "problem", Trouble.PERMISSION_DENIED),
        (Stream.USERS, "*", Trouble.PERMISSION_DENIED),
    }


async def test_the_clock_is_read_from_a_table_that_is_there() -> None:
    async with instance(seeded(4), tables=("u_gone", "problem", "incident")) as (tracker, connector):
        tracker.refused.add("problem")
        assert await connector.now() == tracker.world.now
        tracker.refused.add("incident")
        with pytest.raises(SourceError) as refused:
            await connector.now()

    assert refused.value.trouble is Trouble.PERMISSION_DENIED


# Log-in


@pytest.mark.parametrize("user", [{}, {"username": ACCOUNT, "password": "valid-token"}], ids=["client", "user"])
async def test_token_is_held_until_it_ends(user: dict[str, str]) -> None:
    async with ServiceNowTracker(seeded(4)) as tracker, httpx.AsyncClient() as client:
        oauth = {"client_id": CLIENT, "client_secret": tracker.token, **user}
        connector = connector_of(client, tracker, oauth)

        await connector.check()
        assert tracker.count("oauth_token") == 1
        tracker.world.advance(tracker.token_seconds + 1)
        await connector.now()
        tracker.tokens.clear()
        tracker.expired = True
        await connector.now()

    assert tracker.count("oauth_token") == 3
    assert connector.requests == len(tracker.calls)


async def test_wrong_client_is_told_from_a_wrong_address() -> None:
    async with ServiceNowTracker(seeded(4)) as tracker, httpx.AsyncClient() as client:
        connector = connector_of(client, tracker, {"client_id": CLIENT, "client_secret": "wrong"})

        with pytest.raises(SourceError, match="gives no token") as raised:
            await connector.check()

    assert raised.value.trouble is Trouble.AUTH_INVALID


async def test_check_tells_what_will_be_missing() -> None:
    async with instance(seeded(10), query="active=true") as (tracker, connector):
        tracker.refused |= {"sys_audit_delete"}
        tracker.hidden_tables |= {"sys_journal_field"}
        tracker.time_zone = "Asia/Tokyo"

        probe = await connector.check()

    assert probe.account == f"Tributary Reader ({ACCOUNT})"
    assert probe.time_zone == "Asia/Tokyo"
    assert probe.missing == ("sys_audit_delete: deletions are found by the census only",)
    assert any("sys_journal_field" in warning for warning in probe.warnings)
    assert any("Asia/Tokyo" in warning for warning in probe.warnings)
    assert probe.server_time == tracker.world.now.replace(microsecond=0)
    assert probe.counts["incident"] > 0


async def test_a_mapping_to_a_field_that_no_table_has_is_refused() -> None:
    async with instance(seeded(10), fields={"severity": "u_severty", "project": "assignment_group"}) as (_, connector):
        with pytest.raises(SourceError, match="u_severty, which") as checked:
            await connector.check()
        with pytest.raises(SourceError, match="u_severty, which"):
            await connector.scopes()

    assert checked.value.trouble is Trouble.BAD_REQUEST


async def test_a_mapped_field_of_one_table_is_enough_and_no_rows_say_nothing() -> None:
    async with instance(seeded(10), fields={"resolution": "close_code"}, tables=("incident", "sc_task")) as (_, known):
        scopes, _ = await known.scopes()
    async with instance(World(), fields={"severity": "u_severty"}) as (tracker, unknown):
        tracker.world.add_project("HARBOR")
        probe = await unknown.check()

    assert [scope.id for scope in scopes] == ["incident", "sc_task"]
    assert probe.counts == {"incident": 0}


async def test_discovery_lists_task_tables_and_people() -> None:
    async with instance(seeded(4)) as (tracker, connector):
        tracker.children = {"incident": "u_incident_store"}

        tables = await connector.discover("projects")
        users = await connector.discover("users")

    assert {"incident", "u_incident_store", "sc_task"} <= {choice.id for choice in tables}
    assert len(users) == len(tracker.world.users) + 1
    assert await connector.discover("boards") == []


# Walks


async def test_every_row_comes_once_through_json_positions() -> None:
    world = seeded(300)
    async with instance(world) as (tracker, connector):
        pages = await walk(connector, a_part(), most=20)

    assert ids_in(pages) == ids_of(world)
    assert sum(len(page.records) for page in pages) == len(ids_of(world))
    assert not any("sysparm_offset" in call.query for call in tracker.calls)


async def test_short_pages_of_row_rights_are_not_the_end() -> None:
    world = seeded(400)
    for issue in world.all_current("HARBOR"):
        if issue.number % 3:
            world.edit(issue.id, hidden=True)
    async with instance(world) as (_, connector):
        pages = await walk(connector, a_part(), most=20)

    assert all(len(page.records) < 20 for page in pages)
    assert ids_in(pages) == ids_of(world)


@pytest.mark.parametrize("seen", [0, 3, 30])
async def test_pages_hidden_as_a_whole_are_passed(seen: int) -> None:
    world = seeded(1_500, projects=("HARBOR",), comments=0)
    in_order = sorted(world.all_current(), key=lambda issue: sys_id("issue", issue.id))
    for issue in in_order[10 if seen else 0 : len(in_order) - seen]:
        world.edit(issue.id, hidden=True)
    async with instance(world) as (tracker, connector):
        pages = await walk(connector, a_part(), most=50)

    assert ids_in(pages) == ids_of(world)
    assert len(ids_in(pages)) == (10 + seen if seen else 0)
    assert not pages[3].records
    assert tracker.count("incident") < 4 * 1_500 / 50


async def test_hidden_rows_that_go_away_shift_nothing() -> None:
    world = seeded(600, projects=("HARBOR",), comments=0)
    in_order = sorted(world.all_current(), key=lambda issue: sys_id("issue", issue.id))
    for issue in in_order[:400]:
        world.edit(issue.id, hidden=True)
    doomed = iter(in_order[:400])
    async with instance(world) as (tracker, connector):
        tracker.before_request = lambda _: [world.delete(next(doomed).id) for _ in range(5)]
        pages = await walk(connector, a_part(), most=40)

    assert ids_in(pages) == ids_of(world)


async def test_a_thousand_rows_of_one_second_all_come() -> None:
    world = World()
    world.add_project("HARBOR")
    for _ in range(1_200):
        world.create("HARBOR")
    async with instance(world) as (_, connector):
        pages = await walk(connector, a_part(since=world.now))

    assert ids_in(pages) == ids_of(world)
    assert len(ids_of(world)) == 1_200


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_that_stays_is_missed_while_everything_moves(seed: int) -> None:
    world = seeded(240, seed=seed)
    since = world.now
    for issue in world.all_current()[:160]:
        world.edit(issue.id, title="Touched", hidden=issue.number % 4 == 0)
    stays = {sys_id("issue", issue.id) for issue in world.all_current("HARBOR")[:80] if not issue.hidden}

    def disturb(_: Call) -> None:
        world.advance(1)
        pick = world.random
        for issue in pick.sample(world.all_current("HARBOR"), 6):
            if sys_id("issue", issue.id) in stays:
                world.edit(issue.id, status=pick.choice(("open", "done")))
            elif pick.random() < 0.5:
                world.delete(issue.id)
        world.create("HARBOR")

    async with instance(world) as (tracker, connector):
        tracker.before_request = disturb
        pages = await walk(connector, a_part(since=since), most=9)

    assert stays <= ids_in(pages)


async def test_walk_goes_on_with_fewer_rows_after_a_broken_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.connectors._http.wait_random_exponential", lambda **_: lambda _: 0)
    world = seeded(1_000, comments=0)
    async with instance(world) as (tracker, connector):
        tracker.most_rows = 150
        pages = await walk(connector, a_part())

    assert ids_in(pages) == ids_of(world)
    assert pages[0].next
    assert pages[0].next["limit"] == 125
    # Three tries each with 500 and 250 rows; then no more.
    assert tracker.count("incident") == 6 + len(pages)


async def test_large_tables_are_split_into_ranges_of_ids() -> None:
    world = seeded(5_100, projects=("HARBOR",), comments=0)
    async with instance(world) as (tracker, connector):
        parts = await connector.split(a_part())
        calls = len(tracker.calls)
        kept = await connector.split(a_part(since=world.now))
        sizes = [len(ids_in(await walk(connector, part))) for part in parts]

    assert len(parts) == 4
    assert sum(sizes) == 5_100
    assert min(sizes) > 1_000
    assert len(kept) == 1
    assert calls == 1


async def test_census_lists_everything_cheaply() -> None:
    world = seeded(60)
    async with instance(world) as (tracker, connector):
        pages = await walk(connector, a_part(kind=PartKind.CENSUS))

    updated = {sys_id("issue", issue.id): issue.updated for issue in world.all_current("HARBOR")}
    assert dict(pages[0].seen) == {each: at.replace(microsecond=0) for each, at in updated.items()}
    assert not any(page.records for page in pages)
    assert len(tracker.calls) == 1


# Time zones


@pytest.mark.parametrize("in_utc", [False, True], ids=["read in the zone", "read in UTC"])
@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Asia/Tokyo", "UTC", "Europe/Berlin"])
async def test_window_starts_where_it_should_in_every_zone(zone: str, in_utc: bool) -> None:
    world = World()
    world.add_project("HARBOR")
    for _ in range(60):
        world.advance(3_600)
        world.create("HARBOR")
    since = sorted(issue.updated for issue in world.all_current())[30]
    async with instance(world) as (tracker, connector):
        tracker.time_zone, tracker.literals_in_utc = zone, in_utc
        pages = await walk(connector, a_part(since=since))

    wanted = {sys_id("issue", issue.id) for issue in world.all_current() if issue.updated >= since}
    assert ids_in(pages) == wanted


async def test_a_zone_that_changes_while_the_worker_lives_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.connectors._servicenow_instance._SECONDS_A_ZONE_IS_KEPT", 0)
    world = seeded(20)
    async with instance(world) as (tracker, connector):
        await walk(connector, a_part(since=world.now))
        tracker.time_zone = "America/Los_Angeles"
        edited = world.edit(world.all_current("HARBOR")[0].id, title="Later")
        pages = await walk(connector, a_part(since=edited.updated))

    assert sys_id("issue", edited.id) in ids_in(pages)


@pytest.mark.parametrize("hour", ["2024-03-31 00:30:00", "2024-10-27 00:30:00", "2024-10-27 01:30:00"])
async def test_hours_of_changing_clocks_lose_nothing(hour: str) -> None:
    since = datetime.fromisoformat(hour).replace(tzinfo=UTC)
    world = World(now=since - timedelta(hours=6))
    world.add_project("HARBOR")
    for _ in range(72):
        world.advance(600)
        world.create("HARBOR")
    async with instance(world) as (tracker, connector):
        tracker.time_zone = "Europe/Berlin"
        pages = await walk(connector, a_part(since=since))

    wanted = {sys_id("issue", issue.id) for issue in world.all_current() if issue.updated >= since}
    assert wanted <= ids_in(pages)
    assert len(ids_in(pages)) <= len(wanted) + 12


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Asia/Tokyo"])
async def test_unknown_zone_reads_too_much_rather_than_too_little(zone: str) -> None:
    world = seeded(60, projects=("HARBOR",))
    since = sorted(issue.updated for issue in world.all_current())[30]
    async with instance(world) as (tracker, connector):
        tracker.time_zone, tracker.shown_zone = zone, ""
        tracker.refused.add("sys_properties")
        pages = await walk(connector, a_part(since=since))
        probe = await connector.check()

    assert {sys_id("issue", i.id) for i in world.all_current() if i.updated >= since} <= ids_in(pages)
    assert probe.time_zone is None
    assert any("any zone" in warning for warning in probe.warnings)


# Deletions


async def test_deletions_come_at_the_end_of_a_window() -> None:
    world = seeded(40)
    gone, before = world.all_current("HARBOR")[:2]
    world.delete(before.id)
    world.advance(3_600)
    since = world.now
    world.advance(5)
    world.delete(gone.id)
    async with instance(world) as (_, connector):
        page = (await walk(connector, a_part(since=since)))[-1]
        first = await walk(connector, a_part())

    assert list(page.gone) == [Gone(Stream.ISSUES, sys_id("issue", gone.id), Absence.DELETED)]
    assert not page.gaps
    assert not any(each.gone for each in first)


@pytest.mark.parametrize("how", ["refused", "hidden"])
async def test_deletions_that_may_not_be_read_are_a_gap(how: str) -> None:
    world = seeded(40)
    since = world.now
    world.edit(world.all_current("HARBOR")[1].id, title="Still here")
    world.delete(world.all_current("HARBOR")[0].id)
    async with instance(world) as (tracker, connector):
        (tracker.refused if how == "refused" else tracker.hidden_tables).add("sys_audit_delete")
        page = await connector.fetch(a_part(since=since), None)

    assert (len(page.records), page.next, list(page.gone)) == (1, None, [])
    assert [(gap.stream, gap.scope, gap.trouble) for gap in page.gaps] == [
        (Stream.ISSUES, "incident:deletions", Trouble.PERMISSION_DENIED)
    ]


async def test_more_deletions_than_fit_a_page_are_walked() -> None:
    world = seeded(2_600, projects=("HARBOR",), comments=0)
    since = world.now
    doomed = world.all_current()[:1_300]
    for issue in doomed:
        world.delete(issue.id)
    async with instance(world) as (_, connector):
        pages = await walk(connector, a_part(since=since))

    assert {each.external_id for page in pages for each in page.gone} == {sys_id("issue", i.id) for i in doomed}


async def test_restored_record_is_not_gone() -> None:
    world = seeded(40)
    since = world.now
    issue = world.all_current("HARBOR")[0]
    world.deletions.append((issue.id, world.now))
    async with instance(world) as (_, connector):
        page = await connector.fetch(a_part(since=since), None)

    assert list(page.gone) == []


# Comments, filters, children


async def test_journal_is_walked_by_table() -> None:
    world = seeded(200)
    note = world.comment(world.all_current("HARBOR")[0].id, "Seen in the log", internal=True)
    async with instance(world) as (_, connector):
        pages = await walk(connector, a_part(Stream.COMMENTS), most=50)
        comments: list[Any] = [connector.normalize(sent) for page in pages for sent in page.records]

    wanted = {sys_id("journal", c.id) for issue in world.all_current("HARBOR") for c in issue.comments}
    assert {comment.external_id for comment in comments} == wanted
    assert [comment.body for comment in comments if comment.internal] == [note.body]
    assert {comment.issue_id for comment in comments} <= ids_of(world)


async def test_journal_of_tables_that_extend_the_chosen_one_comes_too() -> None:
    world = seeded(200)
    async with instance(world) as (tracker, connector):
        tracker.children = {"incident": "u_incident_store"}
        pages = await walk(connector, a_part(Stream.COMMENTS))
        issues = await walk(connector, a_part())

    wanted = {sys_id("journal", c.id) for issue in world.all_current("HARBOR") for c in issue.comments}
    assert ids_in(pages) == wanted
    assert ids_in(issues) == ids_of(world)
    assert {connector.normalize(sent).type for page in issues for sent in page.records} == {"Incident", "Store"}


async def test_journal_filed_under_the_parent_table_comes_with_the_issues_it_is_about() -> None:
    world = seeded(200)
    for issue in world.all_current("PETREL"):
        world.comment(issue.id)
    async with instance(world) as (tracker, connector):
        tracker.files_under_task = True
        pages = await walk(connector, a_part(Stream.COMMENTS))

    comments = [each for issue in world.all_current("HARBOR") for each in issue.comments]
    assert any(each.id % 2 for each in comments)
    assert ids_in(pages) == {sys_id("journal", each.id) for each in comments}


async def test_child_table_beside_its_parent_is_refused() -> None:
    async with instance(seeded(4), tables=("incident", "u_incident_store")) as (tracker, connector):
        tracker.children = {"incident": "u_incident_store"}
        with pytest.raises(SourceError, match="rows of incident as well"):
            await connector.scopes()


async def test_filter_chooses_issues_and_their_whole_threads() -> None:
    world = seeded(300)
    chosen = [issue for issue in world.all_current("HARBOR") if issue.priority == "Highest"]
    async with instance(world, query="priority=1") as (_, connector):
        await connector.scopes()
        issues = await walk(connector, a_part())
        pages = await walk(connector, a_part(Stream.COMMENTS), most=20)

    assert ids_in(issues) == {sys_id("issue", issue.id) for issue in chosen}
    complete = {each.issue_id: each.ids for page in pages for each in page.complete}
    assert complete == {
        sys_id("issue", issue.id): frozenset(sys_id("journal", each.id) for each in issue.comments) for issue in chosen
    }
    assert ids_in(pages) == frozenset().union(*complete.values())


@pytest.mark.parametrize("query", ["prioritty=1", "active=true^ORu_team=x", "assigned_to.nme=Iva", "state.name=x"])
async def test_filter_that_would_be_ignored_is_refused(query: str) -> None:
    async with instance(seeded(4), query=query) as (_, connector):
        with pytest.raises(SourceError, match="has no column") as raised:
            await connector.scopes()

    assert raised.value.trouble is Trouble.BAD_REQUEST


async def test_filter_over_references_and_inherited_columns_is_fine() -> None:
    async with instance(seeded(4), query="assigned_to.name=Iva Brandt^close_codeISEMPTY^sys_created_onISNOTEMPTY") as (
        _,
        connector,
    ):
        scopes, gaps = await connector.scopes()

    assert (len(scopes), gaps) == (1, [])


async def test_query_that_the_account_may_not_ask_is_noticed() -> None:
    async with instance(seeded(60)) as (tracker, connector):
        tracker.no_range = frozenset({"sys_id"})
        with pytest.raises(SourceError, match="ignored the range and order") as by_id:
            await walk(connector, a_part(), most=10)
        tracker.no_range = frozenset({"sys_updated_on"})
        with pytest.raises(SourceError, match="ignored the time") as by_time:
            await connector.fetch(a_part(since=tracker.world.now), None)

    assert {by_id.value.trouble, by_time.value.trouble} == {Trouble.PERMISSION_DENIED}


async def test_users_are_walked_by_time_of_change() -> None:
    async with instance(seeded(4)) as (tracker, connector):
        everybody = await walk(connector, a_part(Stream.USERS, "*"))
        later = await walk(connector, a_part(Stream.USERS, "*", since=tracker.world.now - timedelta(days=394)))

    assert len(ids_in(everybody)) == len(tracker.world.users) + 1
    assert 0 < len(ids_in(later)) < len(ids_in(everybody))


# Named records


async def test_named_issues_come_with_their_threads() -> None:
    world = seeded(40)
    first, second, third, lost, hidden = world.all_current("HARBOR")[:5]
    world.delete(lost.id)
    world.edit(hidden.id, hidden=True)
    query = {
        "ids": [sys_id("issue", first.id), sys_id("issue", hidden.id)],
        "keys": [f"INC{second.number:07d}", "INC9999999", "x^active=true", "a,b"],
        "issues": [
            {"id": sys_id("issue", third.id), "key": "INC1"},
            {"id": sys_id("issue", lost.id), "key": f"INC{lost.number:07d}"},
        ],
    }
    async with instance(world) as (_, connector):
        page = await connector.fetch(a_part(kind=PartKind.KEYS, query=query), None)

    issues = [sent for sent in page.records if sent.stream is Stream.ISSUES]
    assert {connector_id(sent) for sent in issues} == {sys_id("issue", each.id) for each in (first, second, third)}
    assert {each.external_id for each in page.gone} == {
        *(sys_id("issue", each.id) for each in (lost, hidden)),
        *("INC9999999", "x^active=true", "a,b"),
    }
    assert {each.absence for each in page.gone} == {Absence.DELETED_OR_HIDDEN}
    assert {each.issue_id: len(each.ids) for each in page.complete} == {
        sys_id("issue", each.id): len(each.comments) for each in (first, second, third)
    }


async def test_named_issue_outside_the_filter_has_moved() -> None:
    world = seeded(40)
    inside, outside = world.all_current("HARBOR")[:2]
    world.edit(inside.id, status="open")
    world.edit(outside.id, status="done")
    ids = [sys_id("issue", each.id) for each in (inside, outside)]
    async with instance(world, query="active=true") as (_, connector):
        page = await connector.fetch(a_part(kind=PartKind.KEYS, query={"ids": [*ids, "0" * 32]}), None)

    assert [sent.stream for sent in page.records].count(Stream.ISSUES) == 1
    assert {each.external_id: each.absence for each in page.gone} == {
        ids[1]: Absence.MOVED,
        "0" * 32: Absence.DELETED_OR_HIDDEN,
    }


async def test_only_senseless_names_bring_nothing() -> None:
    async with instance(seeded(10)) as (_, connector):
        page = await connector.fetch(a_part(kind=PartKind.KEYS, query={"keys": ["^", ""]}), None)

    assert not page.records
    assert len(page.gone) == 2


async def test_named_issue_comes_without_a_journal_that_is_refused() -> None:
    world = seeded(10)
    issue = world.all_current("HARBOR")[0]
    async with instance(world) as (tracker, connector):
        tracker.refused.add("sys_journal_field")
        part = a_part(kind=PartKind.KEYS, query={"ids": [sys_id("issue", issue.id)]})
        page = await connector.fetch(part, None)

    assert (len(page.records), list(page.complete)) == (1, [])
    assert [(gap.stream, gap.scope) for gap in page.gaps] == [(Stream.COMMENTS, "incident")]


async def test_thread_that_may_be_partly_hidden_is_not_called_complete() -> None:
    world = seeded(10)
    issue = next(issue for issue in world.all_current("HARBOR") if issue.comments)
    query = {"ids": [sys_id("issue", issue.id)]}
    async with instance(world) as (tracker, connector):
        tracker.hidden_tables.add("sys_journal_field")
        page = await connector.fetch(a_part(kind=PartKind.KEYS, query=query), None)

    assert (len(page.records), list(page.complete)) == (1, [])


async def test_streams_that_are_not_chosen_stay_away() -> None:
    world = seeded(10)
    ids = [sys_id("issue", issue.id) for issue in world.all_current("HARBOR")]
    async with instance(world, streams=(Stream.ISSUES,)) as (tracker, connector):
        tracker.refused |= {"sys_journal_field", "sys_user"}
        page = await connector.fetch(a_part(kind=PartKind.KEYS, query={"ids": ids}), None)
        _, gaps = await connector.scopes()

    assert {sent.stream for sent in page.records} == {Stream.ISSUES}
    assert (list(page.gaps), gaps) == ([], [])


async def test_thread_does_not_travel_inside_the_issue() -> None:
    async with instance(seeded(10)) as (_, connector):
        page = await connector.fetch(a_part(), None)

    assert not {"comments", "work_notes", "comments_and_work_notes"} & page.records[0].raw.keys()
