"""The steps of an import job. Each may be killed and run again at any moment.

The platform's worker refuses generic annotations of trigger parameters, so inputs are plain `dict`.
"""

import logging
from datetime import UTC, datetime
from uuid import UUID

import azure.durable_functions as df

from functions.durable import starter
from functions.runtime import runtime
from shared.domain.errors import UnavailableError, told
from shared.services.announce_retry import announce_retry as announce
from shared.services.dispatch_jobs import dispatch
from shared.services.finish_job import finish_job as finish
from shared.services.finish_job import give_up_job
from shared.services.list_batches import list_batches as list_open
from shared.services.load_batch import load_batch as load
from shared.services.plan_job import plan_job as plan

log = logging.getLogger(__name__)

bp = df.Blueprint()


@bp.activity_trigger(input_name="job")
async def plan_job(job: dict) -> dict:
    """Split the file into batches; {"phases": [...]}, empty when there is nothing to load."""
    now = await runtime()
    return {"phases": await plan(now.database, now.blobs, now.settings, UUID(job["job_id"]), job["attempt"])}


@bp.activity_trigger(input_name="job")
async def list_batches(job: dict) -> dict:
    """{"waiting": [numbers], "failed": [numbers], "stop": bool} of one phase."""
    now = await runtime()
    job_id, attempt = UUID(job["job_id"]), job["attempt"]
    try:
        return await list_open(now.database, job_id, attempt, job["phase"], limit=job["limit"])
    except UnavailableError:
        raise
    except Exception as error:
        log.exception("The batches of an import could not be listed", extra={"action": "import_broke"})
        await give_up_job(now.database, now.blobs, job_id, attempt, error=told(error))
        return {"waiting": [], "failed": [], "stop": True}


@bp.activity_trigger(input_name="batch")
async def load_batch(batch: dict) -> dict:
    """Load one batch; {"done": bool}."""
    now = await runtime()
    which = UUID(batch["job_id"]), batch["attempt"], batch["phase"], batch["number"]
    async with now.loading:
        done = await load(now.database, now.blobs, now.settings, *which)
    return {"done": done}


@bp.activity_trigger(input_name="wait")
async def announce_retry(wait: dict) -> dict:
    """Show the wait on the job's status."""
    now = await runtime()
    await announce(now.database, UUID(wait["job_id"]), seconds=wait["seconds"], now=datetime.now(UTC))
    return {}


@bp.activity_trigger(input_name="job")
@bp.durable_client_input(client_name="client")
async def finish_job(job: dict, client: df.DurableFunctionsClient) -> dict:
    """End the job and let the next ones start."""
    now = await runtime()
    job_id, attempt = UUID(job["job_id"]), job["attempt"]
    try:
        state = await finish(now.database, now.blobs, job_id, attempt)
    except UnavailableError:
        raise
    except Exception as error:
        log.exception("An import could not be summed up", extra={"action": "import_broke"})
        state = await give_up_job(now.database, now.blobs, job_id, attempt, error=told(error))
    await dispatch(now.database, starter(client), concurrency=now.settings.job_concurrency)
    return {"state": state}
