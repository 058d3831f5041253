"""Tributary as its users see it: HTTP, the blob container and SQL."""

from types import TracebackType
from typing import Any, Self

import httpx
import psycopg
from azure.storage.blob import BlobServiceClient
from psycopg.rows import dict_row

from local.stack import Stack
from tests.support.local_stack import eventually

ENDED = {"completed", "failed", "cancelled"}


class Outside:
    """Calls a running stack with its admin key."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.api = httpx.Client(
            base_url=f"{stack.url}/api",
            headers={"X-API-Key": stack.settings["TRIBUTARY_BOOTSTRAP_KEY"]},
            timeout=30,
        )
        self.blobs = BlobServiceClient.from_connection_string(stack.settings["AzureWebJobsStorage"])
        self.database = psycopg.connect(stack.settings["DATABASE_URL"], autocommit=True, row_factory=dict_row)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.api.close()
        self.blobs.close()
        self.database.close()

    def submit(self, content: bytes, import_source: str, *, name: str = "issues.csv", **form: str) -> str:
        """POST a file and return the job's id."""
        answer = self.api.post(
            "/import", files={"file": (name, content)}, data={"import_source": import_source, **form}
        )
        assert answer.status_code == 202, answer.text
        return answer.json()["job_id"]

    def imported(self, content: bytes, import_source: str, *, name: str = "issues.csv", **form: str) -> dict[str, Any]:
        """POST a file and return the job's last status."""
        return self.ended(self.submit(content, import_source, name=name, **form))

    def status(self, job_id: str) -> dict[str, Any]:
        answer = self.api.get(f"/import/status/{job_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ended(self, job_id: str, seconds: float = 60) -> dict[str, Any]:
        """The job's status once it has ended."""

        def look() -> dict[str, Any]:
            status = self.status(job_id)
            assert status["state"] in ENDED, status
            return status

        return eventually(look, seconds)

    def rows(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        return self.database.execute(statement, parameters).fetchall()  # pyright: ignore[reportArgumentType]
