"""Jobs: one import or sync run, its states, priorities, options and counts."""

from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class JobState(StrEnum):
    """The life of a job: queued → processing → completed, or retrying, failed, cancelled. See docs/architecture.md."""

    QUEUED = "queued"
    PROCESSING = "processing"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


# The error of an atomic import that stored nothing, because a record was rejected.
ATOMIC_REJECTED = "atomic_rejected"
ENDED = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})


class Priority(StrEnum):
    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Kind(StrEnum):
    """What the records of a file are."""

    ISSUES = "issues"
    PROJECTS = "projects"


class JobKind(StrEnum):
    """What a job does: load a file of issues or projects, or sync a connection."""

    ISSUES = "issues"
    PROJECTS = "projects"
    SYNC = "sync"


WEBHOOK_ACTOR = "webhook"
"""Who asked for a sync of what webhooks told about."""


class Turn(NamedTuple):
    """One attempt at a job, as it is handed to an orchestration."""

    job_id: UUID
    attempt: int
    kind: JobKind


class Duplicates(StrEnum):
    """What happens to a record that is there already, in the file or in the database."""

    UPDATE = "update"  # the last valid one wins
    SKIP = "skip"  # the first valid one wins; what the database holds stays


class DateOrder(StrEnum):
    """How numeric dates such as 03/04/2025 are read."""

    DMY = "dmy"
    MDY = "mdy"


class ImportOptions(BaseModel):
    """What the caller asked for; stored with the job, never holds a secret."""

    model_config = ConfigDict(frozen=True)

    kind: Kind = Kind.ISSUES
    duplicates: Duplicates = Duplicates.UPDATE
    atomic: bool = False
    mapping: dict[str, str] = Field(default_factory=dict, description="Field of an issue → column of the file")
    date_order: DateOrder | None = None
    encoding: str | None = Field(default=None, min_length=1, max_length=40, pattern=r"^[A-Za-z0-9._ -]+$")
    delimiter: str | None = Field(
        default=None, pattern=r"^(?:tab|\\t|[^\"\r\n\x00])$", description="One character, or `tab`"
    )


class ImportRequest(BaseModel):
    """One file somebody wants imported, before it is a job."""

    model_config = ConfigDict(frozen=True)

    file_name: str
    import_source: str
    options: ImportOptions = ImportOptions()
    priority: Priority = Priority.NORMAL
    idempotency_key: str | None = None
    parent_id: UUID | None = Field(default=None, description="The job whose rejections this file mends")


class Counts(BaseModel):
    """How many records came to what. `rows` = the sum of all others."""

    model_config = ConfigDict(frozen=True)

    rows: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    stale: int = 0  # older than what is stored, so left alone
    skipped: int = 0  # there already, and the caller asked to skip
    duplicates: int = 0  # lost against another row of the same file
    rejected: int = 0
