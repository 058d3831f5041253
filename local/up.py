"""`make run`: the stack on this machine until Ctrl-C, with its state in .local/."""

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from local.processes import Child, StackError, ignore_signals, stop_on_signals
from local.stack import Stack, StackOptions, options_from_environment

SUPERVISION_SECONDS = 0.3


def main() -> int:
    """Run the stack and say where it is; the exit code is 1 when it could not start or something died."""
    stop_on_signals()
    try:
        options, services_only = _parse(sys.argv[1:])
        return _run(Stack(options), services_only=services_only)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _run(stack: Stack, *, services_only: bool) -> int:
    started = time.monotonic()
    try:
        stack.start_services()
        pid_file = stack.state_dir / "up.pid"
        pid_file.write_text(str(os.getpid()))
        if not services_only:
            stack.start_host()
        _announce(stack, time.monotonic() - started)
        return _supervise(stack.children)
    finally:
        ignore_signals()
        if stack.children:
            print("Stopping", flush=True)
        stack.stop()
        (stack.state_dir / "up.pid").unlink(missing_ok=True)


def _supervise(children: list[Child]) -> int:
    while True:
        for child in children:
            child.require_alive()
        time.sleep(SUPERVISION_SECONDS)


def _announce(stack: Stack, seconds: float) -> None:
    state = stack.state_dir
    what = f"Tributary is ready at {stack.url}" if stack.host else "Database and storage are ready"
    print(f"{what} after {seconds:.1f} s")
    if stack.host:
        print(f"  API documentation   {stack.url}/api/docs")
    print(f"  settings for a shell  source {state / 'env'}")
    print(f"  logs                  {state / 'logs'}")
    print("Ctrl-C stops everything and keeps the state.", flush=True)


def _parse(arguments: list[str]) -> tuple[StackOptions, bool]:
    defaults = options_from_environment()
    parser = argparse.ArgumentParser(prog="python -m local.up", description=__doc__)
    parser.add_argument("--state", type=Path, default=defaults.state_dir, help="folder that keeps the state")
    parser.add_argument("--app", type=Path, default=defaults.app_dir, help="folder of function_app.py")
    parser.add_argument("--port", type=int, default=defaults.port, help="TRIBUTARY_PORT")
    parser.add_argument("--postgres-port", type=int, default=defaults.postgres_port, help="POSTGRES_PORT")
    parser.add_argument("--blob-port", type=int, default=defaults.blob_port, help="AZURITE_BLOB_PORT")
    parser.add_argument("--queue-port", type=int, default=defaults.queue_port, help="AZURITE_QUEUE_PORT")
    parser.add_argument(
        "--services-only",
        action="store_true",
        help="start no host; run it yourself: python -m local.host --env-file STATE/host.env --state STATE",
    )
    given = parser.parse_args(arguments)
    options = replace(
        defaults,
        state_dir=given.state,
        app_dir=given.app.resolve(),
        port=given.port,
        postgres_port=given.postgres_port,
        blob_port=given.blob_port,
        queue_port=given.queue_port,
    )
    return options, given.services_only


if __name__ == "__main__":
    sys.exit(main())
