"""What runs by the clock: dispatch and recovery every minute, clean-up every night."""

from datetime import UTC, datetime

import azure.durable_functions as df
import azure.functions as func

from functions.durable import liveness, purger, starter
from functions.runtime import runtime
from shared.services.clean_up import clean_up as remove_old
from shared.services.dispatch_jobs import dispatch
from shared.services.recover_jobs import recover
from shared.services.run_schedules import start_due_syncs
from shared.services.take_up_deliveries import take_up_deliveries

bp = df.Blueprint()


@bp.timer_trigger(arg_name="timer", schedule="0 * * * * *", run_on_startup=True)
@bp.durable_client_input(client_name="client")
async def keep_going(timer: func.TimerRequest, client: df.DurableFunctionsClient) -> None:  # noqa: ARG001
    """Continue jobs whose worker was lost, queue syncs that are due, start waiting jobs; at start-up too.

    Webhooks that wait are due as well.
    """
    now = await runtime()
    start = starter(client)
    await recover(now.database, liveness(client), start, now=datetime.now(UTC))
    await start_due_syncs(now.database, now=datetime.now(UTC))
    await take_up_deliveries(now.database, now=datetime.now(UTC))
    await dispatch(now.database, start, concurrency=now.settings.job_concurrency)


@bp.timer_trigger(arg_name="timer", schedule="0 15 2 * * *")
@bp.durable_client_input(client_name="client")
async def clean_up(timer: func.TimerRequest, client: df.DurableFunctionsClient) -> None:  # noqa: ARG001
    """Remove ended jobs after their retention."""
    now = await runtime()
    await remove_old(now.database, now.blobs, now.settings, purger(client), now=datetime.now(UTC))
