"""The life of a sync, step by step: what the orchestrator does next, given what its steps answered."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.api import sync_job

NOW = datetime(2025, 5, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
JOB = {"job_id": "j", "attempt": 1}
DONE = {"outcome": "done", "until": None}
MORE = {"outcome": "more", "until": None}
WAIT = {"outcome": "wait", "until": LATER.isoformat()}
STOP = {"outcome": "stop", "until": None}


class Context:
    """The parts of an orchestration's context that syncs use; every task is the description of itself."""

    current_utc_datetime = NOW.replace(tzinfo=None)

    def __init__(self) -> None:
        self.continued: dict[str, Any] | None = None

    def call_activity(self, name: str, *, input: dict[str, Any]) -> tuple[str, dict[str, Any]]:  # noqa: A002
        return name, input

    def create_timer(self, until: datetime) -> tuple[str, datetime]:
        return "timer", until

    def continue_as_new(self, job: dict[str, Any]) -> None:
        self.continued = job


def play(
    monkeypatch: pytest.MonkeyPatch, answers: Callable[[str, int], Any], job: dict[str, Any] | None = None
) -> tuple[list[Any], Context]:
    """Run the orchestrator; `answers(step, how often before)` is what a step answers. What it did, in order."""
    monkeypatch.setattr("durabletask.task.when_all", list)
    context, steps, counts = Context(), [], dict[str, int]()
    life = sync_job(context, job or JOB)

    def answer(task: Any) -> Any:
        if isinstance(task, list):
            return [answer(each) for each in task]
        name, value = task
        steps.append(name if name != "finish_sync" else (name, value["error"]))
        counts[name] = counts.get(name, 0) + 1
        return answers(name, counts[name] - 1)

    task = next(life, None)
    while task is not None:
        try:
            task = life.send(answer(task))
        except StopIteration:
            break
    return steps, context


def scripted(**answers: list[Any]) -> Callable[[str, int], Any]:
    """Answers by step, the last one again and again."""
    usual: dict[str, list[Any]] = {"reconcile_sync": [{"parts": 0}], "finish_sync": [{"state": "completed"}]}

    def answer(step: str, times: int) -> Any:
        of_step = {**usual, **answers}.get(step, [None])
        return of_step[min(times, len(of_step) - 1)]

    return answer


def test_lanes_walk_until_all_are_done_and_differences_are_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, _ = play(
        monkeypatch,
        scripted(
            plan_sync=[{"lanes": 2}], walk_parts=[MORE, DONE, DONE, DONE, DONE, DONE], reconcile_sync=[{"parts": 3}]
        ),
    )

    walks = ["walk_parts", "walk_parts"]
    assert steps == ["plan_sync", *walks, *walks, "reconcile_sync", *walks, ("finish_sync", None)]


def test_a_source_that_says_later_is_waited_for_on_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, _ = play(monkeypatch, scripted(plan_sync=[{"lanes": 1}], walk_parts=[WAIT, DONE]))

    assert steps[:5] == ["plan_sync", "walk_parts", "announce_wait", "timer", "walk_parts"]


def test_planning_waits_as_often_as_the_source_says_and_its_history_stays_small(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limited = {"lanes": 0, "error": {"code": "RATE_LIMIT"}, "retryable": True, "wait_until": LATER.isoformat()}
    steps, context = play(monkeypatch, scripted(plan_sync=[limited]))

    assert steps[:3] == ["plan_sync", "announce_wait", "timer"]
    assert len(steps) <= 3 * 50
    assert context.continued == {**JOB, "lanes": 0, "phase": "plan"}


def test_planning_is_tried_again_three_times_while_the_source_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = {"lanes": 0, "error": {"code": "TIMEOUT"}, "retryable": True, "wait_until": None}
    steps, _ = play(monkeypatch, scripted(plan_sync=[gone]))

    assert steps == [*["plan_sync", "announce_wait", "timer"] * 3, "plan_sync", ("finish_sync", {"code": "TIMEOUT"})]


def test_a_plan_that_succeeds_in_the_end_forgets_its_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = {"lanes": 0, "error": {"code": "TIMEOUT"}, "retryable": True, "wait_until": None}
    steps, _ = play(monkeypatch, scripted(plan_sync=[gone, {"lanes": 1}], walk_parts=[DONE]))

    assert steps[-1] == ("finish_sync", None)


def test_what_breaks_for_good_ends_the_sync_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {"code": "internal_error", "detail": "KeyError in a step of the sync; the logs know more"}
    planned, _ = play(monkeypatch, scripted(plan_sync=[{"lanes": 0, "error": broken}]))
    walked, _ = play(monkeypatch, scripted(plan_sync=[{"lanes": 1}], walk_parts=[{**STOP, "error": broken}]))
    compared, _ = play(
        monkeypatch,
        scripted(plan_sync=[{"lanes": 1}], walk_parts=[DONE], reconcile_sync=[{"parts": 0, "error": broken}]),
    )

    assert planned == ["plan_sync", ("finish_sync", broken)]
    assert walked == ["plan_sync", "walk_parts", ("finish_sync", broken)]
    assert compared == ["plan_sync", "walk_parts", "reconcile_sync", ("finish_sync", broken)]


def test_a_long_walk_continues_as_new_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, context = play(monkeypatch, scripted(plan_sync=[{"lanes": 2}], walk_parts=[MORE]))
    again, _ = play(monkeypatch, scripted(walk_parts=[DONE]), context.continued)

    assert "finish_sync" not in steps
    assert context.continued == {**JOB, "lanes": 2, "phase": "walk"}
    assert again == ["walk_parts", "walk_parts", "reconcile_sync", ("finish_sync", None)]
