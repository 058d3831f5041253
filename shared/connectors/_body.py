"""The bodies of answers: bounded, and told apart from pages that a proxy sends in between."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httpx

from shared.domain.errors import SourceError, Trouble

_MOST_BYTES = 64 * 1024 * 1024


async def read(response: httpx.Response) -> bytes:
    """The whole body, if it is not too large."""
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > _MOST_BYTES:
            raise SourceError(Trouble.PAYLOAD_INVALID, "The answer is larger than 64 MB")
    return bytes(content)


def value_of(response: httpx.Response, content: bytes, decode: Callable[[bytes], Any]) -> Any:
    """What `decode` makes of a body, None where there is none to expect; SourceError where it raises ValueError."""
    if not content.strip():
        if response.status_code == HTTPStatus.OK:
            raise _not_json(response)
        return None
    try:
        return decode(content)
    except ValueError as error:
        raise _not_json(response) from error


def _not_json(response: httpx.Response) -> SourceError:
    if is_html(response.headers):
        return SourceError(
            Trouble.MAINTENANCE,
            "The source sent a web page where data was expected",
            status=response.status_code,
            hint="A maintenance or log-in page: check the address if it stays",
        )
    return SourceError(Trouble.PAYLOAD_INVALID, "The answer is cut off or is not JSON", status=response.status_code)


def is_html(headers: httpx.Headers) -> bool:
    """Whether it is a page for people."""
    return "html" in headers.get("content-type", "")
