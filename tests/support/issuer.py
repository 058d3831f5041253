"""An OIDC issuer on loopback, shaped like Entra ID: discovery, keys and tokens signed with real RSA keys.

The product fetches the keys over HTTP as it does from Entra ID, so nothing of the check is bypassed.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

TENANT = "6f0d8a52-3c1b-4e57-9b7e-2d94c1a0e8f3"
API = "c2b7a1de-90f4-4d4a-8f55-71e3b06a4c19"


class SigningKey:
    """An RSA key and the id it is published under."""

    def __init__(self, key_id: str) -> None:
        self.id = key_id
        self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def published(self) -> dict[str, Any]:
        jwk = json.loads(RSAAlgorithm.to_jwk(self.private.public_key()))
        return jwk | {"kid": self.id, "use": "sig", "alg": "RS256"}


class Issuer:
    """Runs in a thread of its own while entered; `port` makes its address known beforehand."""

    def __init__(self, port: int = 0, *, tenant: str = TENANT) -> None:
        self.tenant = tenant
        self.keys = [SigningKey("first")]
        self.fetches = 0
        self.broken = False
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.authority = f"http://127.0.0.1:{self._server.server_port}"
        self.v1_authority = f"{self.authority}/sts"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def settings(self) -> dict[str, Any]:
        """The product's settings that trust this issuer, by field name."""
        return {
            "entra_tenant_id": self.tenant,
            "entra_audiences": (API, f"api://{API}"),
            "entra_authority": self.authority,
            "entra_v1_issuer": self.v1_authority,
        }

    def environment(self) -> dict[str, str]:
        """The same for a process started with an environment."""
        values = self.settings() | {"entra_audiences": ",".join(self.settings()["entra_audiences"])}
        return {name.upper(): value for name, value in values.items()}

    def token(self, *roles: str, version: int = 2, key: SigningKey | None = None, **claims: Any) -> str:
        """An app's access token with these app roles; a claim given as None is left out."""
        signing = key or self.keys[-1]
        content = self.claims(*roles, version=version) | claims
        kept = {name: value for name, value in content.items() if value is not None}
        return jwt.encode(kept, signing.private, algorithm="RS256", headers={"kid": signing.id})

    def claims(self, *roles: str, version: int = 2) -> dict[str, Any]:
        """What a good token says."""
        now = int(time.time())
        caller = str(uuid4())
        common: dict[str, Any] = {"iat": now, "nbf": now - 5, "exp": now + 300, "tid": self.tenant}
        common |= {"oid": caller, "sub": caller, "roles": list(roles), "idtyp": "app"}
        if version == 1:
            issuer = f"{self.v1_authority}/{self.tenant}/"
            return common | {"iss": issuer, "aud": f"api://{API}", "appid": "build-agent", "ver": "1.0"}
        issuer = f"{self.authority}/{self.tenant}/v2.0"
        return common | {"iss": issuer, "aud": API, "azp": "build-agent", "ver": "2.0"}

    def rotate(self) -> None:
        """Sign with a new key from now on, and publish it alone."""
        self.keys = [SigningKey(f"rotated-{uuid4().hex[:8]}")]

    def _documents(self) -> dict[str, dict[str, Any]]:
        keys_path = f"/{self.tenant}/discovery/v2.0/keys"
        return {
            f"/{self.tenant}/v2.0/.well-known/openid-configuration": {
                "issuer": f"{self.authority}/{self.tenant}/v2.0",
                "jwks_uri": f"{self.authority}{keys_path}",
                "id_token_signing_alg_values_supported": ["RS256"],
            },
            keys_path: {"keys": [key.published() for key in self.keys]},
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                document = None if issuer.broken else issuer._documents().get(self.path)
                issuer.fetches += 1
                body = json.dumps(document or {}).encode()
                self.send_response(503 if issuer.broken else 200 if document else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing: a test's output is its failures."""

        return Handler
