"""The local function host serves every kind of trigger as Azure does. The app is tests/fixtures/local_app."""

import base64
import http.client
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.storage.blob import ContainerClient
from azure.storage.queue import QueueClient

from local.stack import Stack
from tests.support.local_stack import eventually, running_stack

APP = Path(__file__).parents[1] / "fixtures" / "local_app"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(APP) as running:
        yield running


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, timeout=60) as client:
        yield client


@pytest.fixture
def admin(stack: Stack) -> dict[str, str]:
    return {"x-functions-key": stack.settings["FUNCTIONS_MASTER_KEY"]}


@pytest.fixture
def uploads(stack: Stack) -> Iterator[ContainerClient]:
    with ContainerClient.from_connection_string(stack.settings["UploadsStorage"], "uploads") as container:
        yield container


def queue(stack: Stack, name: str) -> QueueClient:
    client = QueueClient.from_connection_string(stack.settings["AzureWebJobsStorage"], name)
    if name not in {found.name for found in _queues(stack)}:
        client.create_queue()
    return client


def _queues(stack: Stack) -> list[Any]:
    from azure.storage.queue import QueueServiceClient

    return list(QueueServiceClient.from_connection_string(stack.settings["AzureWebJobsStorage"]).list_queues())


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def seen(client: httpx.Client) -> dict[str, Any]:
    return client.get("/api/seen").json()


def orchestrate(client: httpx.Client, name: str, given: object, **params: str) -> dict[str, Any]:
    return client.post(f"/api/start/{name}", json=given, params=params).json()


def test_the_most_literal_route_answers(client: httpx.Client) -> None:
    assert client.get("/api/things/special").json() == {"function": "special"}
    assert client.get("/api/things/a%20b").json() == {"function": "thing", "params": {"id": "a b"}}
    assert client.get("/api/nothing-here").status_code == 404
    assert client.delete("/api/echo/x").status_code == 404


def test_bytes_headers_and_query_pass_unchanged(client: httpx.Client) -> None:
    content = bytes(range(256))

    response = client.post("/api/echo/deep/down?x=1&x=2&name=%C3%A9", content=content)

    assert (response.status_code, response.content) == (201, content)
    assert response.headers["x-rest"] == "deep/down"
    assert response.headers["x-query"] == '{"x": "1,2", "name": "\\u00e9"}'
    assert response.headers["x-url"].endswith("/api/echo/deep/down?x=1&x=2&name=%C3%A9")
    assert response.headers.get_list("set-cookie") == ["first=1; Path=/", "second=2; Path=/"]


def test_a_function_key_opens_guarded_functions(client: httpx.Client, admin: dict[str, str]) -> None:
    assert client.get("/api/guarded").status_code == 401
    assert client.get("/api/guarded", headers=admin).json() == "welcome"


def test_a_failing_function_answers_500_and_its_traceback_is_logged(client: httpx.Client, stack: Stack) -> None:
    assert client.get("/api/broken").status_code == 500
    assert 'ValueError("broken on purpose")' in (stack.state_dir / "logs" / "host.err").read_text()


def test_a_body_above_the_limit_is_refused_before_it_is_sent(stack: Stack) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", stack.options.port)
    connection.putrequest("POST", "/api/echo/large")
    connection.putheader("Content-Length", str(100 * 1024 * 1024 + 1))
    connection.endheaders()

    assert connection.getresponse().status == 413
    connection.close()


def test_timers_run_by_the_clock_at_startup_and_by_hand(client: httpx.Client, admin: dict[str, str]) -> None:
    def clock_ran() -> None:
        assert len(seen(client)["every_second"]) >= 3

    def hand_ran() -> None:
        assert seen(client)["yearly"] == [False]

    eventually(clock_ran)
    assert "yearly" not in seen(client)
    assert client.post("/admin/functions/yearly", json={"input": ""}).status_code == 401
    assert client.post("/admin/functions/yearly", json={"input": ""}, headers=admin).status_code == 202
    eventually(hand_ran)


def test_queue_messages_arrive_and_leave(client: httpx.Client, stack: Stack) -> None:
    tasks = queue(stack, "tasks")

    tasks.send_message(encoded("übung"))

    def arrived() -> None:
        assert ["übung", 1] in seen(client).get("tasks", [])
        assert tasks.get_queue_properties().approximate_message_count == 0

    eventually(arrived)


def test_a_message_that_fails_five_times_is_poison(client: httpx.Client, stack: Stack) -> None:
    poison = queue(stack, "tasks-poison")

    queue(stack, "tasks").send_message(encoded("poison"))

    def moved() -> None:
        assert [message.content for message in poison.peek_messages()] == [encoded("poison")]

    eventually(moved)
    assert seen(client)["attempts"]["poison"] == 5


def test_a_blob_arrives_with_its_metadata(client: httpx.Client, uploads: ContainerClient) -> None:
    blob = uploads.upload_blob("team/a b.csv", b"id\n1\n", metadata={"import_source": "team"})

    def arrived() -> None:
        assert ["uploads/team/a b.csv", blob.url, 5, {"import_source": "team"}, 5] in seen(client).get("uploads", [])

    eventually(arrived)


def test_a_large_blob_arrives_without_its_content(client: httpx.Client, uploads: ContainerClient) -> None:
    size = 5 * 1024 * 1024
    blob = uploads.upload_blob("large.csv", b"x" * size)
    uploads.upload_blob("ignored.bin", b"the path of the trigger says csv")

    def arrived() -> None:
        assert ["uploads/large.csv", blob.url, size, {}, 0] in seen(client).get("uploads", [])

    eventually(arrived)
    assert "uploads/ignored.bin" not in seen(client)["attempts"]


def test_a_blob_that_fails_five_times_is_reported_in_the_poison_queue(
    client: httpx.Client, uploads: ContainerClient, stack: Stack
) -> None:
    uploads.upload_blob("bad.csv", b"")
    properties = uploads.get_blob_client("bad.csv").get_blob_properties()

    def reported() -> None:
        assert seen(client).get("poison_blobs") == [
            {
                "Type": "BlobTrigger",
                "FunctionId": "Host.Functions.on_upload",
                "BlobType": "BlockBlob",
                "ContainerName": "uploads",
                "BlobName": "bad.csv",
                "ETag": f'"{properties.etag.strip('"')}"',
            }
        ]

    eventually(reported)
    assert seen(client)["attempts"]["uploads/bad.csv"] == 5


def test_activities_run_side_by_side_within_the_limit(client: httpx.Client) -> None:
    answer = orchestrate(client, "fan_out", 40)

    assert answer == {"status": "COMPLETED", "output": sum(n * n for n in range(40))}
    assert seen(client)["side_by_side"] == 3


@pytest.mark.parametrize(
    ("message", "expected"), [("boo", ["KeyError", "'boo'"]), ("", ["TimeoutError", "TimeoutError()"])]
)
def test_an_orchestration_learns_type_and_message_of_an_error(
    client: httpx.Client, message: str, expected: list[str]
) -> None:
    assert orchestrate(client, "catches", message)["output"] == expected


def test_an_activity_starts_another_orchestration(client: httpx.Client) -> None:
    assert orchestrate(client, "hands_over", 4)["output"] == 14
    assert seen(client)["started_by_activity"] == ["14"]


def test_the_id_of_a_finished_instance_can_be_used_again(client: httpx.Client) -> None:
    outputs = [orchestrate(client, "fan_out", count, id="again")["output"] for count in (2, 3)]

    assert outputs == [1, 5]


def test_an_unknown_orchestrator_fails_its_instance(client: httpx.Client) -> None:
    assert orchestrate(client, "nobody", 1)["status"] == "FAILED"


def test_a_killed_host_starts_again_and_fires_no_blob_twice(
    client: httpx.Client, uploads: ContainerClient, stack: Stack
) -> None:
    uploads.upload_blob("before.csv", b"1")

    def before_arrived() -> None:
        assert "uploads/before.csv" in seen(client)["attempts"]

    eventually(before_arrived)
    os.kill(int((stack.state_dir / "host.pid").read_text()), signal.SIGKILL)
    assert stack.host is not None
    stack.host.process.wait()
    stack.start_host()
    uploads.upload_blob("after.csv", b"2")

    def after_arrived() -> None:
        assert set(seen(client)["attempts"]) == {"uploads/after.csv"}

    eventually(after_arrived)
