"""The workers of the host: one in its own process, or as many processes as FUNCTIONS_WORKER_PROCESS_COUNT says.

Invocations go to one worker after the other, as the dispatcher of the real host sends them.
https://github.com/Azure/azure-functions-host, RpcFunctionInvocationDispatcherLoadBalancer.cs
"""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Protocol

from azure_functions_runtime.bindings.datumdef import Datum

from local.host.config import HostConfig
from local.host.worker import Function, Worker
from local.host.worker_process import WorkerProcess


class Invoker(Protocol):
    """What runs functions."""

    @property
    def functions(self) -> list[Function]: ...

    async def invoke(
        self, function: Function, value: Datum, metadata: Mapping[str, Datum] | None = None, *, trace_parent: str = ""
    ) -> Datum | None: ...


class Workers:
    """The functions of one app and who runs them; `ended` are tasks that end only when a process broke."""

    def __init__(self, invokers: Sequence[Invoker]) -> None:
        self.functions = invokers[0].functions
        self._processes = [each for each in invokers if isinstance(each, WorkerProcess)]
        self._turns = cycle(invokers)

    @property
    def ended(self) -> list[asyncio.Task[None]]:
        return [process.ended for process in self._processes]

    def triggered_by(self, kind: str) -> list[Function]:
        return [function for function in self.functions if function.kind == kind]

    async def invoke(
        self, function: Function, value: Datum, metadata: Mapping[str, Datum] | None = None, *, trace_parent: str = ""
    ) -> Datum | None:
        """Call a function with its trigger's value; raises FunctionFailedError."""
        return await next(self._turns).invoke(function, value, metadata, trace_parent=trace_parent)

    async def stop(self) -> None:
        """End the processes; what still runs there is given up."""
        await asyncio.gather(*(process.stop() for process in self._processes))


async def start_workers(config: HostConfig, durable_client: str) -> Workers:
    """Load the app as often as the settings say."""
    if config.worker_processes == 1:
        return Workers([Worker(config.app_dir, durable_client)])
    starting = (WorkerProcess.start(config, durable_client, number) for number in range(config.worker_processes))
    return Workers(await asyncio.gather(*starting))
