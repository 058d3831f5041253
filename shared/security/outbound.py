"""The guard of outbound calls: https only, and no address inside our own network, on every request and redirect.

Names are resolved here and the connection goes to the address that was checked, so that a name cannot point somewhere
else a moment later.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence

import httpx

from shared.domain.errors import SourceError, Trouble

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_HINT = "Use the tracker's public https address; only a local stack may allow private ones (ALLOW_PRIVATE_ADDRESSES)"


class GuardedTransport(httpx.AsyncBaseTransport):
    """Sends only what may be sent; everything else raises SourceError before a connection is made."""

    def __init__(
        self, inner: httpx.AsyncBaseTransport, *, allow_private: bool = False, resolve: Resolve | None = None
    ) -> None:
        self._inner = inner
        self._allow_private = allow_private
        self._resolve = resolve or _resolve

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Check where the request leads, then send it there."""
        if self._allow_private:
            return await self._inner.handle_async_request(request)
        if request.url.scheme != "https":
            raise SourceError(Trouble.BAD_REQUEST, "Only https addresses are called", hint=_HINT)
        host = request.url.host
        address = await self._checked_address(host, request.url.port or 443)
        request.url = request.url.copy_with(host=address)
        # The certificate and the virtual host are still those of the name.
        request.extensions = {**request.extensions, "sni_hostname": host}
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()

    async def _checked_address(self, host: str, port: int) -> str:
        try:
            found = await self._resolve(host, port)
        except OSError as error:
            raise SourceError(Trouble.NETWORK_GLITCH, f"The name {host} cannot be resolved") from error
        if not found:
            raise SourceError(Trouble.NETWORK_GLITCH, f"The name {host} has no address")
        for address in found:
            if not is_public(address):
                raise SourceError(
                    Trouble.BAD_REQUEST, f"{host} leads to an address that is not on the public internet", hint=_HINT
                )
        return found[0]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet; embedded IPv4 addresses are looked at too."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return inner.is_global and not inner.is_multicast
    return ip.is_global and not ip.is_multicast


async def _resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def guarded_client(*, allow_private: bool = False) -> httpx.AsyncClient:
    """The client of all connectors of a worker."""
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=40, keepalive_expiry=30)
    inner = httpx.AsyncHTTPTransport(limits=limits, retries=0)
    return httpx.AsyncClient(
        transport=GuardedTransport(inner, allow_private=allow_private), follow_redirects=False, trust_env=False
    )
