"""What a job keeps of an error that ends it."""

from typing import Any

from shared.domain.errors import SourceError, TributaryError


def told(error: Exception) -> dict[str, Any]:
    """What is written of an error that ends a job. One that is raised instead starts the job again, for ever."""
    if isinstance(error, SourceError):
        return {"code": error.trouble.value, "detail": error.detail, "hint": error.hint, "status": error.status}
    if isinstance(error, TributaryError):
        return {"code": error.code, "detail": error.detail, "hint": error.hint}
    return {"code": "internal_error", "detail": f"{type(error).__name__} in a step of the job; the logs know more"}
