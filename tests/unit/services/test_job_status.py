"""How a job's row and its ledger read as a status."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from shared.domain.job import Counts, ImportOptions, JobState, Kind, Priority
from shared.services.job_status import WaitingFor, to_status
from shared.store.batches import NO_PROGRESS, Progress
from shared.store.jobs import Job

NOW = datetime(2025, 3, 31, 14, 0, tzinfo=UTC)


def job(**over: Any) -> Job:
    nothing = dict.fromkeys(name for name, field in Job.model_fields.items() if field.is_required())
    values: dict[str, Any] = {
        "id": UUID(int=1),
        "source": "csv",
        "import_source": "tern",
        "kind": Kind.ISSUES,
        "state": JobState.PROCESSING,
        "priority": Priority.NORMAL,
        "options": ImportOptions(),
        "file_bytes": 1000,
        "requested_by": "key:1",
        "attempt": 1,
        "warnings": [],
        "cancel_requested": False,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Job.model_validate(nothing | values | over)


def done(rows: int, *, checked: int = 0, error: dict[str, Any] | None = None) -> Progress:
    return NO_PROGRESS.model_copy(
        update={"counts": Counts(rows=rows, created=rows), "checked_rows": checked, "last_error": error}
    )


def test_progress_tells_how_much_is_left() -> None:
    running = job(rows_total=1000, started_at=NOW - timedelta(seconds=12), planned_at=NOW - timedelta(seconds=10))

    status = to_status(running, done(250), now=NOW)

    assert (status.percent, status.seconds, status.rows_per_second) == (25, 12, 20.83)
    assert status.estimated_seconds_left == 30


def test_rows_of_an_atomic_job_are_walked_twice() -> None:
    atomic = job(rows_total=100, options=ImportOptions(atomic=True), planned_at=NOW - timedelta(seconds=6))

    status = to_status(atomic, done(20, checked=100), now=NOW)

    assert (status.percent, status.estimated_seconds_left) == (60, 4)


@pytest.mark.parametrize(
    ("state", "file_bytes", "waiting_for"),
    [
        (JobState.QUEUED, None, WaitingFor.FILE),
        (JobState.QUEUED, 10, WaitingFor.TURN),
        (JobState.RETRYING, 10, WaitingFor.RETRY),
        (JobState.PROCESSING, 10, None),
        (JobState.COMPLETED, 10, None),
    ],
    ids=str,
)
def test_a_job_says_what_it_waits_for(state: JobState, file_bytes: int | None, waiting_for: WaitingFor | None) -> None:
    assert to_status(job(state=state, file_bytes=file_bytes), NO_PROGRESS, now=NOW).waiting_for == waiting_for


def test_an_empty_ledger_is_no_progress_and_no_division() -> None:
    status = to_status(job(started_at=NOW, planned_at=NOW, rows_total=10), NO_PROGRESS, now=NOW)

    assert (status.percent, status.rows_per_second, status.estimated_seconds_left) == (0, None, None)


def test_all_rows_done_is_not_yet_completed() -> None:
    assert to_status(job(rows_total=10), done(10), now=NOW).percent == 99.9
    assert to_status(job(rows_total=10, state=JobState.COMPLETED), done(10), now=NOW).percent == 100


def test_the_error_of_the_last_try_shows_until_the_job_ends() -> None:
    failed_try = done(0, error={"code": "storage_unavailable", "detail": "The storage does not answer"})

    retrying = to_status(job(state=JobState.RETRYING), failed_try, now=NOW)
    completed = to_status(job(state=JobState.COMPLETED), failed_try, now=NOW)

    assert retrying.error is not None
    assert retrying.error.code == "storage_unavailable"
    assert completed.error is None
