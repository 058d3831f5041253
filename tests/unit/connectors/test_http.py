"""The client all connectors share: where credentials go, how long it waits, and what it tells of a refusal."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from shared.connectors import _http
from shared.connectors._http import Headers, Refusal, TrackerHTTP
from shared.domain.errors import SourceError, Trouble

Handler = Callable[[httpx.Request], httpx.Response]
NOW = datetime(2025, 3, 3, 9, tzinfo=UTC)
BASE = "https://petrel.example/api"
PAIR = base64.b64encode(b"sync@petrel.example:s3cret-token").decode()


def tracker(handler: Handler, *, authorization: str = "Bearer s3cret-token") -> TrackerHTTP:
    async def authorize() -> Headers:
        return {"Authorization": authorization}

    client = httpx.AsyncClient(transport=httpx.MockTransport(handler))
    return TrackerHTTP(client, base_url=BASE, authorize=authorize)


def refused(retry_after: str) -> Refusal:
    return Refusal(status=429, headers=httpx.Headers({"Retry-After": retry_after}), text="", now=NOW)


async def test_credentials_follow_a_redirect_to_the_same_host_only() -> None:
    seen: dict[str, str | None] = {}

    def handler(request: httpx.Request) -> httpx.Response:
        seen[str(request.url)] = request.headers.get("Authorization")
        leads = {"/api/a": "/api/b", "/api/b": "https://elsewhere.example/c"}.get(request.url.path)
        return httpx.Response(302, headers={"Location": leads}) if leads else httpx.Response(200, json={})

    await tracker(handler).get("a")

    assert seen == {
        "https://petrel.example/api/a": "Bearer s3cret-token",
        "https://petrel.example/api/b": "Bearer s3cret-token",
        "https://elsewhere.example/c": None,
    }


@pytest.mark.parametrize(
    "there",
    [httpx.Response(401, json={}), httpx.Response(200, html="<form>Log in</form>")],
    ids=["refused", "log-in page"],
)
async def test_an_address_that_leads_elsewhere_is_told_as_such(there: httpx.Response) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.host == "petrel.example":
            return httpx.Response(301, headers={"Location": "https://moved.example/api"})
        return there

    with pytest.raises(SourceError, match=r"https://moved\.example") as error:
        await tracker(handler).get("myself")

    assert error.value.trouble is Trouble.BAD_REQUEST
    assert "base_url" in error.value.hint


async def test_a_redirected_search_names_the_fix() -> None:
    with pytest.raises(SourceError) as error:
        await tracker(lambda _: httpx.Response(308, headers={"Location": "https://moved.example"})).post("search", {})

    assert error.value.trouble is Trouble.BAD_REQUEST
    assert "base_url" in error.value.hint


@pytest.mark.parametrize(
    ("authorization", "echo"),
    [("Bearer s3cret-token", "s3cret-token"), (f"Basic {PAIR}", PAIR), (f"Basic {PAIR}", "s3cret-token")],
    ids=["token", "pair", "password"],
)
async def test_a_refusal_that_repeats_our_credentials_does_not_show_them(authorization: str, echo: str) -> None:
    def handler(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(400, json={"message": f"Cannot parse {echo}"})

    with pytest.raises(SourceError, match="Cannot parse") as error:
        await tracker(handler, authorization=authorization).get("myself")

    assert echo not in error.value.detail


async def test_a_refused_log_in_shows_how_we_asked_and_not_with_what() -> None:
    form = {"grant_type": "client_credentials", "client_secret": "s3cret-of-client"}

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(400, json={"error_description": f"Cannot take {request.content.decode()}"})

    with pytest.raises(SourceError, match="grant_type=client_credentials") as error:
        await tracker(handler).request("POST", "token", form=form)

    assert "s3cret-of-client" not in error.value.detail


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("17", 17), ("-5", 0), ("inf", 86_400), ("1e300", 86_400), ("Thu, 03 Mar 2095 09:00:00 GMT", 86_400)],
)
def test_a_wait_is_a_day_at_most_whatever_the_source_says(value: str, seconds: int) -> None:
    assert refused(value).retry_after == NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["", "nan", "soon"])
def test_a_wait_that_makes_no_sense_is_none(value: str) -> None:
    assert refused(value).retry_after is None


async def test_an_answer_that_never_ends_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drip() -> AsyncIterator[bytes]:
        yield b"["
        await asyncio.Event().wait()

    monkeypatch.setattr(_http, "_ANSWER_SECONDS", 0.05)

    with pytest.raises(SourceError, match="did not end") as error:
        await tracker(lambda _: httpx.Response(200, content=drip())).get("issues")

    assert error.value.trouble is Trouble.TIMEOUT


async def test_a_certificate_that_is_not_trusted_is_named() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate")

    with pytest.raises(SourceError, match=r"certificate of petrel\.example") as error:
        await tracker(handler).get("myself")

    assert "issuer" in error.value.hint


async def test_an_answer_of_nothing_is_cut_off_and_asked_for_again() -> None:
    answers = iter([httpx.Response(200, content=b""), httpx.Response(200, json=[1])])

    answer = await tracker(lambda _: next(answers)).get("issues")

    assert answer.data == [1]


async def test_nothing_where_nothing_is_promised_is_an_answer() -> None:
    assert (await tracker(lambda _: httpx.Response(204)).get("statistics")).data is None
