"""Sentry: what windows do not show, and issues by name."""

from datetime import timedelta

import pytest

from local.trackers.service import Fault
from local.trackers.world import World
from shared.connectors._protocol import Absence, PartKind
from shared.connectors.sentry import PARTIAL_PAYLOAD_KEY
from shared.domain.errors import SourceError, Trouble
from shared.domain.issue import StatusCategory
from shared.domain.stream import Issue, Stream
from tests.support.sentry import connected, shown, two_projects
from tests.support.walking import issues_of, walk


@pytest.fixture
def world() -> World:
    return two_projects()


async def test_an_issue_resolved_without_a_new_event_is_seen_by_the_census_only(world: World) -> None:
    issue, other = world.create("HARBOR"), world.create("HARBOR")
    world.advance(86_400)
    since = world.now - timedelta(hours=1)
    world.edit(issue.id, bump=False, status="done")
    async with connected(world) as (tracker, connector):
        window = await walk(connector, issues_of(world, since=since))
        census = await walk(connector, issues_of(world, kind=PartKind.CENSUS))

        assert not tracker.count("/events/")
    assert not shown(window)
    assert [each for page in census for each in page.seen] == [
        (str(other.id), other.updated),
        (str(issue.id), issue.updated),
    ]
    sent = next(sent for sent in census[0].records if sent.raw["id"] == str(issue.id))
    assert sent.context == {"keep": ["stack_trace", "environment"], "keep_payload": ["latest_event"]}
    assert PARTIAL_PAYLOAD_KEY not in sent.raw
    assert connector.normalize(sent).model_dump()["status_category"] == StatusCategory.DONE


async def test_a_comment_without_a_new_event_comes_with_the_census(world: World) -> None:
    issue = world.create("HARBOR")
    world.advance(86_400)
    comment = world.comment(issue.id)
    async with connected(world) as (_, connector):
        window = await walk(connector, issues_of(world, since=world.now - timedelta(hours=1)))
        census = await walk(connector, issues_of(world, kind=PartKind.CENSUS))

    assert not shown(window)
    assert shown(census, Stream.COMMENTS) == {str(comment.id)}


async def test_a_regressed_issue_comes_with_the_window_of_its_event(world: World) -> None:
    issue = world.create("HARBOR")
    world.advance(600)
    world.edit(issue.id, bump=False, status="done")
    world.advance(600)
    world.edit(issue.id, status="open", body="It is back.")
    async with connected(world) as (_, connector):
        page = await connector.fetch(issues_of(world, since=world.now), None)

    record = connector.normalize(page.records[0])
    assert isinstance(record, Issue)
    assert (record.status, record.labels[0], record.description) == ("unresolved", "regressed", "It is back.")


async def test_the_same_issue_looks_the_same_from_list_and_from_its_own_address(world: World) -> None:
    world.advance(0.25)
    issue = world.edit(world.create("HARBOR").id, status="done")
    async with connected(world) as (_, connector):
        listed = await connector.fetch(issues_of(world), None)
        single = await connector.fetch(issues_of(world, kind=PartKind.KEYS, query={"ids": [str(issue.id)]}), None)
    records = [connector.normalize(page.records[0]).model_dump() for page in (listed, single)]

    assert records[0] == records[1]
    assert "stats" not in single.records[0].raw


async def test_named_issues_are_read_and_absent_ones_told(world: World) -> None:
    plain, deleted, hidden, merged, named, both = (world.create("HARBOR") for _ in range(6))
    world.comment(plain.id)
    world.delete(deleted.id)
    world.edit(hidden.id, hidden=True)
    query = {
        "ids": [str(each.id) for each in (plain, deleted, hidden, merged)],
        "keys": [named.key, "HARBOR-999"],
        "issues": [{"id": str(both.id), "key": both.key}],
    }
    async with connected(world) as (tracker, connector):
        tracker.merge(merged.id, plain.id)
        page = await connector.fetch(issues_of(world, kind=PartKind.KEYS, query=query), None)

    assert shown([page]) == {str(plain.id), str(named.id), str(both.id)}
    assert shown([page], Stream.COMMENTS) == {str(each.id) for each in world.current(plain.id).comments}  # type: ignore[union-attr]
    assert {(gone.external_id, gone.absence) for gone in page.gone} == {
        (str(deleted.id), Absence.DELETED_OR_HIDDEN),
        (str(hidden.id), Absence.DELETED_OR_HIDDEN),
        (str(merged.id), Absence.DELETED),
        ("HARBOR-999", Absence.DELETED_OR_HIDDEN),
    }
    assert page.next is None


async def test_a_merged_issue_that_does_not_lead_on_is_gone(world: World) -> None:
    child, parent = world.create("HARBOR"), world.create("HARBOR")
    async with connected(world) as (tracker, connector):
        tracker.merge(child.id, parent.id)
        tracker.follows_merged = False
        page = await connector.fetch(issues_of(world, kind=PartKind.KEYS, query={"ids": [str(child.id)]}), None)

    assert [gone.absence for gone in page.gone] == [Absence.DELETED_OR_HIDDEN]


async def test_a_hidden_organization_is_an_error_and_not_twenty_deletions(world: World) -> None:
    issue = world.create("HARBOR")
    async with connected(world) as (tracker, connector):
        tracker.organization = "renamed"
        with pytest.raises(SourceError) as caught:
            await connector.fetch(issues_of(world, kind=PartKind.KEYS, query={"ids": [str(issue.id)]}), None)

    assert caught.value.trouble is Trouble.NOT_FOUND


async def test_a_refused_issue_is_a_gap_and_an_empty_answer_is_no_deletion(world: World) -> None:
    first, second = world.create("HARBOR"), world.create("HARBOR")
    query = {"ids": [str(first.id), str(second.id)]}
    async with connected(world) as (tracker, connector):
        tracker.faults.append(Fault("status", status=403, path=f"/issues/{first.id}/", body="{}"))
        page = await connector.fetch(issues_of(world, kind=PartKind.KEYS, query=query), None)
        tracker.faults.append(Fault("status", status=200, path=f"/issues/{first.id}/", body="", times=9))
        with pytest.raises(SourceError) as caught:
            await connector.fetch(issues_of(world, kind=PartKind.KEYS, query=query), None)

    assert shown([page]) == {str(second.id)}
    assert [gap.trouble for gap in page.gaps] == [Trouble.PERMISSION_DENIED]
    assert caught.value.trouble is Trouble.PAYLOAD_INVALID
