"""Start, look up and forget orchestrations of jobs; the instance id is the job id and its attempt."""

import logging

import azure.durable_functions as df
import grpc
from durabletask.client import OrchestrationStatus

from shared.domain.job import JobKind, Turn
from shared.services.clean_up import Purge
from shared.services.dispatch_jobs import Starter
from shared.services.recover_jobs import IsAlive

log = logging.getLogger(__name__)

_ORCHESTRATORS = {JobKind.ISSUES: "import_job", JobKind.PROJECTS: "import_job", JobKind.SYNC: "sync_job"}
_LIVE = {OrchestrationStatus.PENDING, OrchestrationStatus.RUNNING, OrchestrationStatus.SUSPENDED}


def instance_id(turn: Turn) -> str:
    """The orchestration instance of one attempt."""
    return f"{turn.job_id}-{turn.attempt}"


def starter(client: df.DurableFunctionsClient) -> Starter:
    """A Starter on a durable client; starting an instance that exists is success, because dispatch may repeat."""

    async def start(turn: Turn) -> None:
        try:
            await client.schedule_new_orchestration(
                _ORCHESTRATORS[turn.kind],
                input={"job_id": str(turn.job_id), "attempt": turn.attempt},
                instance_id=instance_id(turn),
            )
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise

    return start


def purger(client: df.DurableFunctionsClient) -> Purge:
    """Forgets histories; the task hub would otherwise grow for ever."""

    async def purge(turn: Turn) -> None:
        try:
            await client.purge_orchestration(instance_id(turn), recursive=False)
        except grpc.RpcError as error:
            # Left behind, it costs room and nothing else; the job's own traces must not stay for it.
            log.warning("History not purged", extra={"action": "purge_failed", "reason": str(error.code())})

    return purge


def liveness(client: df.DurableFunctionsClient) -> IsAlive:
    """Whether an attempt's orchestration still runs."""

    async def is_alive(turn: Turn) -> bool:
        state = await client.get_orchestration_state(instance_id(turn))
        return state is not None and state.runtime_status in _LIVE

    return is_alive
