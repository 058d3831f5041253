"""A blob store for the tests: Azurite on free ports, forgotten at the end of the session."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.azurite import start_azurite
from tests.support.ports import free_ports


@contextmanager
def running_azurite() -> Iterator[str]:
    """Start Azurite and yield its connection string (blobs and queues)."""
    with tempfile.TemporaryDirectory(prefix="tributary-azurite-", ignore_cleanup_errors=True) as directory:
        azurite = start_azurite(Path(directory), *free_ports(2))
        try:
            yield azurite.connection_string
        finally:
            azurite.stop()
