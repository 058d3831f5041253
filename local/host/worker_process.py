"""The host's side of a worker in a process of its own. They exchange pickles over a socket pair."""

import asyncio
import pickle
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Self

from azure_functions_runtime.bindings.datumdef import Datum

from local.host.config import HostConfig
from local.host.worker import Function, FunctionFailedError

_LENGTH_BYTES = 8


@dataclass(frozen=True)
class Call:
    """A function to be invoked."""

    number: int
    function: str
    value: Datum
    metadata: Mapping[str, Datum] | None
    trace_parent: str


@dataclass(frozen=True)
class Result:
    """What came of a call."""

    number: int
    value: Datum | None
    error: FunctionFailedError | None = None


class Pipe:
    """One end of the socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Self:
        return cls(*await asyncio.open_unix_connection(sock=end))

    async def receive(self) -> Any:
        """The next message; IncompleteReadError when the other side has ended."""
        length = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES))
        return pickle.loads(await self._reader.readexactly(length))

    async def send(self, message: object) -> None:
        content = pickle.dumps(message)
        # One piece, so that messages of different tasks do not mix.
        self.writer.write(len(content).to_bytes(_LENGTH_BYTES) + content)
        await self.writer.drain()


class WorkerProcess:
    """The host's side of a worker process; `ended` ends with it."""

    def __init__(self, process: asyncio.subprocess.Process, pipe: Pipe, functions: list[Function]) -> None:
        self.functions = functions
        self._process = process
        self._pipe = pipe
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[Datum | None]] = {}
        self.ended = asyncio.create_task(self._take_results())

    @classmethod
    async def start(cls, config: HostConfig, durable_client: str, number: int) -> Self:
        ours, theirs = socket.socketpair()
        log_file = config.state_dir / "logs" / f"worker-{number}.log"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "local.host.worker_side", str(theirs.fileno()), str(config.app_dir)),
            *(durable_client, str(log_file)),
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        pipe = await Pipe.over(ours)
        try:
            functions = await pipe.receive()
        except asyncio.IncompleteReadError:
            raise SystemExit(f"Worker process {number} ended before it knew its functions: see {log_file}") from None
        return cls(process, pipe, functions)

    async def invoke(
        self, function: Function, value: Datum, metadata: Mapping[str, Datum] | None = None, *, trace_parent: str = ""
    ) -> Datum | None:
        number = next(self._numbers)
        result = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await self._pipe.send(Call(number, function.name, value, metadata, trace_parent))
            return await result
        finally:
            del self._waiting[number]

    async def stop(self) -> None:
        self.ended.cancel()
        self._pipe.writer.close()
        await self._process.wait()

    async def _take_results(self) -> None:
        try:
            while True:
                result: Result = await self._pipe.receive()
                if (waiting := self._waiting.get(result.number)) is None or waiting.done():
                    continue
                if result.error:
                    waiting.set_exception(result.error)
                else:
                    waiting.set_result(result.value)
        except asyncio.IncompleteReadError:
            raise RuntimeError(f"A worker process ended with {await self._process.wait()}") from None
