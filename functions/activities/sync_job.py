"""The steps of a sync. Each may be killed and run again at any moment.

The platform's worker refuses generic annotations of trigger parameters, so inputs are plain `dict`.
"""

import logging
from datetime import UTC, datetime
from uuid import UUID

import azure.durable_functions as df

from functions.durable import starter
from functions.runtime import runtime
from shared.domain.errors import SourceError, Trouble, UnavailableError, told
from shared.services.announce_retry import announce_wait as announce
from shared.services.dispatch_jobs import dispatch
from shared.services.finish_sync import finish_sync as finish
from shared.services.finish_sync import give_up_sync
from shared.services.plan_sync import plan_sync as plan
from shared.services.reconcile_sync import reconcile_sync as reconcile
from shared.services.take_up_deliveries import take_up_deliveries
from shared.services.walk_parts import walk_parts as walk

log = logging.getLogger(__name__)

bp = df.Blueprint()


@bp.activity_trigger(input_name="job")
async def plan_sync(job: dict) -> dict:
    """Write the parts of the job; {"lanes": n}, with "wait_until" or "error" and "retryable" when that failed."""
    now = await runtime()
    try:
        return {"lanes": await plan(now.database, now.connectors, UUID(job["job_id"]), job["attempt"])}
    except SourceError as error:
        until = error.retry_at.isoformat() if error.trouble is Trouble.RATE_LIMIT and error.retry_at else None
        return {"lanes": 0, "error": told(error), "retryable": error.trouble.retryable, "wait_until": until}
    except UnavailableError:
        raise
    except Exception as error:
        log.exception("A step of a sync broke", extra={"action": "sync_broke"})
        return {"lanes": 0, "error": told(error)}


@bp.activity_trigger(input_name="lane")
async def walk_parts(lane: dict) -> dict:
    """Work as one lane for a while; {"outcome": …, "until": …}, with "error" when it broke."""
    now = await runtime()
    job_id, attempt = UUID(lane["job_id"]), lane["attempt"]
    try:
        ended = await walk(now.database, now.connectors, now.settings, job_id, attempt, lane["lane"], lane["lanes"])
        return ended.to_json()
    except UnavailableError:
        raise
    except Exception as error:
        log.exception("A step of a sync broke", extra={"action": "sync_broke"})
        return {"outcome": "stop", "until": None, "error": told(error)}


@bp.activity_trigger(input_name="wait")
async def announce_wait(wait: dict) -> dict:
    """Show on the job's status until when it waits."""
    now = await runtime()
    await announce(now.database, UUID(wait["job_id"]), until=datetime.fromisoformat(wait["until"]))
    return {}


@bp.activity_trigger(input_name="job")
async def reconcile_sync(job: dict) -> dict:
    """Compare what was seen with what is stored; {"parts": how many ask about it}, with "error" when it broke."""
    now = await runtime()
    try:
        return {"parts": await reconcile(now.database, now.connectors, UUID(job["job_id"]), job["attempt"])}
    except UnavailableError:
        raise
    except Exception as error:
        log.exception("A step of a sync broke", extra={"action": "sync_broke"})
        return {"parts": 0, "error": told(error)}


@bp.activity_trigger(input_name="job")
@bp.durable_client_input(client_name="client")
async def finish_sync(job: dict, client: df.DurableFunctionsClient) -> dict:
    """End the job and let the next ones start."""
    now = await runtime()
    job_id, attempt = UUID(job["job_id"]), job["attempt"]
    try:
        state = await finish(now.database, job_id, attempt, error=job.get("error"), now=datetime.now(UTC))
    except UnavailableError:
        raise
    except Exception as error:
        log.exception("A step of a sync broke", extra={"action": "sync_broke"})
        state = await give_up_sync(now.database, job_id, attempt, error=told(error), now=datetime.now(UTC))
    await take_up_deliveries(now.database, now=datetime.now(UTC))
    await dispatch(now.database, starter(client), concurrency=now.settings.job_concurrency)
    return {"state": state}
