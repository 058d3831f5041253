"""The worker's side: run what the host asks for until the host ends, so that no worker outlives a killed host."""

import argparse
import asyncio
import logging
import signal
import socket
from pathlib import Path

from local.host.background import Background
from local.host.logs import log_to
from local.host.worker import FunctionFailedError, Worker
from local.host.worker_process import Call, Pipe, Result


async def _serve(end: socket.socket, app_dir: Path, durable_client: str) -> None:
    pipe = await Pipe.over(end)
    worker = Worker(app_dir, durable_client)
    functions = {function.name: function for function in worker.functions}
    await pipe.send(worker.functions)
    running = Background()

    async def work(call: Call) -> None:
        function = functions[call.function]
        try:
            value = await worker.invoke(function, call.value, call.metadata, trace_parent=call.trace_parent)
            result = Result(call.number, value)
        except FunctionFailedError as error:
            result = Result(call.number, None, error)
        await pipe.send(result)

    try:
        while True:
            running.start(work(await pipe.receive()))
    except (asyncio.IncompleteReadError, ConnectionError):
        logging.getLogger(__name__).info("The host has ended")
    finally:
        await running.drain(0)


def main() -> None:
    """Serve as the host's child."""
    parser = argparse.ArgumentParser(prog="python -m local.host.worker_side", description=__doc__)
    parser.add_argument("socket", type=int)
    parser.add_argument("app", type=Path)
    parser.add_argument("durable_client")
    parser.add_argument("log", type=Path)
    options = parser.parse_args()
    # Ctrl-C reaches every process of a terminal: the host stops first, and its workers with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log_to(options.log)
    asyncio.run(_serve(socket.socket(fileno=options.socket), options.app, options.durable_client))


if __name__ == "__main__":
    main()
