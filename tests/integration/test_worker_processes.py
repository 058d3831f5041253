"""The local host with several worker processes, as FUNCTIONS_WORKER_PROCESS_COUNT asks for."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from local.stack import Stack
from tests.support.local_stack import eventually, running_stack

APP = Path(__file__).parents[1] / "fixtures" / "local_app"


@pytest.fixture
def stack() -> Iterator[Stack]:
    with running_stack(APP, FUNCTIONS_WORKER_PROCESS_COUNT="2") as running:
        yield running


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, timeout=60) as client:
        yield client


def workers(client: httpx.Client) -> set[int]:
    return {client.get("/api/process").json() for _ in range(4)}


def test_invocations_go_to_the_workers_in_turns_and_bring_the_same(client: httpx.Client, stack: Stack) -> None:
    assert stack.host is not None
    assert len(workers(client) - {stack.host.process.pid}) == 2

    content = bytes(range(256)) * 40_000
    echoed = client.post("/api/echo/deep/down", content=content)
    summed = client.post("/api/start/fan_out", json=20).json()
    caught = client.post("/api/start/catches", json="boo").json()

    assert (echoed.status_code, echoed.content) == (201, content)
    assert echoed.headers.get_list("set-cookie") == ["first=1; Path=/", "second=2; Path=/"]
    assert summed == {"status": "COMPLETED", "output": sum(n * n for n in range(20))}
    assert caught["output"] == ["KeyError", "'boo'"]
    assert client.get("/api/broken").status_code == 500
    assert 'ValueError("broken on purpose")' in (stack.state_dir / "logs" / "host.err").read_text()


def test_no_worker_outlives_a_killed_host(client: httpx.Client, stack: Stack) -> None:
    left = workers(client)
    os.kill(int((stack.state_dir / "host.pid").read_text()), signal.SIGKILL)

    def ended() -> None:
        assert not [pid for pid in left if psutil.pid_exists(pid)]

    eventually(ended)


def test_a_host_that_lost_a_worker_ends_and_says_so(client: httpx.Client, stack: Stack) -> None:
    os.kill(workers(client).pop(), signal.SIGKILL)
    assert stack.host is not None

    assert stack.host.process.wait(30) != 0
    assert "A worker process ended with -9" in (stack.state_dir / "logs" / "host.err").read_text()
