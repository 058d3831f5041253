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
└── UnavailableError             a part we need is out of reach; retryable
    ├── DatabaseUnavailableError
    └── StorageUnavailableError

A class says whether the same call may succeed later (`retryable`) and has a stable `code` for machines.
"""

from typing import ClassVar


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
