"""The guard of outbound calls: https only, and no address inside our own network, on every request and redirect.

Names are resolved here, when a connection is made, and the connection goes to an address that was checked: a name
cannot point somewhere else a moment later. Connections stay pooled by name, so certificate and virtual host are those
of the name, and one made for one tracker never serves another at the same address.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpcore
import httpx

from shared.domain.errors import SourceError, Trouble

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
_RESOLVE_SECONDS = 10
# A name may have many addresses; a dead one must not hide the others, nor may all of them take their time.
_MOST_ADDRESSES = 3
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Ways to write an IPv4 address that nobody uses any more and some stacks still follow, and addresses that look public:
# those of a network's own routing (RFC 9602), and the one where the fabric controller of an Azure host answers guests.
# https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
_NEVER = (
    *(ipaddress.ip_network(each) for each in ("::/96", "::ffff:0:0:0/96", "fec0::/10", "5f00::/16")),
    ipaddress.ip_network("168.63.129.16/32"),
)
_HINT = "Use the tracker's public https address; only a local stack may allow private ones (ALLOW_PRIVATE_ADDRESSES)"


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only; everything else raises SourceError before a packet leaves."""

    def __init__(self, inner: httpcore.AsyncNetworkBackend, *, resolve: Resolve | None = None) -> None:
        self._inner = inner
        self._resolve = resolve or _resolve

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of the name that answers, after all of them were checked."""
        addresses = (await self._checked_addresses(host, port))[:_MOST_ADDRESSES]
        for address in addresses[:-1]:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._inner.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def _checked_addresses(self, host: str, port: int) -> Sequence[str]:
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise SourceError(Trouble.NETWORK_GLITCH, f"The name {host} cannot be resolved") from error
        if not found:
            raise SourceError(Trouble.NETWORK_GLITCH, f"The name {host} has no address")
        for address in found:
            if not is_public(address):
                raise SourceError(
                    Trouble.BAD_REQUEST, f"{host} leads to an address that is not on the public internet", hint=_HINT
                )
        return found


class GuardedTransport(httpx.AsyncHTTPTransport):
    """Sends over https and a guarded backend only."""

    def __init__(self, backend: GuardedBackend, limits: httpx.Limits) -> None:
        super().__init__(trust_env=False)
        # httpx has no parameter for the backend; httpcore has.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=backend,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Refuse what is not encrypted, and send the rest."""
        if request.url.scheme != "https":
            raise SourceError(Trouble.BAD_REQUEST, "Only https addresses are called", hint=_HINT)
        return await super().handle_async_request(request)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet; embedded IPv4 addresses are looked at too."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = inner or ip
    return ip.is_global and not ip.is_multicast and not any(ip in each for each in _NEVER)


async def _resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def guarded_client(*, allow_private: bool = False, backend: GuardedBackend | None = None) -> httpx.AsyncClient:
    """The client of all connectors of a worker.

    It keeps no cookies: a session that one connection was given must not speak for another of the same tracker.
    """
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=40, keepalive_expiry=30)
    if allow_private:
        transport = httpx.AsyncHTTPTransport(limits=limits, trust_env=False)
    else:
        sockets = httpcore.AnyIOBackend()
        guard = backend or GuardedBackend(sockets)  # pyright: ignore[reportArgumentType]  # it sees a stand-in for it
        transport = GuardedTransport(guard, limits)
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    return httpx.AsyncClient(transport=transport, cookies=no_cookies, follow_redirects=False, trust_env=False)
