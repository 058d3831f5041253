"""The one HTTP client of all connectors: authentication, limits, timeouts, sub-second retries, and classified errors.

Longer waits are not this module's business: a source that says "later" raises SourceError with `retry_at`, and the job
waits on a durable timer. Redirects are followed here one by one, so that credentials never reach another host; the
transport of the client guards which addresses may be reached at all.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeIs, cast

import httpx
import orjson
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from shared.connectors._body import is_html, read, value_of
from shared.connectors._json import from_json
from shared.connectors._on_behalf import count_request, own_turn
from shared.connectors._protocol import Quota
from shared.domain.errors import SourceError, Trouble
from shared.domain.nul import NUL, without_nul
from shared.domain.redaction import REDACTED

TIMEOUT = httpx.Timeout(30, connect=10)
USER_AGENT = "Tributary"
# TIMEOUT holds for every read alone: an answer that drips would never end.
_ANSWER_SECONDS = 180
_LONGEST_WAIT = timedelta(days=1)
# Shorter words stand in answers by chance.
_SECRET_CHARACTERS = 8
_SECRET_FIELDS = ("secret", "password", "token", "assertion")
_MOST_REDIRECTS = 5
_TRIES = 3
_WAIT = wait_random_exponential(multiplier=0.1, max=0.6)
_QUICKLY_RETRIED = {Trouble.NETWORK_GLITCH, Trouble.SERVER_ERROR, Trouble.PAYLOAD_INVALID}
_SHOWN_CHARACTERS = 200
_MESSAGE_NAMES = ("message", "errorMessages", "detail", "error_description", "error")

Headers = Mapping[str, str]
Authorize = Callable[[], Awaitable[Headers]]
# Give up an authorization that was refused; whether there is another one.
Renounce = Callable[[Headers], bool]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A successful answer, or 304. `data` is its JSON, as it was decoded; `read_at` our time just before the request
    was sent.
    """

    status: int
    headers: httpx.Headers
    data: Any
    read_at: datetime
    url: str
    links: Mapping[str | None, Mapping[str, str]]

    @property
    def server_time(self) -> datetime | None:
        """The source's clock, whole seconds."""
        return parse_http_date(self.headers.get("date"))

    def link(self, relation: str) -> str | None:
        """The target of a Link header."""
        return self.links.get(relation, {}).get("url")


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An answer that is no success, for a connector to classify."""

    status: int
    headers: httpx.Headers
    text: str
    now: datetime

    @property
    def json(self) -> Any:
        """The body as JSON, or None; errors come as HTML, plain text or nothing as well."""
        with suppress(orjson.JSONDecodeError):
            return without_nul(orjson.loads(self.text))
        return None

    @property
    def retry_after(self) -> datetime | None:
        """When Retry-After, in seconds or as a date, allows the next call; a day from now at the latest."""
        value = self.headers.get("retry-after", "").strip()
        with suppress(ValueError):
            return self.now + timedelta(seconds=min(max(float(value), 0), _LONGEST_WAIT.total_seconds()))
        date = parse_http_date(value)
        return min(date, self.now + _LONGEST_WAIT) if date else None

    def error(self, trouble: Trouble, detail: str, *, retry_at: datetime | None = None, hint: str = "") -> SourceError:
        """A SourceError about this answer."""
        return SourceError(trouble, detail, status=self.status, retry_at=retry_at, hint=hint)


Classify = Callable[[Refusal], SourceError | None]
Decode = Callable[[bytes], Any]


async def no_authorization() -> Headers:
    """For calls that carry their credentials in headers of the client."""
    return {}


def nothing_else(_refused: Headers) -> bool:
    """For credentials that have no successor."""
    return False


async def together[T](calls: Iterable[Awaitable[T]]) -> list[T]:
    """The results of calls made side by side, in order; after the first failure the others are called off."""

    async def result(call: Awaitable[T]) -> T:
        return await call

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(result(call)) for call in calls]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


class TrackerHTTP:
    """Requests to one tracker on behalf of one connection."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        base_url: str,
        authorize: Authorize = no_authorization,
        renounce: Renounce = nothing_else,
        classify: Classify | None = None,
        read_quota: Callable[[httpx.Headers], Quota | None] | None = None,
        concurrency: int = 2,
    ) -> None:
        self._client = client
        self._base = httpx.URL(base_url if base_url.endswith("/") else base_url + "/")
        self._authorize = authorize
        self._renounce = renounce
        self._classify = classify
        self._read_quota = read_quota
        self._free = asyncio.Semaphore(concurrency)
        self.requests = 0
        self.quota: Quota | None = None

    async def get(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        headers: Headers | None = None,
        decode: Decode = from_json,
    ) -> Answer:
        """GET a path under the base address, or an absolute URL such as a next link.

        `decode` reads the body of a success, and raises ValueError where it cannot.
        """
        return await self.request("GET", path, params=params, headers=headers, decode=decode)

    async def post(self, path: str, json: Any, *, params: Mapping[str, Any] | None = None) -> Answer:
        """POST JSON; only for calls that change nothing, because it may be sent more than once."""
        return await self.request("POST", path, params=params, json=json)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        headers: Headers | None = None,
        form: Mapping[str, str] | None = None,
        decode: Decode = from_json,
    ) -> Answer:
        """Send a request, again within a second after a glitch. Raises SourceError for anything but a success."""
        request = {"params": params, "json": json, "data": form, "headers": headers}
        retrying = AsyncRetrying(
            stop=stop_after_attempt(_TRIES),
            wait=_WAIT,
            retry=retry_if_exception(_is_glitch),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                return await self._once(method, self._base.join(path), request, decode)
        raise AssertionError("tenacity re-raises")

    async def _once(self, method: str, url: httpx.URL, request: dict[str, Any], decode: Decode) -> Answer:
        redirected = renounced = False
        for _ in range(_MOST_REDIRECTS + 1):
            own = (url.scheme, url.host, url.port) == (self._base.scheme, self._base.host, self._base.port)
            headers = {"Accept": "application/json", "User-Agent": USER_AGENT}
            headers |= cast("Headers", request["headers"] or {})
            async with own_turn(), self._free:
                # Not before it is this call's turn: a token may end meanwhile.
                authorization: Headers = await self._authorize() if own else {}
                read_at = datetime.now(UTC)
                self.requests += 1
                count_request()
                sending = {**request, "headers": {**headers, **authorization}}
                response, content = await self._send(method, url, sending)
            if self._read_quota and (quota := self._read_quota(response.headers)):
                self.quota = quota
            if response.status_code in {301, 302, 307, 308} and "location" in response.headers and method == "GET":
                url = url.join(response.headers["location"])
                request = {**request, "params": None}
                redirected = True
                continue
            if redirected and not own and _wants_log_in(response):
                raise _sent_away(self._base, url)
            sent: Headers = request["data"] or {}
            hidden = [value for name, value in sent.items() if name.endswith(_SECRET_FIELDS)]
            secrets = _secrets_in([*authorization.values(), *hidden])
            if response.is_success or response.status_code == HTTPStatus.NOT_MODIFIED:
                return _answer(response, content, read_at, decode)
            error = self._refused(response, content, secrets)
            # A token may be withdrawn, or be shorter-lived than it said: the same call gets one with another token.
            if renounced or not own or not _is_of_token(response, error) or not self._renounce(authorization):
                raise error
            renounced = True
        raise SourceError(Trouble.SERVER_ERROR, "The source redirects in a circle")

    async def _send(self, method: str, url: httpx.URL, request: dict[str, Any]) -> tuple[httpx.Response, bytes]:
        try:
            message = self._client.build_request(method, url, timeout=TIMEOUT, **_present(request))
            async with asyncio.timeout(_ANSWER_SECONDS):
                response = await self._client.send(message, stream=True, follow_redirects=False)
                try:
                    content = await read(response)
                finally:
                    await response.aclose()
        except httpx.ConnectTimeout as error:
            detail = f"{url.host} could not be reached within {TIMEOUT.connect:.0f} s"
            raise SourceError(Trouble.TIMEOUT, detail) from error
        except httpx.TimeoutException as error:
            raise SourceError(Trouble.TIMEOUT, f"{url.host} did not answer within {TIMEOUT.read:.0f} s") from error
        except TimeoutError as error:
            detail = f"The answer of {url.host} did not end within {_ANSWER_SECONDS} s"
            raise SourceError(Trouble.TIMEOUT, detail) from error
        except UnicodeEncodeError:
            raise _unsendable() from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            if isinstance(error, httpx.LocalProtocolError) and "header value" in str(error):
                raise _unsendable() from None
            raise _broken(url, error) from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise SourceError(Trouble.BAD_REQUEST, "The source sent an address that cannot be used") from error
        return response, content

    def _refused(self, response: httpx.Response, content: bytes, secrets: Iterable[str]) -> SourceError:
        text = content.decode(errors="replace").replace(NUL, "")
        for secret in secrets:
            # Some trackers and proxies repeat the request in their error; what they say is shown and stored.
            text = text.replace(secret, REDACTED)
        refusal = Refusal(status=response.status_code, headers=response.headers, text=text, now=datetime.now(UTC))
        return (self._classify(refusal) if self._classify else None) or classify(refusal)


def _answer(response: httpx.Response, content: bytes, read_at: datetime, decode: Decode) -> Answer:
    return Answer(
        status=response.status_code,
        headers=response.headers,
        data=value_of(response, content, decode),
        read_at=read_at,
        url=str(response.url),
        links=response.links,
    )


def classify(refusal: Refusal) -> SourceError:
    """What a status means where the tracker has no riddle of its own for it."""
    status = refusal.status
    says = f"{status} {_phrase(status)}{_message(refusal)}"
    if 300 <= status < 400:
        hint = "If the tracker moved, make its new address the base_url"
        return refusal.error(Trouble.BAD_REQUEST, f"The source sends its callers elsewhere: {says}", hint=hint)
    if status == 503 or (status >= 500 and is_html(refusal.headers)):
        return refusal.error(Trouble.MAINTENANCE, f"The source is not available: {says}", retry_at=refusal.retry_after)
    trouble = _TROUBLE_OF.get(status) or (Trouble.SERVER_ERROR if status >= 500 else Trouble.BAD_REQUEST)
    return refusal.error(trouble, f"The source answered {says}", retry_at=refusal.retry_after)


_TROUBLE_OF = {
    401: Trouble.AUTH_INVALID,
    402: Trouble.SUSPENDED_PAYMENT,
    403: Trouble.PERMISSION_DENIED,
    404: Trouble.NOT_FOUND,
    408: Trouble.TIMEOUT,
    410: Trouble.SCHEMA_CHANGED,
    429: Trouble.RATE_LIMIT,
}


def parse_http_date(value: str | None) -> datetime | None:
    """The time a Date or Retry-After header names, or None."""
    if not value:
        return None
    with suppress(ValueError, TypeError):
        moment = parsedate_to_datetime(value)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None


def _is_glitch(error: BaseException) -> bool:
    return isinstance(error, SourceError) and error.trouble in _QUICKLY_RETRIED and error.retry_at is None


def _broken(url: httpx.URL, error: Exception) -> SourceError:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return SourceError(
            Trouble.NETWORK_GLITCH,
            f"The certificate of {url.host} is not to be trusted",
            hint="It expired, is of another name, or its issuer is not a public one; the tracker's operator can tell",
        )
    return SourceError(Trouble.NETWORK_GLITCH, f"The connection to {url.host} failed: {type(error).__name__}")


def _is_of_token(response: httpx.Response, error: SourceError) -> bool:
    refused = error.trouble in {Trouble.AUTH_INVALID, Trouble.AUTH_EXPIRED}
    return refused and response.status_code == HTTPStatus.UNAUTHORIZED


def _unsendable() -> SourceError:
    """Of all headers only those of the credentials come from people. What the library says of them repeats them."""
    return SourceError(
        Trouble.AUTH_INVALID,
        "The credentials hold characters that cannot be sent",
        hint="Save the token again, without spaces, quotes or line breaks in or around it",
    )


def _wants_log_in(response: httpx.Response) -> bool:
    return response.status_code in {401, 403} or is_html(response.headers)


def _sent_away(base: httpx.URL, url: httpx.URL) -> SourceError:
    return SourceError(
        Trouble.BAD_REQUEST,
        f"{base.host} sends its callers on to {url.scheme}://{url.host}, and credentials do not go there",
        hint="If the tracker is there now, make it the base_url; if it is a log-in page, the token does not work here",
    )


def _secrets_in(values: Iterable[str]) -> set[str]:
    """What of these headers and form fields must not be repeated: tokens, also inside of a Basic pair."""
    words = {value.rpartition(" ")[2] for value in values}
    for word in tuple(words):
        with suppress(ValueError):
            words.add(base64.b64decode(word, validate=True).decode().partition(":")[2])
    return {word for word in words if len(word) >= _SECRET_CHARACTERS}


def _message(refusal: Refusal) -> str:
    """What the tracker says, where it says it in the common places; never the whole body."""
    found = refusal.json
    if _is_object(found):
        found = next((found[name] for name in _MESSAGE_NAMES if found.get(name)), "")
    if _is_object(found):
        found = found.get("message", "")
    if isinstance(found, list):
        found = "; ".join(map(str, cast("list[object]", found)))
    text = " ".join(str(found).split()) if isinstance(found, str) else ""
    return f": {text[:_SHOWN_CHARACTERS]}" if text else ""


def _is_object(value: object) -> TypeIs[dict[str, Any]]:
    return isinstance(value, dict)


def _phrase(status: int) -> str:
    with suppress(ValueError):
        return HTTPStatus(status).phrase
    return "unknown status"


def _present(request: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if value is not None}
