"""Every error Tributary raises on purpose.

TributaryError
├── InvalidRequestError          the caller sent something we cannot act on
│   └── FileRefusedError         a file as a whole cannot be read
├── NotAuthenticatedError        no credentials, or credentials that prove nothing
├── NotAllowedError              a known caller without the role
├── NotFoundError
├── ConflictError                the request contradicts the state of things
├── TooLargeError                over a size limit
├── TooManyRequestsError         carries retry_after seconds
├── MisconfiguredError           a setting of ours is wrong; no caller can help it
├── SourceError                  a tracker refused or failed; carries its class of trouble and advice
└── UnavailableError             a part we need is out of reach; retryable
    ├── DatabaseUnavailableError
    └── StorageUnavailableError

A class says whether the same call may succeed later (`retryable`) and has a stable `code` for machines.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar


class TributaryError(Exception):
    """Something went wrong in a way we know how to describe."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str = "", *, hint: str = "", fields: dict[str, str] | None = None) -> None:
        self.detail = detail or (self.__doc__ or "")
        self.hint = hint
        self.fields = fields or {}
        super().__init__(self.detail)


class InvalidRequestError(TributaryError):
    """The request cannot be understood."""

    code = "invalid_request"


class FileRefusedError(InvalidRequestError):
    """The file as a whole cannot be imported; `reason` is a stable word such as `truncated` or `binary`."""

    code = "file_refused"

    def __init__(self, reason: str, detail: str, *, hint: str = "") -> None:
        self.reason = reason
        super().__init__(detail, hint=hint)


class NotAuthenticatedError(TributaryError):
    """No valid credentials were sent."""

    code = "not_authenticated"


class NotAllowedError(TributaryError):
    """The caller is known but lacks the role this call needs."""

    code = "not_allowed"


class NotFoundError(TributaryError):
    """There is nothing under this name."""

    code = "not_found"


class ConflictError(TributaryError):
    """The request contradicts the present state."""

    code = "conflict"


class TooLargeError(TributaryError):
    """The body is larger than this call accepts."""

    code = "too_large"


class TooManyRequestsError(TributaryError):
    """The caller is over its request limit."""

    code = "too_many_requests"
    retryable = True

    def __init__(self, detail: str, *, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(detail)


class MisconfiguredError(TributaryError):
    """A setting of this installation is missing or wrong."""

    code = "misconfigured"


class UnavailableError(TributaryError):
    """A part of the system is out of reach for now."""

    code = "unavailable"
    retryable = True


class DatabaseUnavailableError(UnavailableError):
    """The database does not answer."""

    code = "database_unavailable"


class StorageUnavailableError(UnavailableError):
    """The blob storage does not answer."""

    code = "storage_unavailable"


class Trouble(StrEnum):
    """What can be wrong with a source; every answer that is not a success is exactly one of these."""

    AUTH_EXPIRED = "AUTH_EXPIRED"
    AUTH_INVALID = "AUTH_INVALID"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    SUSPENDED_PAYMENT = "SUSPENDED_PAYMENT"
    RATE_LIMIT = "RATE_LIMIT"
    NOT_FOUND = "NOT_FOUND"
    BAD_REQUEST = "BAD_REQUEST"
    SCHEMA_CHANGED = "SCHEMA_CHANGED"
    PAYLOAD_INVALID = "PAYLOAD_INVALID"
    SERVER_ERROR = "SERVER_ERROR"
    MAINTENANCE = "MAINTENANCE"
    NETWORK_GLITCH = "NETWORK_GLITCH"
    TIMEOUT = "TIMEOUT"

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later without anybody doing anything."""
        return self in _PASSING

    @property
    def advice(self) -> str:
        """One sentence a person can act on."""
        return _ADVICE[self]


_PASSING = frozenset(
    {
        Trouble.RATE_LIMIT,
        Trouble.PAYLOAD_INVALID,
        Trouble.SERVER_ERROR,
        Trouble.MAINTENANCE,
        Trouble.NETWORK_GLITCH,
        Trouble.TIMEOUT,
    }
)
_ADVICE = {
    Trouble.AUTH_EXPIRED: "Create a new token in the tracker and save it in the connection's credentials",
    Trouble.AUTH_INVALID: "Check the address, the account and the token; the tracker does not know them",
    Trouble.PERMISSION_DENIED: "Give the account of this connection the permission named, or leave the scope out",
    Trouble.SUSPENDED_PAYMENT: "The tracker's subscription is suspended: have its owner settle it",
    Trouble.RATE_LIMIT: "Nothing to do: the job goes on by itself when the tracker allows it",
    Trouble.NOT_FOUND: "Check the name; it does not exist, was renamed, or is hidden from this account",
    Trouble.BAD_REQUEST: "Check the query and the field names in the connection's settings",
    Trouble.SCHEMA_CHANGED: "The tracker's API changed: look for a newer version of Tributary",
    Trouble.PAYLOAD_INVALID: "The answer was cut off or is not JSON; if it stays, look for a proxy in between",
    Trouble.SERVER_ERROR: "The tracker has a problem of its own; it is tried again",
    Trouble.MAINTENANCE: "The tracker is down for maintenance; it is tried again",
    Trouble.NETWORK_GLITCH: "The connection broke; it is tried again. If it stays, check address and firewall",
    Trouble.TIMEOUT: "The tracker did not answer in time; it is tried again",
}


class SourceError(TributaryError):
    """A tracker answered with an error, or not at all. `detail` is safe to show: it never holds a secret or a body."""

    code = "source_error"

    def __init__(
        self,
        trouble: Trouble,
        detail: str,
        *,
        status: int | None = None,
        retry_at: datetime | None = None,
        hint: str = "",
    ) -> None:
        self.trouble = trouble
        self.status = status
        self.retry_at = retry_at
        super().__init__(detail, hint=hint or trouble.advice)


def told(error: Exception) -> dict[str, Any]:
    """What is kept of an error that ends a job, or a part of one. One that is raised instead starts the job again."""
    if isinstance(error, SourceError):
        return {"code": error.trouble.value, "detail": error.detail, "hint": error.hint, "status": error.status}
    if isinstance(error, TributaryError):
        return {"code": error.code, "detail": error.detail, "hint": error.hint}
    return {"code": "internal_error", "detail": f"{type(error).__name__} in a step of the job; the logs know more"}
