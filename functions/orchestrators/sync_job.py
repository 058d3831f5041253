"""The life of one attempt at a sync: plan, walk parts in lanes, wait on durable timers when the source says so,
compare, ask about differences, sum up.

Carries ids and counts only. What was read is in the ledger, so a new attempt, or a history that continues as new, asks
it and goes on from there.
"""

from collections.abc import Generator
from datetime import datetime, timedelta
from typing import Any

import azure.durable_functions as df
from durabletask import task

bp = df.Blueprint()

RETRY_DELAYS_SECONDS = (2, 4, 8)
# Slices of one history: replay cost grows with its square, so histories stay small and continue as new.
SLICES = 50

Step = Generator[task.Task[Any], Any, Any]


@bp.orchestration_trigger(context_name="context")
def sync_job(context: task.OrchestrationContext, job: dict) -> Step:
    """Run one attempt; `job` holds job_id, attempt and, when continued, how far it came."""
    attempt = {"job_id": job["job_id"], "attempt": job["attempt"]}
    if "lanes" in job:
        plan = {"lanes": job["lanes"]}
    else:
        plan = yield from _plan(context, attempt)
    lanes, phase = plan["lanes"], job.get("phase", "walk")
    error = plan.get("error")
    slices = 0
    while lanes:
        stopped = yield from _slice(context, attempt, lanes)
        slices += 1
        if stopped == "stop":
            break
        if stopped == "done":
            if phase == "asked":
                break
            added = yield context.call_activity("reconcile_sync", input=attempt)
            phase = "asked"
            if not added["parts"]:
                break
        if slices == SLICES:
            context.continue_as_new({**attempt, "lanes": lanes, "phase": phase})
            return None
    return (yield context.call_activity("finish_sync", input={**attempt, "error": error}))


def _plan(context: task.OrchestrationContext, attempt: dict[str, Any]) -> Step:
    """Plan, again while the source is out of reach; {"lanes": n} or {"lanes": 0, "error": …}."""
    tries = 0
    while True:
        plan = yield context.call_activity("plan_sync", input=attempt)
        if plan.get("wait_until"):
            # A source that says when it may be asked again is waited for, however often it says so.
            yield from _wait(context, attempt, plan["wait_until"])
        elif plan.get("retryable") and tries < len(RETRY_DELAYS_SECONDS):
            until = context.current_utc_datetime + timedelta(seconds=RETRY_DELAYS_SECONDS[tries])
            tries += 1
            yield from _wait(context, attempt, until.isoformat())
        else:
            return plan


def _slice(context: task.OrchestrationContext, attempt: dict[str, Any], lanes: int) -> Step:
    """Let every lane work for a while; "more", "done" or "stop"."""
    walks: list[task.Task[Any]] = [
        context.call_activity("walk_parts", input={**attempt, "lane": lane}) for lane in range(lanes)
    ]
    results = yield task.when_all(walks)
    outcomes = {result["outcome"] for result in results}
    if "stop" in outcomes:
        return "stop"
    if outcomes == {"done"}:
        return "done"
    if "more" not in outcomes:
        yield from _wait(context, attempt, min(result["until"] for result in results if result["until"]))
    return "more"


def _wait(context: task.OrchestrationContext, attempt: dict[str, Any], until: str) -> Step:
    yield context.call_activity("announce_wait", input={**attempt, "until": until})
    # A little later, because clocks differ and an early call is refused again.
    yield context.create_timer(_naive(until) + timedelta(milliseconds=200))


def _naive(moment: str) -> datetime:
    """Timers take UTC without a zone."""
    return datetime.fromisoformat(moment).replace(tzinfo=None)
