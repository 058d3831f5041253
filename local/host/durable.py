"""Durable Functions: work items of the SDK's in-memory engine, handed to the worker as the Durable extension does."""

import asyncio
import base64
import json
import logging
from collections.abc import Coroutine
from concurrent import futures
from typing import Any

import grpc
import grpc.aio
from azure_functions_runtime.bindings.datumdef import Datum
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal import orchestrator_service_pb2_grpc as stubs
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend
from google.protobuf import wrappers_pb2

from local.host.background import Background
from local.host.config import HostConfig
from local.host.worker import Function, FunctionFailedError
from local.host.workers import Workers

log = logging.getLogger(__name__)

# The engine's default of 10,000 events makes a larger fan-out hang without a word.
MAX_HISTORY_EVENTS = 1_000_000
CLIENT_MESSAGE_BYTES = 4 * 1024 * 1024
UNLIMITED_MESSAGES = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
FINISHED = (
    pb.ORCHESTRATION_STATUS_COMPLETED,
    pb.ORCHESTRATION_STATUS_FAILED,
    pb.ORCHESTRATION_STATUS_TERMINATED,
)


class LocalEngine(InMemoryOrchestrationBackend):
    """The in-memory engine with the three differences to Azure that matter taken away."""

    def __init__(self) -> None:
        super().__init__(max_history_size=MAX_HISTORY_EVENTS, port=0)

    def start(self) -> str:
        """Listen on loopback only, on a free port; the original listens on every interface."""
        self._shutdown_event.clear()
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=32), options=UNLIMITED_MESSAGES)
        stubs.add_TaskHubSidecarServiceServicer_to_server(self, server)
        self._port = server.add_insecure_port("127.0.0.1:0")
        self._server = server
        server.start()
        return self.address

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def StartInstance(  # noqa: N802 - a method of the gRPC service
        self, request: pb.CreateInstanceRequest, context: grpc.ServicerContext
    ) -> pb.CreateInstanceResponse:
        """Let a finished instance's id be used again, as in Azure."""
        if not request.orchestrationIdReusePolicy.replaceableStatus:
            request.orchestrationIdReusePolicy.replaceableStatus.extend(FINISHED)
        return super().StartInstance(request, context)

    def _wait_for_state(self, instance_id: str, predicate: Any, timeout: float | None) -> Any:
        """Wait for a sub-orchestration as long as it runs; the original forgets the parent after 30 seconds."""
        if timeout is not None:
            return super()._wait_for_state(instance_id, predicate, timeout)
        while not self._shutdown_event.is_set():
            found = super()._wait_for_state(instance_id, predicate, 30)
            if found or instance_id not in self._instances:
                return found
        return None


def client_binding(engine: LocalEngine, config: HostConfig) -> str:
    """What a `durableClient` binding receives. `rpcBaseUrl` must not end with a slash: the SDK could not parse it."""
    management = f"{config.base_url}/runtime/webhooks/durabletask"
    return json.dumps(
        {
            "taskHubName": config.settings.get("TASK_HUB_NAME", "local"),
            "connectionName": "",
            "creationUrls": {},
            "managementUrls": {"id": "INSTANCEID", "statusQueryGetUri": f"{management}/instances/INSTANCEID"},
            "baseUrl": management,
            "requiredQueryStringParameters": "",
            "rpcBaseUrl": f"http://{engine.address}",
            "httpBaseUrl": management,
            "useForwardedHost": False,
            "maxGrpcMessageSizeInBytes": CLIENT_MESSAGE_BYTES,
            "grpcHttpClientTimeout": "00:01:40",
        }
    )


class DurableListener:
    """Takes work items from the engine and completes them, within the concurrency of host.json."""

    def __init__(self, workers: Workers, engine: LocalEngine, config: HostConfig, background: Background) -> None:
        self._workers = workers
        self._engine = engine
        self._background = background
        self._orchestrators = _by_name(workers, "orchestrationTrigger", "orchestration")
        self._activities = _by_name(workers, "activityTrigger", "activity")
        self._orchestrator_slots = asyncio.Semaphore(config.orchestrator_concurrency)
        self._activity_slots = asyncio.Semaphore(config.activity_concurrency)

    async def run(self) -> None:
        async with grpc.aio.insecure_channel(self._engine.address, options=UNLIMITED_MESSAGES) as channel:
            stub: Any = stubs.TaskHubSidecarServiceStub(channel)
            async for item in stub.GetWorkItems(pb.GetWorkItemsRequest()):
                self._background.start(self._work_on(stub, item))

    def _work_on(self, stub: Any, item: pb.WorkItem) -> Coroutine[Any, Any, None]:
        kind = item.WhichOneof("request")
        if kind == "orchestratorRequest":
            return self._orchestrate(stub, item.orchestratorRequest, item.completionToken)
        if kind == "activityRequest":
            return self._act(stub, item.activityRequest, item.completionToken)
        raise SystemExit(f"The local host serves orchestrators and activities, not {kind}")

    async def _orchestrate(self, stub: Any, request: pb.OrchestratorRequest, token: str) -> None:
        async with self._orchestrator_slots:
            response = await self._orchestrator_response(request)
            response.completionToken = token
            await stub.CompleteOrchestratorTask(response)

    async def _orchestrator_response(self, request: pb.OrchestratorRequest) -> pb.OrchestratorResponse:
        name = _orchestrator_name(request)
        try:
            function = _find(self._orchestrators, name, "Orchestrator")
            body = base64.b64encode(request.SerializeToString()).decode()
            result = await self._workers.invoke(function, Datum(body, "string"))
        except FunctionFailedError as error:
            return _failed_orchestration(request.instanceId, error)
        response = pb.OrchestratorResponse()
        response.ParseFromString(base64.b64decode(result.value if result else ""))
        return response

    async def _act(self, stub: Any, request: pb.ActivityRequest, token: str) -> None:
        response = pb.ActivityResponse(
            instanceId=request.orchestrationInstance.instanceId, taskId=request.taskId, completionToken=token
        )
        async with self._activity_slots:
            try:
                function = _find(self._activities, request.name, "Activity")
                result = await self._workers.invoke(function, Datum(request.input.value or "null", "json"))
                response.result.CopyFrom(wrappers_pb2.StringValue(value=result.value if result else "null"))
            except FunctionFailedError as error:
                response.failureDetails.CopyFrom(_failure_details(error))
            await stub.CompleteActivityTask(response)


def _by_name(workers: Workers, kind: str, name_key: str) -> dict[str, Function]:
    return {str(f.trigger.get(name_key) or f.name): f for f in workers.triggered_by(kind)}


def _find(functions: dict[str, Function], name: str, kind: str) -> Function:
    if name not in functions:
        raise FunctionFailedError.because(name, LookupError(f"{kind} {name} is not registered"))
    return functions[name]


def _orchestrator_name(request: pb.OrchestratorRequest) -> str:
    events = [*request.pastEvents, *request.newEvents]
    return next(event.executionStarted.name for event in events if event.HasField("executionStarted"))


def _failure_details(error: FunctionFailedError) -> pb.TaskFailureDetails:
    """Type and message as the worker reports them to Azure."""
    return pb.TaskFailureDetails(
        errorType=error.kind, errorMessage=error.message, stackTrace=wrappers_pb2.StringValue(value=error.trace)
    )


def _failed_orchestration(instance_id: str, error: FunctionFailedError) -> pb.OrchestratorResponse:
    complete = pb.CompleteOrchestrationAction(
        orchestrationStatus=pb.ORCHESTRATION_STATUS_FAILED, failureDetails=_failure_details(error)
    )
    return pb.OrchestratorResponse(
        instanceId=instance_id, actions=[pb.OrchestratorAction(id=-1, completeOrchestration=complete)]
    )
