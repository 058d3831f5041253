"""Requests to a ServiceNow instance: credentials, tokens, refusals, and rows with the count made before row rights."""

from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict, TypeIs, cast

import httpx
import msgspec

from shared.connectors._http import Answer, Headers, Refusal, TrackerHTTP
from shared.connectors._json import from_json
from shared.connectors._oauth import Tokens, renewal_of
from shared.connectors._protocol import Lease, Quota
from shared.connectors._servicenow_settings import ServiceNowCredentials
from shared.domain.errors import SourceError, Trouble

_SECONDS_A_TOKEN_LIVES = 1_800


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows this account may see, and how many the query has before row rights and the limit.

    Of wide rows `rows` holds what a walk looks at, and `texts` the whole of each as JSON.
    """

    rows: list[dict[str, Any]]
    total: int
    answer: Answer
    texts: Sequence[msgspec.Raw] = ()


class _Head(TypedDict, total=False):
    sys_id: Any
    sys_updated_on: Any


class _Heads(msgspec.Struct):
    result: list[_Head]


class _Texts(msgspec.Struct):
    result: list[msgspec.Raw]
    error: Any = None


@dataclass(frozen=True)
class _WideRows:
    heads: list[dict[str, Any]]
    texts: list[msgspec.Raw]


_read_heads = msgspec.json.Decoder(_Heads).decode
_read_texts = msgspec.json.Decoder(_Texts).decode


def _wide_rows(content: bytes) -> Any:
    """Rows of which each is read by itself later; any other answer as it is."""
    with suppress(msgspec.DecodeError):
        found = _read_texts(content)
        if not found.error:
            return _WideRows(cast("list[dict[str, Any]]", _read_heads(content).result), found.result)
    # No rows, or not even JSON: that is told where all answers are looked at.
    return from_json(content)


class Session:
    """Requests on behalf of one account."""

    def __init__(
        self, client: httpx.AsyncClient, base_url: str, credentials: ServiceNowCredentials, concurrency: int
    ) -> None:
        self._credentials = credentials
        self._http = TrackerHTTP(
            client,
            base_url=base_url,
            authorize=self._authorize,
            renounce=self._renounce,
            classify=classify,
            read_quota=read_quota,
            concurrency=concurrency,
        )
        # Tokens are asked for without authorization, and while requests wait for one.
        self._door = TrackerHTTP(client, base_url=base_url, classify=_classify_login, concurrency=1)
        self._tokens = Tokens(self._log_in) if credentials.client_id else None

    @property
    def requests(self) -> int:
        return self._http.requests + self._door.requests

    @property
    def quota(self) -> Quota | None:
        return self._http.quota

    async def rows(
        self, table: str, *, query: str = "", fields: str = "", limit: int, labels: bool = False, wide: bool = False
    ) -> Rows:
        """The first rows of a query. `labels`: every field as {display_value, value}; `wide`: so too, as `texts`."""
        params = {
            "sysparm_query": query,
            "sysparm_limit": limit,
            "sysparm_display_value": "all" if labels or wide else "false",
            "sysparm_exclude_reference_link": "true",
        }
        params |= {"sysparm_fields": fields} if fields else {}
        decode = _wide_rows if wide else from_json
        answer = await self._http.get(f"api/now/table/{table}", params, decode=decode)
        if isinstance(answer.data, _WideRows):
            return Rows(rows=answer.data.heads, total=_total(answer), answer=answer, texts=answer.data.texts)
        result = _result(answer)
        if not _are_objects(result):
            raise SourceError(Trouble.PAYLOAD_INVALID, f"The answer about {table} holds no list of rows")
        return Rows(rows=result, total=_total(answer), answer=answer)

    async def _authorize(self) -> Headers:
        if self._tokens:
            return await self._tokens.headers()
        pair = f"{self._credentials.username}:{self._credentials.password.get_secret_value()}"
        return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}

    def _renounce(self, refused: Headers) -> bool:
        return self._tokens is not None and self._tokens.renounce(refused)

    async def _log_in(self, _spent: str) -> Lease:
        answer = await self._door.request("POST", "oauth_token.do", form=self._credentials.grant())
        if not _is_object(answer.data) or not answer.data.get("access_token"):
            raise SourceError(Trouble.PAYLOAD_INVALID, "The instance answered the log-in without a token")
        lives = float(answer.data.get("expires_in") or _SECONDS_A_TOKEN_LIVES)
        return Lease(access_token=str(answer.data["access_token"]), renew_at=renewal_of(answer, lives))


def _result(answer: Answer) -> Any:
    """What an answer brings. A query that ran too long is cancelled while its answer is on the way: the status is 200,
    and the rows are followed by an error or by nothing.
    """
    data = answer.data
    if _is_object(data) and data.get("error"):
        error = data["error"]
        said = str(error.get("message") if _is_object(error) else error)[:200]
        raise SourceError(Trouble.PAYLOAD_INVALID, f"The instance broke its answer off: {said}", status=answer.status)
    if not _is_object(data) or "result" not in data:
        raise SourceError(Trouble.PAYLOAD_INVALID, "The answer holds no result", status=answer.status)
    return data["result"]


def _total(answer: Answer) -> int:
    header = answer.headers.get("x-total-count", "")
    if not header.isdecimal():
        detail = "The answer does not say how many rows there are, so its end cannot be told"
        hint = "Let the proxy in between pass the header X-Total-Count on"
        raise SourceError(Trouble.PAYLOAD_INVALID, detail, status=answer.status, hint=hint)
    return int(header)


def _is_object(value: object) -> TypeIs[dict[str, Any]]:
    return isinstance(value, dict)


def _are_objects(value: object) -> TypeIs[list[dict[str, Any]]]:
    return isinstance(value, list) and all(_is_object(row) for row in cast("list[object]", value))


def read_quota(headers: httpx.Headers) -> Quota | None:
    """Limits exist only where an administrator made a rule; what is left of one is not said.

    https://www.servicenow.com/docs/r/api-reference/rest-api-explorer/inbound-REST-API-rate-limiting.html
    """
    limit = headers.get("x-ratelimit-limit", "")
    if not limit.isdecimal():
        return None
    rule = headers.get("x-ratelimit-rule", "")
    return Quota(bucket=rule, limit=int(limit), resets_at=_resets_at(headers))


def classify(refusal: Refusal) -> SourceError | None:
    """What a refusal means where its status alone does not say it.

    https://www.servicenow.com/docs/r/api-reference/rest-api-explorer/r_RESTAPIHTTPResponseCodes.html
    """
    if refusal.status == 401 and "x-mfa_token" in refusal.headers:
        hint = "Use an account for integrations, which no second factor is asked of, or OAuth with client credentials"
        return refusal.error(Trouble.AUTH_INVALID, "The instance asks this account for a second factor", hint=hint)
    if refusal.status == 404 and "html" in refusal.headers.get("content-type", ""):
        # The API refuses in JSON; a page must never pass for a table or a record that is gone.
        hint = "Give the address of the instance alone, such as https://your-company.service-now.com"
        return refusal.error(Trouble.AUTH_INVALID, "There is no ServiceNow under this address", hint=hint)
    if refusal.status == 429:
        retry_at = refusal.retry_after or _resets_at(refusal.headers)
        return refusal.error(Trouble.RATE_LIMIT, f"Too many requests{_said(refusal)}", retry_at=retry_at)
    said = _said(refusal)
    if refusal.status == 400 and "invalid table" in said.lower():
        return refusal.error(Trouble.NOT_FOUND, f"The instance has no such table{said}")
    if refusal.status >= 500 and "transaction cancelled" in said.lower():
        return refusal.error(Trouble.TIMEOUT, f"The instance cancelled the query{said}", retry_at=refusal.retry_after)
    return None


def _classify_login(refusal: Refusal) -> SourceError | None:
    if refusal.status in {400, 401, 403}:
        hint = "Check the client in the application registry, its secret, and that it allows this kind of grant"
        return refusal.error(Trouble.AUTH_INVALID, f"The instance gives no token{_said(refusal)}", hint=hint)
    return classify(refusal)


def _said(refusal: Refusal) -> str:
    """`: message (detail)` of a refusal, or of an OAuth refusal its description."""
    body = refusal.json
    if not _is_object(body):
        return ""
    error = body.get("error")
    parts = [error.get("message"), error.get("detail")] if _is_object(error) else [error, body.get("error_description")]
    words = [" ".join(str(part).split())[:200] for part in parts if part]
    return f": {words[0]}" + (f" ({words[1]})" if len(words) > 1 else "") if words else ""


def _resets_at(headers: httpx.Headers) -> datetime | None:
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(int(headers.get("x-ratelimit-reset", "")), UTC)
    return None
