"""What a phase cost: processor time and memory of the stack's processes, and the WAL the server wrote."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg

SAMPLE_SECONDS = 0.2
_MEGABYTE = 1024 * 1024
_TOUCHED_BYTES = 8 * 1024 * _MEGABYTE


@dataclass
class Cost:
    """Filled in when the measured block ends."""

    seconds: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)
    wal_bytes: int = 0
    rss_bytes: int = 0


@contextmanager
def measured(url: str, pids: dict[str, int], *, memory_of: str | None = None) -> Iterator[Cost]:
    """Measure a block: wall time, processor time per named process tree, WAL, and the peak memory of one of them."""
    cost = Cost()
    with psycopg.connect(url, autocommit=True) as connection:
        lsn = _lsn(connection)
        before = {name: _cpu_seconds(pid) for name, pid in pids.items()}
        own = time.process_time()
        with _peak_memory(pids.get(memory_of or ""), cost):
            started = time.perf_counter()
            yield cost
            cost.seconds = time.perf_counter() - started
        cost.cpu = {name: _cpu_seconds(pid) - before[name] for name, pid in pids.items()}
        cost.cpu["client"] = time.process_time() - own
        cost.wal_bytes = _wal_since(connection, lsn)


def settle(url: str, *tables: str) -> None:
    """Bring the server and the disk to rest, so that no phase pays for the one before it."""
    with psycopg.connect(url, autocommit=True) as connection:
        for table in tables:
            connection.execute(f"vacuum (analyze) {table}".encode())
        connection.execute("checkpoint")
    os.sync()
    _touch_memory()


def _touch_memory() -> None:
    """Use free memory once and give it back.

    Under a hypervisor that takes free pages from its guests, the first use of a page costs ten times what the next
    ones do; without this, whoever writes files first would pay for what the machine did before.
    """
    _ = b"\1" * min(_TOUCHED_BYTES, psutil.virtual_memory().available // 2)


def _lsn(connection: psycopg.Connection) -> str:
    row = connection.execute("select pg_current_wal_lsn()::text").fetchone()
    return row[0] if row else "0/0"


def _wal_since(connection: psycopg.Connection, lsn: str) -> int:
    row = connection.execute("select pg_wal_lsn_diff(pg_current_wal_lsn(), %s::pg_lsn)::bigint", (lsn,)).fetchone()
    return row[0] if row else 0


def _cpu_seconds(pid: int) -> float:
    """Processor time of a process, its living children and those it has buried."""
    total = 0.0
    for process in _tree(pid):
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total


def _tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


@contextmanager
def _peak_memory(pid: int | None, cost: Cost) -> Iterator[None]:
    """Sample the whole tree, and in the end believe the kernel's own high-water mark if that is higher."""
    if pid is None:
        yield
        return
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            cost.rss_bytes = max(cost.rss_bytes, _resident_bytes(pid))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield
    finally:
        ended.set()
        sampler.join()
        cost.rss_bytes = max(cost.rss_bytes, _high_water_bytes(pid))


def _resident_bytes(pid: int) -> int:
    total = 0
    for process in _tree(pid):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


def _high_water_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():  # Only Linux keeps it.
        return 0
    for line in status.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def megabytes(count: int) -> int:
    return round(count / _MEGABYTE)
