"""Answers that more than one area gives."""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, Field, StringConstraints

from shared.domain.job import ATOMIC_REJECTED, ENDED, JobKind, JobState
from shared.services.job_status import JobStatus, LogEntry
from shared.store.jobs import Job

# What every database and every header can hold.
_PLAIN = r"^[^\x00-\x1f\x7f]+$"
Word = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_PLAIN)]
# What a tracker calls something, such as a project or an issue.
Name = Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=_PLAIN)]
# A date and time with its zone as RFC 3339 writes it; bare numbers and days would be guesses.
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
ImportSource = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]


def _written_out(value: object) -> object:
    if isinstance(value, str) and not _RFC_3339.fullmatch(value):
        raise ValueError("write it as 2025-03-31T14:05:00Z")
    if isinstance(value, int | float):
        raise ValueError("must be a text")  # noqa: TRY004  # pydantic reports only ValueErrors
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_written_out)]


def _of_our_times(moment: datetime) -> datetime:
    if moment < _EARLIEST:
        raise ValueError("must be 1990 or later; mode full reads everything")
    return moment


# Of a change in a tracker. No tracker is older, and some refuse earlier times or go on counting from the wrong end.
ChangedSince = Annotated[Moment, AfterValidator(_of_our_times)]


class Link(BaseModel):
    """A call that makes sense now."""

    method: Literal["GET", "POST"]
    href: str = Field(examples=["/api/import/status/0b3e8c1e-58a5-4f0e-9d0b-0a4f6c1f2d11"])


Links = Annotated[dict[str, Link], Field(description="What can be done next, by name")]


class Accepted(BaseModel):
    """A job was queued, or had been under the same Idempotency-Key."""

    job_id: UUID
    state: JobState
    import_source: str = Field(examples=["petrel-bugs"])
    links: Links


class JobView(JobStatus):
    """A job, its progress, and what can be done next."""

    links: Links


class JobDetails(JobView):
    """The same with what happened to the job, oldest first."""

    log: list[LogEntry]


class JobPage(BaseModel):
    """Jobs, newest first."""

    items: list[JobView]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; absent on the last")


def accepted(job: Job) -> Accepted:
    """The answer to a call that queued a job."""
    return Accepted(
        job_id=job.id, state=job.state, import_source=job.import_source, links=_links_of_new(job.id, job.state)
    )


def job_view(status: JobStatus) -> JobView:
    """A status with the links that fit its state."""
    return JobView(**status.model_dump(), links=job_links(status))


def job_links(status: JobStatus) -> dict[str, Link]:
    """What can be done with a job in its state."""
    links = _links_of_new(status.job_id, status.state)
    base = f"/api/import/{status.job_id}"
    has_file = status.file_bytes is not None or status.sync is not None
    hopeless = status.error is not None and status.error.code == ATOMIC_REJECTED
    if status.state in {JobState.FAILED, JobState.CANCELLED} and has_file and not hopeless:
        links["retry"] = Link(method="POST", href=f"{base}/retry")
    if status.counts.rejected:
        links["rejections_csv"] = Link(method="GET", href=f"{base}/rejections?format=csv")
        links["dismiss"] = Link(method="POST", href=f"{base}/rejections/dismiss")
        stored = status.state is JobState.COMPLETED or not status.options.atomic
        if status.state in ENDED and stored and status.kind is not JobKind.SYNC:
            links["replay"] = Link(method="POST", href=f"{base}/rejections/replay")
    if status.state is JobState.COMPLETED and status.kind is not JobKind.PROJECTS:
        links["issues"] = Link(method="GET", href=f"/api/issues?import_source={status.import_source}")
    if status.sync:
        links["connection"] = Link(method="GET", href=f"/api/integrations/{status.import_source}")
    if status.parent_id:
        links["parent"] = Link(method="GET", href=f"/api/import/status/{status.parent_id}")
    return links


def _links_of_new(job_id: UUID, state: JobState) -> dict[str, Link]:
    links = {
        "status": Link(method="GET", href=f"/api/import/status/{job_id}"),
        "details": Link(method="GET", href=f"/api/pipeline/jobs/{job_id}"),
        "rejections": Link(method="GET", href=f"/api/import/{job_id}/rejections"),
    }
    if state not in ENDED:
        links["cancel"] = Link(method="POST", href=f"/api/import/{job_id}/cancel")
    return links
