"""A local stack of its own for a test: free ports, a temporary state directory, any function app."""

import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from local.stack import ROOT, Stack, StackOptions


def free_ports(count: int) -> list[int]:
    """Ports free at this moment; all are held open until the last is known, so that they differ."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in held]
    for listener in held:
        listener.close()
    return ports


@contextmanager
def running_stack(app_dir: Path = ROOT, **settings: str) -> Iterator[Stack]:
    """Start database, storage and host; everything is stopped and deleted at the end."""
    host, postgres, blobs, queues = free_ports(4)
    directory = Path(tempfile.mkdtemp(prefix="tributary-stack-"))
    options = StackOptions(
        state_dir=directory,
        app_dir=app_dir,
        port=host,
        postgres_port=postgres,
        blob_port=blobs,
        queue_port=queues,
        quiet=True,
        extra_settings=settings,
    )
    try:
        with Stack(options) as stack:
            yield stack
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def eventually[T](look: Callable[[], T], seconds: float = 30) -> T:
    """Repeat until a look around asserts nothing wrong, and return what it saw."""
    attempts = Retrying(
        retry=retry_if_exception_type(AssertionError),
        stop=stop_after_delay(seconds),
        wait=wait_fixed(0.1),
        reraise=True,
    )
    return attempts(look)
