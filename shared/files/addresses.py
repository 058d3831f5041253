"""Addresses of repositories: which of them are the same one, and what of them must not be kept."""

import re
from urllib.parse import urlsplit

_CREDENTIALS = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@\"\\]+@", re.IGNORECASE)
_SHORT_ADDRESS = re.compile(r"(?:[\w.-]+@)?([\w-]+(?:\.[\w-]+)+):(?!\d+(?:/|$))([^\\]+)")
_USUAL_PORTS = frozenset({22, 80, 443, 9418})


def without_credentials(text: str) -> str:
    """Text in which no web address carries a user name or a password."""
    return _CREDENTIALS.sub(r"\1", text)


def repository_identity(address: str) -> str:
    """A repository address without what does not tell repositories apart: scheme, credentials, case, `.git`, slash."""
    stripped = without_credentials(address.strip())
    short = _SHORT_ADDRESS.fullmatch(stripped)
    if short:
        host, path = short.groups()
    else:
        try:
            parts = urlsplit(stripped if "//" in stripped else f"//{stripped}")
            port = parts.port
        except ValueError:  # no address at all, but still the same one wherever it stands
            return stripped.lower()
        host, path = (parts.hostname or "") + (f":{port}" if port and port not in _USUAL_PORTS else ""), parts.path
    path = path.strip("/").removesuffix(".git").rstrip("/")
    return f"{host.lower()}/{path.lower()}" if host and path else ""
