"""Syncs of simulated trackers through the public API, by the real orchestrator, in processes of their own."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.local_stack import eventually, running_stack
from tests.support.outside import Outside
from tests.support.trackers import Told, control, running_trackers

ISSUES = 120


@pytest.fixture(scope="module")
def trackers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Told]]:
    """Every simulated tracker, and how to connect to it."""
    with running_trackers(tmp_path_factory.mktemp("trackers"), issues=ISSUES) as told:
        yield told


def connect(outside: Outside, told: Told, slug: str, **settings: Any) -> None:
    """Register a connection and let it pass its test."""
    created = outside.api.post(
        "/integrations",
        json={
            "slug": slug,
            "source": told["source"],
            "base_url": told["base_url"],
            "settings": {**told["settings"], **settings},
            "credentials": told["credentials"],
        },
    )
    assert created.status_code == 201, created.text
    tested = outside.api.post(f"/integrations/{slug}/test")
    assert tested.json()["passed"], tested.text


def sync(outside: Outside, slug: str, **body: Any) -> str:
    """Queue a sync; its job id."""
    answer = outside.api.post(f"/integrations/{slug}/sync", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()["job_id"]


SOURCES = ["github", "gitlab", "jira", "sentry", "servicenow"]


@pytest.mark.parametrize("source", SOURCES)
def test_a_tracker_is_connected_synced_and_kept_current(
    source: str, outside: Outside, trackers: dict[str, Told]
) -> None:
    told, slug = trackers[source], f"e2e-{source}"
    connect(outside, told, slug)

    preview = outside.api.post(f"/import/{source}/preview", json={"connection": slug})
    first = outside.ended(sync(outside, slug, mode="full"), 120)
    control(told, "churn", changes=8)
    control(told, "advance", seconds=3_600)
    second = outside.ended(sync(outside, slug, census=True), 120)

    assert len(preview.json()["sample"]) >= 10, preview.text
    assert first["state"] == "completed", first
    assert first["sync"]["streams"]["issues"]["created"] == ISSUES
    assert second["state"] == "completed", second
    changed = second["sync"]["streams"]["issues"]
    assert changed["created"] + changed["updated"] + changed["deleted"] > 0
    assert second["sync"]["requests"] < 4 * first["sync"]["requests"]
    state = outside.api.get(f"/integrations/{slug}/state").json()
    assert state["complete"], state
    listed = outside.api.get("/issues", params={"import_source": slug, "limit": 5}).json()["items"]
    assert len(listed) == 5


def test_a_source_that_says_later_is_waited_for_on_a_timer(outside: Outside, trackers: dict[str, Told]) -> None:
    told = trackers["jira"]
    connect(outside, told, "e2e-limited")
    control(told, "fault", kind="limited", seconds=3, after=2)
    job_id = sync(outside, "e2e-limited", mode="full")

    def waiting() -> dict[str, Any]:
        status = outside.status(job_id)
        assert status["state"] == "retrying"
        assert status["retry_at"]
        return status

    waited = eventually(waiting)
    status = outside.ended(job_id, 60)

    assert waited["waiting_for"] == "retry"
    assert status["state"] == "completed", status
    assert status["attempt"] == 1


def test_a_sync_survives_the_death_of_its_host(trackers: dict[str, Told], tmp_path: Path) -> None:
    told = trackers["jira"]
    with running_stack(REQUESTS_PER_MINUTE="100000") as stack, Outside(stack) as fragile:
        host = stack.host
        assert host is not None
        connect(fragile, told, "mortal", concurrency=1)
        # The search that follows the first stored page leaves time to kill the host before the sync has ended.
        for _ in range(4):
            control(told, "fault", kind="slow", seconds=4, path="/search/jql")
        job_id = sync(fragile, "mortal", mode="full")

        def some_but_not_all() -> None:
            counts = fragile.status(job_id)["sync"]["streams"].get("issues", {})
            assert counts.get("created", 0) > 0

        eventually(some_but_not_all)
        os.kill(host.process.pid, signal.SIGKILL)
        fragile.stack.start_host()
        status = fragile.ended(job_id, 150)

        assert status["state"] == "completed", status
        assert status["attempt"] == 2
        there = fragile.rows("select count(*) as issues from issues where import_source = 'mortal'")
        assert there[0]["issues"] >= ISSUES
