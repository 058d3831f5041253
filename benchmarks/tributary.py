"""The product, from outside: a stack of its own as a separate process, and one import through its API."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg

from local.environment import read_env_file
from local.processes import end_leftovers, lock_state

ROOT = Path(__file__).resolve().parents[1]
IMPORT_SOURCE = "bench"
READY_SECONDS = 120
IMPORT_SECONDS = 3600
POLL_SECONDS = 0.25
_CHUNK_BYTES = 1024 * 1024
_ENDED = ("completed", "failed", "cancelled")
_PORTS = ("TRIBUTARY_PORT", "POSTGRES_PORT", "AZURITE_BLOB_PORT", "AZURITE_QUEUE_PORT")


@dataclass(frozen=True)
class Stack:
    """Where the running stack is."""

    url: str
    api_key: str
    database_url: str
    pids: dict[str, int]


@dataclass(frozen=True)
class Load:
    """One import: the parts of its wall time, and what the status call says it came to."""

    job_id: str
    upload: float
    wait: float
    plan: float
    load: float
    counts: dict[str, int]


class BenchmarkError(Exception):
    """The benchmark cannot say anything; the message says why."""


@contextmanager
def running_stack(state: Path) -> Iterator[Stack]:
    """Start a stack with an empty database of its own on free ports; stopped and deleted at the end."""
    _discard(state)
    log = state.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "local.up", "--state", str(state)],
            cwd=ROOT,
            env=_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield _wait_until_ready(process, state, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        _discard(state)


def load(stack: Stack, path: Path) -> Load:
    """Import one file as a client with a large file does: ask for an address, send the file there, watch the job."""
    with httpx.Client(base_url=stack.url, headers={"X-API-Key": stack.api_key}, timeout=60) as client:
        started = time.perf_counter()
        answer = client.post("/api/import/uploads", json={"file_name": path.name, "import_source": IMPORT_SOURCE})
        offer = answer.raise_for_status().json()
        _send(offer, path)
        sent = time.perf_counter() - started
        status = _watch(client, str(offer["job_id"]))
    if status["state"] != "completed":
        raise BenchmarkError(f"The import of {path.name} {status['state']}: {status.get('error')}")
    return _load_of(stack, status, sent)


def empty_tables(stack: Stack) -> None:
    """Forget every imported row, so that the next load is a first one again."""
    with psycopg.connect(stack.database_url) as connection:
        connection.execute("truncate issues, issue_changes, rejections")


def _send(offer: dict[str, Any], path: Path) -> None:
    headers = {**offer["headers"], "Content-Length": str(path.stat().st_size)}
    with path.open("rb") as file:
        chunks = iter(lambda: file.read(_CHUNK_BYTES), b"")
        httpx.put(offer["upload_url"], content=chunks, headers=headers, timeout=IMPORT_SECONDS).raise_for_status()


def _watch(client: httpx.Client, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + IMPORT_SECONDS
    while time.monotonic() < deadline:
        status = client.get(f"/api/import/status/{job_id}").raise_for_status().json()
        if status["state"] in _ENDED:
            return status
        time.sleep(POLL_SECONDS)
    raise BenchmarkError(f"Job {job_id} did not end within {IMPORT_SECONDS} s")


def _load_of(stack: Stack, status: dict[str, Any], sent: float) -> Load:
    job_id = str(status["job_id"])
    with psycopg.connect(stack.database_url) as connection:
        row = connection.execute(
            "select created_at, started_at, planned_at, finished_at from jobs where id = %s", (job_id,)
        ).fetchone()
    if row is None:
        raise BenchmarkError(f"Job {job_id} is not in the database")
    created, started, planned, finished = row
    return Load(
        job_id=job_id,
        upload=sent,
        wait=(started - created).total_seconds() - sent,
        plan=(planned - started).total_seconds(),
        load=(finished - planned).total_seconds(),
        counts=status["counts"],
    )


def _wait_until_ready(process: subprocess.Popen[bytes], state: Path, log: Path) -> Stack:
    deadline = time.monotonic() + READY_SECONDS
    while "is ready at" not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchmarkError(f"The stack did not start:\n{log.read_text(errors='replace')}")
        time.sleep(0.1)
    found = read_env_file(state / "env")
    return Stack(
        url=found["TRIBUTARY_URL"],
        api_key=found["TRIBUTARY_API_KEY"],
        database_url=found["DATABASE_URL"],
        pids={name: int((state / f"{name}.pid").read_text()) for name in ("host", "postgres", "azurite")},
    )


def _environment() -> dict[str, str]:
    environment = dict(os.environ)  # noqa: TID251 - settings for a child process
    # Never the user's database: the benchmark empties tables.
    environment.pop("DATABASE_URL", None)
    # The status is polled more often than a client should.
    environment["REQUESTS_PER_MINUTE"] = "100000"
    return environment | dict(zip(_PORTS, map(str, _free_ports(len(_PORTS))), strict=True))


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _discard(state: Path) -> None:
    """Remove the state of an earlier run; BenchmarkError if that run is still going on."""
    if not state.exists():
        return
    lock = lock_state(state)
    if lock is None:
        raise BenchmarkError(f"Another benchmark is running with its state in {state}")
    with lock:
        end_leftovers(state)
    shutil.rmtree(state)
