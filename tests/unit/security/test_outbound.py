"""The guard of outbound calls."""

import httpx
import pytest

from shared.domain.errors import SourceError, Trouble
from shared.security.outbound import GuardedTransport, is_public


class Recorder(httpx.AsyncBaseTransport):
    """Notes what would be sent."""

    def __init__(self) -> None:
        self.sent: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        return httpx.Response(200)


def client(recorder: Recorder, *addresses: str, allow_private: bool = False) -> httpx.AsyncClient:
    async def resolve(host: str, port: int) -> list[str]:
        return list(addresses)

    return httpx.AsyncClient(transport=GuardedTransport(recorder, allow_private=allow_private, resolve=resolve))


PRIVATE = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1"),
    *("::1", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_of_our_own_network_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_name_that_leads_inside_is_not_called(address: str) -> None:
    recorder = Recorder()

    with pytest.raises(SourceError) as refused:
        await client(recorder, "93.184.215.14", address).get("https://tracker.example/")

    assert refused.value.trouble is Trouble.BAD_REQUEST
    assert recorder.sent == []


async def test_plain_http_is_not_called() -> None:
    recorder = Recorder()

    with pytest.raises(SourceError, match="https"):
        await client(recorder, "93.184.215.14").get("http://tracker.example/")

    assert recorder.sent == []


async def test_the_address_that_was_checked_is_the_one_that_is_called() -> None:
    recorder = Recorder()

    await client(recorder, "93.184.215.14").get("https://tracker.example/path")

    (sent,) = recorder.sent
    assert sent.url.host == "93.184.215.14"
    assert sent.headers["host"] == "tracker.example"
    assert sent.extensions["sni_hostname"] == "tracker.example"


async def test_a_local_stack_may_allow_loopback() -> None:
    recorder = Recorder()

    await client(recorder, "127.0.0.1", allow_private=True).get("http://127.0.0.1:8080/")

    assert len(recorder.sent) == 1
