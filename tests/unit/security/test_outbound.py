"""The guard of outbound calls."""

import socket
import ssl
from collections.abc import Iterable

import httpcore
import httpx
import pytest

from shared.domain.errors import SourceError, Trouble
from shared.security.outbound import GuardedBackend, guarded_client, is_public

PUBLIC = "93.184.215.14"
OTHER_PUBLIC = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
PRIVATE = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1"),
    *("::1", "fe80::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::7f00:1"),
    *(
        "2002:7f00:1::",
        "::",
        "::7f00:1",
        "::ffff:0:7f00:1",
        "fec0::1",
        "5f00::1",
        "168.63.129.16",
        "::ffff:168.63.129.16",
    ),
]


class Stream(httpcore.AsyncMockStream):
    """A connection that notes the name its certificate has to be of, and answers two requests."""

    def __init__(self, network: "Network") -> None:
        super().__init__([b"HTTP/1.1 200 OK\r\nSet-Cookie: session=ada\r\nContent-Length: 2\r\n\r\n{}"] * 2)
        self._network = network

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        self._network.certificates.append(server_hostname or "")
        return self

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        self._network.written += buffer


class Network(httpcore.AsyncNetworkBackend):
    """Notes what is connected to; `dead` addresses refuse."""

    def __init__(self, *, dead: Iterable[str] = ()) -> None:
        self.dead = set(dead)
        self.tried: list[tuple[str, int]] = []
        self.certificates: list[str] = []
        self.written = b""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.tried.append((host, port))
        if host in self.dead:
            raise httpcore.ConnectError
        return Stream(self)


def client(network: Network, *addresses: str) -> httpx.AsyncClient:
    async def resolve(host: str, port: int) -> list[str]:
        return list(addresses)

    return guarded_client(backend=GuardedBackend(network, resolve=resolve))


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_of_our_own_network_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", [PUBLIC, OTHER_PUBLIC, f"::ffff:{PUBLIC}"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_name_that_leads_inside_is_not_called(address: str) -> None:
    network = Network()

    with pytest.raises(SourceError) as refused:
        await client(network, PUBLIC, address).get("https://tracker.example/")

    assert refused.value.trouble is Trouble.BAD_REQUEST
    assert network.tried == []


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "localhost", "127.1"])
async def test_an_address_written_in_the_url_is_looked_at_too(host: str) -> None:
    network = Network()

    with pytest.raises(SourceError, match="not on the public internet"):
        await guarded_client(backend=GuardedBackend(network)).get(f"https://{host}/")

    assert network.tried == []


async def test_plain_http_is_not_called() -> None:
    network = Network()

    with pytest.raises(SourceError, match="https"):
        await client(network, PUBLIC).get("http://tracker.example/")

    assert network.tried == []


async def test_the_address_that_was_checked_is_the_one_that_is_called() -> None:
    network = Network()

    await client(network, PUBLIC).get("https://tracker.example/path")

    assert network.tried == [(PUBLIC, 443)]
    assert network.certificates == ["tracker.example"]
    assert b"Host: tracker.example\r\n" in network.written


async def test_trackers_at_one_address_do_not_share_a_connection() -> None:
    network = Network()
    calls = client(network, PUBLIC)

    await calls.get("https://petrel.example/")
    await calls.get("https://harbor.example/")

    assert network.certificates == ["petrel.example", "harbor.example"]


async def test_a_name_that_changes_its_mind_is_checked_again() -> None:
    network = Network()
    answers = iter([[PUBLIC], ["127.0.0.1"]])

    async def resolve(host: str, port: int) -> list[str]:
        return next(answers)

    calls = guarded_client(backend=GuardedBackend(network, resolve=resolve))
    await calls.get("https://tracker.example/", headers={"Connection": "close"})

    with pytest.raises(SourceError, match="not on the public internet"):
        await calls.get("https://tracker.example:8443/")

    assert network.tried == [(PUBLIC, 443)]


async def test_a_dead_address_does_not_hide_the_others() -> None:
    network = Network(dead=[OTHER_PUBLIC])

    answer = await client(network, OTHER_PUBLIC, PUBLIC).get("https://tracker.example/")

    assert answer.status_code == 200
    assert [host for host, _ in network.tried] == [OTHER_PUBLIC, PUBLIC]


async def test_a_name_nobody_knows_is_a_classified_error() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror

    with pytest.raises(SourceError, match="cannot be resolved") as refused:
        await guarded_client(backend=GuardedBackend(Network(), resolve=resolve)).get("https://tracker.example/")

    assert refused.value.trouble is Trouble.NETWORK_GLITCH


async def test_cookies_of_one_connection_do_not_speak_for_another() -> None:
    network = Network()
    calls = client(network, PUBLIC)

    await calls.get("https://tracker.example/")
    await calls.get("https://tracker.example/")

    assert b"session=ada" not in network.written


async def test_a_local_stack_may_allow_loopback(unused_tcp_port: int) -> None:
    with pytest.raises(httpx.ConnectError):
        await guarded_client(allow_private=True).get(f"http://127.0.0.1:{unused_tcp_port}/")
