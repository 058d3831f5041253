"""Start and look up orchestrations of jobs; the instance id is the job id and its attempt."""

from uuid import UUID

import azure.durable_functions as df
import grpc
from durabletask.client import OrchestrationStatus

from shared.services.dispatch_jobs import Starter
from shared.services.recover_jobs import IsAlive

ORCHESTRATOR = "import_job"
_LIVE = {OrchestrationStatus.PENDING, OrchestrationStatus.RUNNING, OrchestrationStatus.SUSPENDED}


def instance_id(job_id: UUID, attempt: int) -> str:
    """The orchestration instance of one attempt."""
    return f"{job_id}-{attempt}"


def starter(client: df.DurableFunctionsClient) -> Starter:
    """A Starter on a durable client; starting an instance that exists is success, because dispatch may repeat."""

    async def start(job_id: UUID, attempt: int) -> None:
        try:
            await client.schedule_new_orchestration(
                ORCHESTRATOR,
                input={"job_id": str(job_id), "attempt": attempt},
                instance_id=instance_id(job_id, attempt),
            )
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise

    return start


def liveness(client: df.DurableFunctionsClient) -> IsAlive:
    """Whether an attempt's orchestration still runs."""

    async def is_alive(job_id: UUID, attempt: int) -> bool:
        state = await client.get_orchestration_state(instance_id(job_id, attempt))
        return state is not None and state.runtime_status in _LIVE

    return is_alive
