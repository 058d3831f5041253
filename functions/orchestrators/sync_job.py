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
    lanes, phase, slices = job.get("lanes", 0), job.get("phase", "plan"), 0
    error: dict[str, Any] | None = None
    tries = 0
    while phase != "finish":
        if phase == "plan":
            plan = yield from _plan(context, attempt, tries)
            lanes, phase, error, tries = plan["lanes"], plan["phase"], plan.get("error"), plan["tries"]
        else:
            ended = yield from _slice(context, attempt, lanes)
            phase, error = yield from _after(context, attempt, phase, ended)
        slices += 1
        if slices == SLICES and phase != "finish":
            context.continue_as_new({**attempt, "lanes": lanes, "phase": phase})
            return None
    return (yield context.call_activity("finish_sync", input={**attempt, "error": error}))


def _after(context: task.OrchestrationContext, attempt: dict[str, Any], phase: str, ended: dict[str, Any]) -> Step:
    """The phase that follows a slice, and what broke."""
    if ended["outcome"] == "more":
        return phase, None
    if ended["outcome"] == "stop" or phase == "asked":
        return "finish", ended.get("error")
    added = yield context.call_activity("reconcile_sync", input=attempt)
    return ("asked" if added["parts"] else "finish"), added.get("error")


def _plan(context: task.OrchestrationContext, attempt: dict[str, Any], tries: int) -> Step:
    """Plan; the phase that follows is `plan` again while the source is out of reach."""
    plan = yield context.call_activity("plan_sync", input=attempt)
    until, phase = plan.get("wait_until"), "walk" if plan["lanes"] else "finish"
    # A source that says when it may be asked again is waited for, however often it says so.
    if not until and plan.get("retryable") and tries < len(RETRY_DELAYS_SECONDS):
        until = (context.current_utc_datetime + timedelta(seconds=RETRY_DELAYS_SECONDS[tries])).isoformat()
        tries += 1
    if until:
        yield from _wait(context, attempt, until)
        phase = "plan"
    return {**plan, "phase": phase, "tries": tries}


def _slice(context: task.OrchestrationContext, attempt: dict[str, Any], lanes: int) -> Step:
    """Let every lane work for a while; {"outcome": "more", "done" or "stop"}, with "error" when a lane broke."""
    walks: list[task.Task[Any]] = [
        context.call_activity("walk_parts", input={**attempt, "lane": lane, "lanes": lanes}) for lane in range(lanes)
    ]
    results = yield task.when_all(walks)
    outcomes = {result["outcome"] for result in results}
    if "stop" in outcomes:
        return {"outcome": "stop", "error": next((each["error"] for each in results if each.get("error")), None)}
    if outcomes == {"done"}:
        return {"outcome": "done"}
    if "more" not in outcomes:
        yield from _wait(context, attempt, min(result["until"] for result in results if result["until"]))
    return {"outcome": "more"}


def _wait(context: task.OrchestrationContext, attempt: dict[str, Any], until: str) -> Step:
    yield context.call_activity("announce_wait", input={**attempt, "until": until})
    # A little later, because clocks differ and an early call is refused again.
    yield context.create_timer(_naive(until) + timedelta(milliseconds=200))


def _naive(moment: str) -> datetime:
    """Timers take UTC without a zone."""
    return datetime.fromisoformat(moment).replace(tzinfo=None)
