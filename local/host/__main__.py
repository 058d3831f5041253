"""`python -m local.host`: serve the functions of function_app.py on this machine until SIGTERM or Ctrl-C."""

import argparse
import asyncio
import contextlib
import os
import signal
from pathlib import Path

from local.environment import add_to_process_environment, process_environment, read_env_file
from local.host.background import Background
from local.host.config import HostConfig, read_config
from local.host.logs import log_to

ROOT = Path(__file__).resolve().parents[2]
GRACE_SECONDS = 5


def main() -> None:
    """Parse the command line, then serve."""
    parser = argparse.ArgumentParser(prog="python -m local.host", description=__doc__)
    parser.add_argument("--app", type=Path, default=ROOT, help="folder of function_app.py and host.json")
    parser.add_argument("--env-file", type=Path, help="app settings, as `make run` writes them to .local/host.env")
    parser.add_argument("--port", type=int, help="port to listen on (TRIBUTARY_PORT, else 7071)")
    parser.add_argument("--state", type=Path, default=ROOT / ".local", help="folder of logs, receipts and the pid file")
    options = parser.parse_args()
    if options.env_file:
        add_to_process_environment(read_env_file(options.env_file))
    add_to_process_environment({"GRPC_VERBOSITY": "NONE"})  # its C library reports every orderly end as a warning
    settings = process_environment()
    port = options.port or int(settings.get("TRIBUTARY_PORT", "7071"))
    state = options.state.resolve()
    log_to(state / "logs" / "host.log")
    pid_file = state / "host.pid"
    pid_file.write_text(str(os.getpid()))
    try:
        asyncio.run(_serve(read_config(options.app.resolve(), state, port, settings)))
    finally:
        pid_file.unlink(missing_ok=True)


async def _serve(config: HostConfig) -> None:
    # The engine listens and the app is imported before the site opens: who can connect can be served.
    from local.host.host import Host

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    host = Host(config, Background())
    await host.start()
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({stopped, *host.listeners}, return_when=asyncio.FIRST_COMPLETED)
    crashed = [task for task in host.listeners if task.done()]
    await host.stop(GRACE_SECONDS)
    for task in crashed:
        with contextlib.suppress(asyncio.CancelledError):
            task.result()


if __name__ == "__main__":
    main()
