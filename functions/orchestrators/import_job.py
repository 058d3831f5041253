"""The life of one attempt at a job: plan, load batches side by side, wait out failures on durable timers, sum up.

Carries ids and counts only. What was done is in the batch ledger, so a new attempt, or a history that continues as new,
asks the ledger and goes on from there.
"""

from collections.abc import Generator
from datetime import timedelta
from typing import Any

import azure.durable_functions as df
from durabletask import task

bp = df.Blueprint()

RETRY_DELAYS_SECONDS = (2, 4, 8)
# One page is one history: replay cost grows with its square, so pages stay small and continue as new.
PAGE = 100

Step = Generator[task.Task[Any], Any, Any]


@bp.orchestration_trigger(context_name="context")
def import_job(context: task.OrchestrationContext, job: dict) -> Step:
    """Run one attempt; `job` holds job_id, attempt and, when continued, the retry round reached."""
    attempt = {"job_id": job["job_id"], "attempt": job["attempt"]}
    plan = yield from _plan(context, attempt)
    tries = job.get("round", 0)
    for phase in plan["phases"]:
        troubled = False
        while True:
            todo = yield context.call_activity("list_batches", input={**attempt, "phase": phase, "limit": PAGE})
            if todo["stop"] or not (todo["waiting"] or todo["failed"]):
                break
            if troubled or not todo["waiting"]:
                if tries == len(RETRY_DELAYS_SECONDS):
                    break
                yield from _wait(context, attempt, RETRY_DELAYS_SECONDS[tries])
                tries += 1
            numbers = todo["waiting"] or todo["failed"]
            troubled = yield from _load(context, attempt, phase, numbers)
            if len(numbers) == PAGE and not troubled:
                context.continue_as_new({**attempt, "round": tries})
                return None
    return (yield context.call_activity("finish_job", input=attempt))


def _plan(context: task.OrchestrationContext, attempt: dict[str, Any]) -> Step:
    for delay in (*RETRY_DELAYS_SECONDS, None):
        try:
            return (yield context.call_activity("plan_job", input=attempt))
        except task.TaskFailedError:
            if delay is not None:
                yield from _wait(context, attempt, delay)
    return {"phases": []}


def _wait(context: task.OrchestrationContext, attempt: dict[str, Any], seconds: int) -> Step:
    yield context.call_activity("announce_retry", input={**attempt, "seconds": seconds})
    yield context.create_timer(timedelta(seconds=seconds))


def _load(context: task.OrchestrationContext, attempt: dict[str, Any], phase: str, numbers: list[int]) -> Step:
    """Load a page of batches; True if an activity broke so badly that the ledger does not know."""
    loads: list[task.Task[Any]] = [
        context.call_activity("load_batch", input={**attempt, "phase": phase, "number": number}) for number in numbers
    ]
    try:
        yield task.when_all(loads)
    except task.TaskFailedError:
        return True
    return False
